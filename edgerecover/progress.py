"""How stages tell the outside what they are doing: a library never prints.

A stage opens a `task` and advances it; the command line shows it as a bar, writes it to a log and, on request, to a
stream of events; tests and library users get silence. Stdlib only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

_WINDOW_S = 60.0
"""A rate is that of the last minute: what was hours ago says little about what is left."""
_LEAST_S = 2.0
"""Before that much of a task has gone by, nothing is said about what is left."""


class Task(Protocol):
    """One counted piece of work under way."""

    def advance(self, steps: float = 1, **numbers: float) -> None:
        """Report `steps` more units done, with current numbers worth showing (loss=0.12, agreement=0.93)."""


class Progress(Protocol):
    """Where stages report. A protocol, so that a caller can hand in anything with these methods."""

    def task(self, title: str, total: float, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units; use as a context manager. Tasks may lie inside each other."""

    def note(self, message: str, **numbers: float) -> None:
        """Say one line about what was decided or found (a fallback taken, a set reused), with its numbers."""

    def began(self, stage: str) -> None:
        """A stage of the way begins; what follows belongs to it."""

    def ended(self, stage: str, seconds: float, reused: bool) -> None:
        """It is done; `reused` says that its result was there already."""


class _SilentTask:
    def advance(self, steps: float = 1, **numbers: float) -> None:
        pass


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def _silent_task(self) -> Iterator[Task]:
        yield _SilentTask()

    def task(self, title: str, total: float, unit: str) -> AbstractContextManager[Task]:
        """Open a task nobody watches."""
        return self._silent_task()

    def note(self, message: str, **numbers: float) -> None:
        """Drop the line."""

    def began(self, stage: str) -> None:
        """Drop it."""

    def ended(self, stage: str, seconds: float, reused: bool) -> None:
        """Drop it."""


SILENT: Progress = Silent()


class Several:
    """A `Progress` that tells each of several others."""

    def __init__(self, others: Sequence[Progress]) -> None:
        self._others = tuple(others)

    @contextmanager
    def task(self, title: str, total: float, unit: str) -> Iterator[Task]:
        """Open the task with each."""
        with ExitStack() as ends:
            yield _Each([ends.enter_context(other.task(title, total, unit)) for other in self._others])

    def note(self, message: str, **numbers: float) -> None:
        """Say it to each."""
        for other in self._others:
            other.note(message, **numbers)

    def began(self, stage: str) -> None:
        """Say it to each."""
        for other in self._others:
            other.began(stage)

    def ended(self, stage: str, seconds: float, reused: bool) -> None:
        """Say it to each."""
        for other in self._others:
            other.ended(stage, seconds, reused)


class _Each:
    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    def advance(self, steps: float = 1, **numbers: float) -> None:
        for task in self._tasks:
            task.advance(steps, **numbers)


class Pace:
    """How far a task is, how fast it goes and how long it will take: the same for everybody who shows it."""

    def __init__(self, total: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.total = total
        self.done = 0.0
        self._clock = clock
        self._started_s = clock()
        self._seen: deque[tuple[float, float]] = deque([(self._started_s, 0.0)])

    def advance(self, steps: float) -> None:
        """Count `steps` more units."""
        self.done += steps
        now_s = self._clock()
        if now_s - self._seen[-1][0] >= _WINDOW_S / 60:
            self._seen.append((now_s, self.done))
        while len(self._seen) > 1 and now_s - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()

    @property
    def share(self) -> float:
        """Done of the total, 0 to 1; 1 where there was nothing to do."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    def elapsed_s(self) -> float:
        """Since it began."""
        return self._clock() - self._started_s

    def mean_per_s(self) -> float | None:
        """Units a second since it began; None while nothing is done."""
        elapsed_s = self.elapsed_s()
        return self.done / elapsed_s if self.done and elapsed_s > 0 else None

    def rate_per_s(self) -> float | None:
        """Units a second in the last minute or so; None where there was none. It falls while nothing comes."""
        since_s, done = self._seen[0]
        seconds = self._clock() - since_s
        return (self.done - done) / seconds if self.done > done and seconds > 0 else None

    def left_s(self) -> float | None:
        """Until it is done, if it goes on as in the last minute; None where that cannot be told yet."""
        rate_per_s = self.rate_per_s()
        if rate_per_s is None or self.elapsed_s() < _LEAST_S:
            return None
        return max(0.0, self.total - self.done) / rate_per_s
