"""Progress in plain lines: what begins, and every few seconds how far it is. Stdlib only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgerecover.progress import Pace, Task
from edgerecover.runner.text import printable

_LINE_EVERY_S = 10.0


class Lines:
    """A `progress.Progress` on stderr, for a device without a terminal library."""

    @contextmanager
    def task(self, title: str, total: float, unit: str) -> Iterator[Task]:
        """A line now and then while it lasts."""
        yield _Counted(self, title, total)

    def note(self, message: str, **numbers: float) -> None:
        """One line."""
        sys.stderr.write(f"  {printable(message)}\n")
        sys.stderr.flush()

    def began(self, stage: str) -> None:
        """The runner has no stages."""

    def ended(self, stage: str, seconds: float, reused: bool) -> None:
        """The runner has no stages."""


class _Counted:
    def __init__(self, lines: Lines, title: str, total: float) -> None:
        self._lines, self._title, self._pace = lines, title, Pace(total)
        self._last_line_s = time.monotonic()

    def advance(self, steps: float = 1, **numbers: float) -> None:
        self._pace.advance(steps)
        now_s, left_s = time.monotonic(), self._pace.left_s()
        if now_s - self._last_line_s < _LINE_EVERY_S or left_s is None or self._pace.share >= 1:
            return
        self._last_line_s = now_s
        self._lines.note(f"{self._title}: {self._pace.share:.0%}, about {left_s:.0f} s left")
