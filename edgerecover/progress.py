"""How stages tell the outside what they are doing: a library never prints.

A stage opens a `task` and advances it; the command line shows it as a bar, tests and library users get silence.
Stdlib only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One counted piece of work under way."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Report `steps` more units done, with current numbers worth showing (loss=0.12, agreement=0.93)."""


class Progress(Protocol):
    """Where stages report. A protocol, so that a caller can hand in anything with these two methods."""

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units; use as a context manager."""

    def note(self, message: str) -> None:
        """Say one line about what was decided or found (a fallback taken, a set reused)."""


class _SilentTask:
    def advance(self, steps: int = 1, **numbers: float) -> None:
        pass


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def _silent_task(self) -> Iterator[Task]:
        yield _SilentTask()

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Task]:
        """Open a task nobody watches."""
        return self._silent_task()

    def note(self, message: str) -> None:
        """Drop the line."""


SILENT: Progress = Silent()
