"""One connection of the system's OpenSSH to a device, and what its messages mean.

ssh is told what matters here whatever the user's configuration says: no question is asked, an unknown or changed host
key is refused, nothing is forwarded. The rest (aliases, keys, jump hosts, proxies) stays the user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgerecover.errors import BadInputError, EdgeRecoverError, MissingError
from edgerecover.remote.destination import Destination
from edgerecover.runner.text import printable

CONNECT_TIMEOUT_S = 10
ALIVE_EVERY_S, ALIVE_TRIES = 5, 3
"""A connection that says nothing for their product is lost."""
CLOSE_TIMEOUT_S = 15.0
"""The device gets this long to end what runs there and to clean up."""
SILENCE_TIMEOUT_S = 60.0
"""The agent shows every few seconds that it lives; a device that says nothing for so long has stopped."""
MAX_NOISE_LINES, MAX_NOISE_CHARACTERS = 100, 4000
MAX_LINE_BYTES = 128 << 20

_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "NoHostAuthenticationForLocalhost": "no",
    "ConnectTimeout": str(CONNECT_TIMEOUT_S),
    "ConnectionAttempts": "1",
    "ServerAliveInterval": str(ALIVE_EVERY_S),
    "ServerAliveCountMax": str(ALIVE_TRIES),
    "LogLevel": "ERROR",
    "ControlMaster": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "EscapeChar": "none",
}

MARK = b"edgerecover-agent "
"""Before each event of the agent: whatever else a login shell prints is not one."""
_NO_PYTHON, _OLD_PYTHON = b"edgerecover-no-python", b"edgerecover-old-python "

_BOOTSTRAP = (
    "import sys; v = sys.version_info; "
    'v < (3, 10) and (sys.stdout.write("edgerecover-old-python %d.%d.%d" % v[:3]), sys.exit(3)); '
    'i = sys.stdin.buffer; exec(compile(i.read(int(i.readline())), "edgerecover-agent", "exec"))'
)
"""Takes the agent's text from its input. Any python3 can read it, and any shell pass it on: one line, no ' ! or $."""


@dataclass(frozen=True)
class Access:
    """How to reach a device and what to call there."""

    destination: Destination
    config: Path | None = None
    """Another file in place of ~/.ssh/config; None: as ssh does it."""
    python: str = "python3"
    """On the device: a name on its PATH or a path, relative to the home folder."""


def check_python(python: str) -> str:
    """A name or path of Python on the device, as one word of a shell; `~/` is the home folder.

    Raises:
        BadInputError: it is neither.
    """
    plain = python.removeprefix("~/")
    if not re.fullmatch(r"[A-Za-z0-9_./+-]{1,300}", plain) or plain.startswith("-"):
        raise BadInputError(
            f"--device-python {python[:300]!r} is not a name or path of Python on the device",
            hint="for example python3.12, or ~/venv/bin/python",
        )
    return plain if plain == python or "/" not in plain else f"./{plain}"


class Connection:
    """The agent, running on a device. Made by `connect`, ended by leaving its `with` block."""

    def __init__(self, access: Access, process: subprocess.Popen[bytes]) -> None:
        self._access = access
        self._process = process
        self._events: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._noise: list[bytes] = []
        self._said: list[bytes] = []
        self._is_ready = False
        self._readers = [
            threading.Thread(target=self._read_events, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._read_messages, args=(process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent's input, upon which it cleans up; a device that does not answer is left to itself."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_TIMEOUT_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            for reader in self._readers:
                reader.join(CLOSE_TIMEOUT_S)

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None, "it was asked for"
        return self._process.stdin

    def send(self, content: bytes) -> None:
        """Write to the agent's input.

        Raises:
            MissingError: the connection is lost, or could not be made.
        """
        try:
            self._input.write(content)
            self._input.flush()
        except OSError as error:
            raise self._failure() from error

    def event(self) -> Mapping[str, Any]:
        """The agent's next event but for signs of life, waited for.

        Raises:
            MissingError: there is no connection, no Python, or no agent any more.
        """
        event = self._next()
        while event.get("event") == "alive":
            event = self._next()
        if event.get("event") == "ready":
            self._is_ready = True
        return event

    def _next(self) -> Mapping[str, Any]:
        try:
            event = self._events.get(timeout=SILENCE_TIMEOUT_S)
        except queue.Empty as error:
            self._process.kill()
            raise MissingError(
                f"{self._access.destination} has not answered for {SILENCE_TIMEOUT_S:.0f} s",
                hint="check whether it is out of memory, or stopped",
            ) from error
        if event is None:
            raise self._failure()
        return event

    # --- what the process says ------------------------------------------------------------------------------

    def _read_events(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(MAX_LINE_BYTES):
                event = _event_of(line)
                if event is not None:
                    self._events.put(event)
                elif len(self._noise) < MAX_NOISE_LINES:
                    self._noise.append(line[:MAX_NOISE_CHARACTERS])
        self._events.put(None)

    def _read_messages(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(MAX_NOISE_CHARACTERS):
                self._said.append(line)
                del self._said[:-MAX_NOISE_LINES]

    def _failure(self) -> EdgeRecoverError:
        """Why there is nothing more to read or write."""
        with contextlib.suppress(OSError):
            self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_TIMEOUT_S)
        for reader in self._readers:
            reader.join(CLOSE_TIMEOUT_S)
        said = b"".join(self._said).decode(errors="replace")
        noise = b"".join(self._noise)
        if self._is_ready:
            return _lost(self._access.destination, said)
        if _NO_PYTHON in noise:
            return _no_python(self._access)
        if _OLD_PYTHON in noise:
            return _old_python(self._access, noise.split(_OLD_PYTHON)[1].split()[0].decode(errors="replace"))
        return explain(said or noise.decode(errors="replace"), self._access.destination)


def connect(access: Access, agent: bytes) -> Connection:
    """Start ssh and hand the agent to Python there. Whether that works shows in the first event.

    Raises:
        MissingError: there is no ssh here.
        BadInputError: the configuration file is not there, or `access.python` is not a path.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise MissingError(
            "--on needs OpenSSH, and there is no ssh on this machine",
            hint="install it, on Debian and Ubuntu: sudo apt install openssh-client",
        )
    if access.config is not None and not access.config.is_file():
        raise BadInputError(f"--ssh-config {access.config}: no such file", hint="name a file like ~/.ssh/config")
    config = ["-F", str(access.config)] if access.config else []
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    try:
        process = subprocess.Popen(
            [ssh, *config, *options, *access.destination.arguments, _remote_command(access.python)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for this process, which then ends the agent in an orderly way.
            start_new_session=os.name == "posix",
        )
    except OSError as error:
        raise MissingError(f"{ssh} cannot be started: {error.strerror or error}", hint="reinstall OpenSSH") from error
    connection = Connection(access, process)
    try:
        connection.send(b"%d\n" % len(agent) + agent)
    except BaseException:  # Ctrl-C too leaves no process behind
        connection.close()
        raise
    return connection


def _remote_command(python: str) -> str:
    """Fixed text, and the quoted name of Python; every login shell can pass it to sh."""
    word = shlex.quote(check_python(python))
    script = (
        f"command -v {word} >/dev/null 2>&1 || {{ echo {_NO_PYTHON.decode()}; exit 3; }}; "
        f"exec {word} -I -c {shlex.quote(_BOOTSTRAP)}"
    )
    return f"exec sh -c {shlex.quote(script)}"


def _event_of(line: bytes) -> Mapping[str, Any] | None:
    if not line.startswith(MARK):
        return None
    try:
        event = json.loads(line[len(MARK) :])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


# --- messages -------------------------------------------------------------------------------------------------


def _lost(destination: Destination, said: str) -> MissingError:
    told = f": {_last_line(said)}" if said.strip() else ""
    return MissingError(
        f"the connection to {destination} was lost{told}",
        hint="retry when the network is stable; the device removes what was copied",
    )


def _no_python(access: Access) -> MissingError:
    return MissingError(
        f"{access.destination} has no {access.python}",
        hint="install it there (sudo apt install python3), or name one: --device-python PATH",
    )


def _old_python(access: Access, version: str) -> MissingError:
    return MissingError(
        f"{access.python} of {access.destination} is Python {printable(version)}; the runner needs 3.10 or newer",
        hint="name a newer one there with --device-python, for example python3.10 or ~/venv/bin/python",
    )


def _show(command: str) -> Callable[[Destination], str]:
    """A hint with the ssh command line that helps."""

    def show(destination: Destination) -> str:
        port = f" -p {destination.port}" if destination.port else ""
        user = f"{destination.user}@" if destination.user else ""
        name = f"[{destination.host}]:{destination.port}" if destination.port else destination.host
        return command.format(port=port, login=f"{user}{destination.host}", name=name)

    return show


_KNOWN: tuple[tuple[str, str, Callable[[Destination], str]], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key is not the one that is known: it was reinstalled, or it is another machine",
        _show(
            "if you know why, remove the old key (ssh-keygen -R '{name}'), then connect once by hand and compare the "
            "fingerprint: ssh{port} {login}"
        ),
    ),
    (
        r"host key is known for|Host key verification failed|No matching host key fingerprint",
        "its host key is not known here",
        _show("connect once by hand and compare the fingerprint before you accept it: ssh{port} {login}"),
    ),
    (
        r"Permission denied|Too many authentication failures|no mutual signature",
        "it does not accept a key of yours, and no password is asked for",
        _show("put your key there: ssh-copy-id{port} {login}; is the right key loaded (ssh-add -l)?"),
    ),
    (r"UNPROTECTED PRIVATE KEY", "your private key can be read by others, and ssh does not use it",
     _show("close it: chmod 600 KEYFILE")),
    (r"Could not resolve hostname", "there is no machine of that name",
     _show("check the name, or give its address; aliases come from ~/.ssh/config or --ssh-config")),
    (r"Connection refused", "nothing listens there: no ssh server runs on it, or on another port",
     _show("start it on the device (sudo systemctl enable --now ssh), or give its port: ssh://host:PORT")),
    (r"timed out|No route to host|Network is unreachable|Host is down", "it does not answer",
     _show("is it switched on and in this network? try: ssh{port} {login}")),
    (r"[Bb]ad configuration option|terminating, \d+ bad|Bad owner or permissions|extra arguments at end of line",
     "ssh does not accept its configuration", _show("mend ~/.ssh/config, or the file of --ssh-config")),
    (r"(?:sh|python3?|exec)[^\n]*not found|not recognized as an internal", "it has no POSIX shell",
     _show("a device must run Linux or macOS; run runner.pyz there by hand")),
)  # fmt: skip
"""What ssh says, what it means, and what helps."""


def explain(said: str, destination: Destination) -> MissingError:
    """What ssh said before there was a connection, as a message and a next step."""
    for pattern, meaning, hint in _KNOWN:
        if re.search(pattern, said):
            return MissingError(f"{destination}: {meaning} ({_last_line(said)})", hint=hint(destination))
    return MissingError(
        f"{destination}: could not connect{f': {_last_line(said)}' if said.strip() else ''}",
        hint=_show("try by hand what happens: ssh{port} {login} python3 --version")(destination),
    )


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return printable(lines[-1])[:300] if lines else "it said nothing"
