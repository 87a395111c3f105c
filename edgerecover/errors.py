"""Everything that can go wrong, as one family: each error knows its exit code and what to do next.

A failed gate is not here: it is a value (`artifacts.Gate`), because judging worked.
"""

from __future__ import annotations

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
