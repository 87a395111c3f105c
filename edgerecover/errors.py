"""Everything that can go wrong, as one family: each error knows its exit code and what to do next.

A failed gate is not here: it is a value (`artifacts.Gate`), because judging worked.
"""

from __future__ import annotations

import errno
import importlib.util
import shlex
import shutil
import sys
from pathlib import Path

EXIT_PASS = 0
EXIT_GATE_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_MISSING = 3
EXIT_VERIFICATION_FAILED = 4
EXIT_INCONCLUSIVE = 5
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130

# What to do next, where several places have to say the same.
UNREADABLE_HINT = "check that it is there, that you may read it, and that it is what its name says"
UNWRITABLE_HINT = "make sure that the folder is there, that you may write to it, and that it has space left"
DAMAGED_HINT = "it is damaged or was not written by edgerecover; copy it again from where it was made"
ODD_END_HINT = "run again with --debug; if it happens again, report it with the log"
OUR_FAULT_HINT = "this is a fault of edgerecover or of that library; run again with --debug and report the trace"


def pip_line(arguments: str) -> str:
    """A command of pip for the Python that runs this program: `python -m pip install numpy`.

    Args:
        arguments: as a shell reads them: "install 'edgerecover[timm]'".
    """
    if importlib.util.find_spec("pip") is None and shutil.which("uv") is not None:  # uv's environments have no pip
        verb, _, rest = arguments.partition(" ")
        return f"uv pip {verb} --python {_this_python()} {rest}"
    return f"{_this_python()} -m pip {arguments}"


def _this_python() -> str:
    """The interpreter as a user would type it."""
    this = Path(sys.executable)
    for name in ("python", "python3"):
        if (found := shutil.which(name)) is not None and Path(found).absolute() == this:
            return name
    try:
        return shlex.quote(str(this.relative_to(Path.cwd())))
    except (OSError, ValueError):
        return shlex.quote(str(this))


def unwritable_hint(error: BaseException, instead: str) -> str:
    """What to do about a file or folder that cannot be written, by the cause.

    Args:
        error: what writing raised.
        instead: what helps in any case: "name another folder with --out".
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space there, or {instead}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"you may not write there; {instead}"
    if number == errno.ENOTDIR:
        return f"a part of that path is a file; {instead}"
    return instead


class EdgeRecoverError(Exception):
    """Base of all errors meant for a user: what was asked and found, and a hint on what to do next."""

    exit_code = EXIT_INTERNAL

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log: Path | None = None
        """Where the trace is, once the command line has kept it."""


class BadInputError(EdgeRecoverError):
    """The user's file, flag or folder cannot be used as it is (exit 2)."""

    exit_code = EXIT_BAD_INPUT


class MissingError(EdgeRecoverError):
    """A package, device or driver that the request needs is not here (exit 3)."""

    exit_code = EXIT_MISSING


class VerificationError(EdgeRecoverError):
    """A bundle is not what its manifest says (exit 4)."""

    exit_code = EXIT_VERIFICATION_FAILED


class StageError(EdgeRecoverError):
    """A stage could not do its work although its input was good (exit 70): a fault of ours or of a library."""
