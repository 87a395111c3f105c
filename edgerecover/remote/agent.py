"""The part that works on the device. Its text is sent there and run by the device's python3; it is not imported here.

One connection carries everything: in comes a header (a line of JSON), then the files it lists, one after the other; out
go events, each a line of JSON behind a mark, since a login shell may print what it likes. As long as the desk is there,
its end of the input stays open. When it closes, by Ctrl-C or because the connection is lost, what runs here is ended;
and however this ends, the folder is removed. Python 3.10, stdlib only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

MARK = b"edgerecover-agent "
MAX_RESULT_BYTES = 64 << 20
KILL_AFTER_S = 3.0
ALIVE_EVERY_S = 2.0
PIECE_BYTES = 1 << 18
TELLING = threading.Lock()


def main() -> None:
    """Receive, run, answer, and leave nothing behind."""
    for name in ("SIGHUP", "SIGTERM", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
    threading.Thread(target=_show_life, daemon=True).start()
    incoming = sys.stdin.buffer
    header = json.loads(incoming.readline())
    place = _place_with_room(header["needed_bytes"])
    if place is None:
        return
    folder = Path(tempfile.mkdtemp(prefix="edgerecover-", dir=place))
    try:
        _tell(event="ready", python=".".join(map(str, sys.version_info[:3])), folder=str(folder))
        try:
            _receive(incoming, folder, header["files"])
        except OSError as error:
            _tell(event="not stored", message=error.strerror or str(error))
            return
        if header["arguments"] is not None:
            _run(incoming, folder, header["arguments"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _tell(event="removed")


def _tell(**event: Any) -> None:
    """Nobody may be listening any more. Written past Python's buffer, which a thread may not hold at the end."""
    line = MARK + json.dumps(event).encode() + b"\n"
    with contextlib.suppress(OSError), TELLING:
        while line:
            line = line[os.write(1, line) :]


def _show_life() -> None:
    """The desk takes a long silence for the end."""
    while True:
        time.sleep(ALIVE_EVERY_S)
        _tell(event="alive")


def _place_with_room(needed_bytes: int) -> str | None:
    """The first folder for temporary files with enough free space: /tmp is kept in memory on many a device."""
    found = {}
    for place in (tempfile.gettempdir(), "/var/tmp", str(Path.home())):
        with contextlib.suppress(OSError):
            found[place] = shutil.disk_usage(place).free
            if found[place] >= needed_bytes and os.access(place, os.W_OK | os.X_OK):
                return place
    _tell(event="no space", needed_bytes=needed_bytes, places=list(found.items()))
    return None


def _receive(incoming: BinaryIO, folder: Path, files: list[tuple[str, int]]) -> None:
    for path, size_bytes in files:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            sys.exit(1)
        out = folder.joinpath(*parts)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("xb") as file:
            left = size_bytes
            while left:
                piece = incoming.read(min(left, PIECE_BYTES))
                if not piece:
                    sys.exit(1)  # the desk is gone
                file.write(piece)
                left -= len(piece)


def _run(incoming: BinaryIO, folder: Path, arguments: list[str]) -> None:
    """The runner, in a process group that can be ended as a whole."""
    result, temporary = folder / "result.json", folder / "tmp"
    temporary.mkdir()
    runner = subprocess.Popen(
        [sys.executable, "-B", str(folder / "runner.pyz"), *arguments, "--out", str(result)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},  # what it leaves when it is ended goes with the folder
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    threading.Thread(target=_end_with_the_desk, args=(incoming.fileno(), runner), daemon=True).start()
    try:
        assert runner.stderr is not None, "it was asked for"
        for line in runner.stderr:
            _tell(event="said", line=line.decode(errors="replace").rstrip())
        status = runner.wait()
    finally:
        _end(runner)
    text = None
    if result.is_file() and result.stat().st_size <= MAX_RESULT_BYTES:
        text = result.read_text(encoding="utf-8")
    _tell(event="result", status=status, text=text)


def _end_with_the_desk(incoming: int, runner: subprocess.Popen[bytes]) -> None:
    """The desk sends nothing more: what can be read is the end."""
    with contextlib.suppress(OSError):
        while os.read(incoming, 1):
            pass
    _end(runner)


def _end(runner: subprocess.Popen[bytes]) -> None:
    if runner.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.killpg(runner.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.wait(KILL_AFTER_S)
            return


if __name__ == "__main__":
    main()
