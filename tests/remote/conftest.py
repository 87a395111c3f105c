"""A real sshd on loopback, with keys and configuration of its own; nothing of the user's is read or changed."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from edgerecover.remote.destination import Destination
from edgerecover.remote.ssh import Access

HOST = "127.0.0.1"


def found(program):
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(program, path=places)


@dataclass
class Device:
    """One sshd and the client configuration that reaches it."""

    port: int
    folder: Path
    process: subprocess.Popen

    @property
    def config(self):
        return self.folder / "ssh_config"

    @property
    def url(self):
        return f"ssh://{getpass.getuser()}@{HOST}:{self.port}"

    @property
    def temporary(self):
        """Where the device keeps temporary files."""
        return self.folder / "tmp"

    def access(self, python=sys.executable, **changes):
        return Access(
            Destination(HOST, getpass.getuser(), self.port), **{"config": self.config, "python": python, **changes}
        )

    def client(self, **options):
        """A client configuration; options replace those that reach the device."""
        known = {
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "IdentityFile": self.folder / "user_key",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            **options,
        }
        path = self.folder / f"ssh_config_{len(list(self.folder.glob('ssh_config*')))}"
        path.write_text("".join(f"{name} {value}\n" for name, value in known.items()))
        return path

    def kill_sessions(self):
        """As when the network breaks: the daemon's processes for connections are gone at once, without a word."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # some end by themselves meanwhile
                if child.name().startswith("sshd"):
                    child.kill()


def make_key(path):
    subprocess.run([found("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port():
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def running_sshd(folder, *extra):
    folder.mkdir(exist_ok=True)
    (folder / "tmp").mkdir()
    for name in ("host_key", "user_key", "other_key"):
        make_key(folder / name)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = free_port()
    public = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[{HOST}]:{port} {public[0]} {public[1]}\n")
    lines = (
        f"Port {port}",
        f"ListenAddress {HOST}",
        f"HostKey {folder / 'host_key'}",
        f"PidFile {folder / 'pid'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        f"SetEnv TMPDIR={folder / 'tmp'}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        "UsePAM no",
        *extra,
    )
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    command = [found("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: answers(port) or process.poll() is not None, "sshd answers")
        if process.poll() is not None:
            pytest.skip(f"sshd does not run here: {(folder / 'log').read_text().strip()[-300:]}")
        device = Device(port, folder, process)
        device.client().rename(device.config)
        yield device
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def answers(port):
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(done, what, timeout_s=20.0):
    end_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end_s, f"waited in vain until {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def start_sshd(tmp_path_factory):
    """Starts a daemon with more lines of configuration; each ends with the session."""
    if found("sshd") is None or found("ssh-keygen") is None or found("ssh") is None:
        pytest.skip("there is no sshd here: apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # a daemon of root's wants this empty folder to lock itself up in
    with contextlib.ExitStack() as running:
        yield lambda *extra: running.enter_context(running_sshd(tmp_path_factory.mktemp("sshd"), *extra))


@pytest.fixture(scope="session")
def device(start_sshd):
    return start_sshd()
