"""Progress in plain lines: what begins, and every few seconds how far it is. Stdlib only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgerecover.progress import Task
from edgerecover.runner.text import printable

_LINE_EVERY_S = 10.0


class Lines:
    """A `progress.Progress` on stderr, for a device without a terminal library."""

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:
        """A line now and then while it lasts."""
        yield _Counted(self, title, total)

    def note(self, message: str) -> None:
        """One line."""
        sys.stderr.write(f"  {printable(message)}\n")
        sys.stderr.flush()


class _Counted:
    def __init__(self, lines: Lines, title: str, total: int) -> None:
        self._lines, self._title, self._total = lines, title, total
        self._done = 0
        self._started_s = self._last_line_s = time.monotonic()

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self._done += steps
        now_s = time.monotonic()
        if now_s - self._last_line_s < _LINE_EVERY_S or not 0 < self._done < self._total:
            return
        self._last_line_s = now_s
        left_s = (now_s - self._started_s) * (self._total - self._done) / self._done
        self._lines.note(f"{self._title}: {self._done / self._total:.0%}, about {left_s:.0f} s left")
