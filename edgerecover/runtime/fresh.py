"""Work in an interpreter of its own: what it measures or survives is its own. Stdlib only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgerecover.errors import StageError

_START = (
    "import importlib, json, sys; home, path = json.loads(sys.argv[1]); sys.path.extend(path); "
    "sys.path.insert(0, home); import edgerecover; del sys.path[0]; "
    "sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3:]))"
)


def fresh_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that calls `main(arguments)` of an edgerecover module in a fresh interpreter.

    -I keeps the current folder, which may be a stranger's, off the import path. This process's own path goes last
    instead: it is how an editable or user install is found. Only edgerecover itself is taken from where this one came
    from: in a runner.pyz that is the archive, whatever else is installed.
    """
    home = os.path.abspath(Path(__file__).parents[2])  # noqa: PTH100 - inside an archive there is nothing to resolve
    path = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100
    return [sys.executable, "-I", "-X", "utf8", "-c", _START, json.dumps([home, path]), module, *arguments]


def run_fresh(
    module: str, arguments: Sequence[str], timeout_s: float, *, what: str
) -> subprocess.CompletedProcess[str]:
    """Call `main(arguments)` of an edgerecover module in a fresh interpreter; its return is the exit status.

    Args:
        module: its dotted name.
        arguments: with absolute paths: the interpreter runs in an empty folder.
        timeout_s: it is killed after that.
        what: it does, for messages: "the latency measurement".

    Raises:
        StageError: it did not end in time, or could not be started. The former's `__cause__` is a TimeoutExpired.
    """
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        try:
            return subprocess.run(
                fresh_command(module, arguments),
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(f"{what} did not end within {timeout_s:.0f} s") from error
        except OSError as error:
            raise StageError(f"{what} could not start {sys.executable}: {error.strerror or error}") from error
