"""Work in an interpreter of its own: what it measures or survives is its own. Stdlib only."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from edgerecover.errors import StageError


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
    # -I keeps the current folder, which may be a stranger's, off the import path. This process's own path
    # goes last instead: it is how an editable or user install is found.
    code = (
        "import importlib, json, sys; sys.path.extend(json.loads(sys.argv[1])); "
        "sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3:]))"
    )
    search_path = json.dumps([entry for entry in sys.path if entry])
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        try:
            return subprocess.run(
                [sys.executable, "-I", "-X", "utf8", "-c", code, search_path, module, *arguments],
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
