"""What all progress displays share: which stage and tasks are under way, and when to report them.

Stages report from the main thread; `tick` comes from another one, so that a long silence does not look like a hang.
Stdlib only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgerecover.progress import Pace, Task

_TICK_EVERY_S = 1.0


@dataclass
class Underway:
    """A task under way."""

    number: int
    """Position among all tasks of the run, from 1."""
    title: str
    unit: str
    pace: Pace
    numbers: dict[str, float] = field(default_factory=dict)
    """The latest of each name."""
    next_s: float = 0.0
    """Time from which the task may be reported again."""


class Follower:
    """A `progress.Progress` that tracks stages and tasks; subclasses report them in the `on_…` methods."""

    every_s = 30.0
    """Minimum seconds between two reports about one task: a log of hours must be neither silent nor endless."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.stage: str | None = None
        self._clock = clock
        self._stage_began_s = self._last_word_s = clock()
        self._tasks: list[Underway] = []
        self._num_tasks = 0
        self._lock = threading.RLock()

    # --- what stages report ----------------------------------------------------------------------------------

    @contextmanager
    def task(self, title: str, total: float, unit: str) -> Iterator[Task]:
        """Follow one counted piece of work until the block ends."""
        with self._lock:
            self._num_tasks += 1
            task = Underway(self._num_tasks, title, unit, Pace(total, self._clock))
            self._tasks.append(task)
            self._spoke(task)
            self.on_task_started(task)
        is_finished = False
        try:
            yield _Counted(self, task)
            is_finished = True
        finally:
            with self._lock:
                self._tasks.remove(task)
                self.on_task_ended(task, is_finished)
                self._last_word_s = self._clock()

    def note(self, message: str, **numbers: float) -> None:
        """Report a message, with its numbers."""
        with self._lock:
            self._last_word_s = self._clock()
            self.on_note(message, numbers)

    def began(self, stage: str) -> None:
        """A stage begins."""
        with self._lock:
            self.stage, self._stage_began_s = stage, self._clock()
            self._last_word_s = self._stage_began_s
            self.on_stage_began(stage)

    def ended(self, stage: str, seconds: float, reused: bool) -> None:
        """A stage ends, after so many seconds."""
        with self._lock:
            self._last_word_s = self._clock()
            self.on_stage_ended(stage, seconds, reused)
            self.stage = None

    def tick(self) -> None:
        """Report the current task or stage if that is due; called from another thread."""
        with self._lock:
            if self._tasks:
                self._say_if_due(self._tasks[-1])
            elif self.stage is not None and self._clock() - self._last_word_s >= self.every_s:
                self._last_word_s = self._clock()
                self.on_stage_goes_on(self.stage, self._clock() - self._stage_began_s)

    # --- what is done with it --------------------------------------------------------------------------------

    def on_task_started(self, task: Underway) -> None:
        """A task began."""

    def on_task_progress(self, task: Underway) -> None:
        """A report of the task's progress is due."""

    def on_task_ended(self, task: Underway, is_finished: bool) -> None:
        """A task ended; `is_finished` is False if an error or an interrupt ended it."""

    def on_note(self, message: str, numbers: Mapping[str, float]) -> None:
        """A message was reported."""

    def on_stage_began(self, stage: str) -> None:
        """A stage began."""

    def on_stage_goes_on(self, stage: str, elapsed_s: float) -> None:
        """A stage without a task has not been reported for `every_s` seconds."""

    def on_stage_ended(self, stage: str, seconds: float, reused: bool) -> None:
        """A stage ended."""

    def advanced(self, task: Underway, steps: float, numbers: Mapping[str, float]) -> None:
        """A task advanced by so many steps."""
        with self._lock:
            task.pace.advance(steps)
            task.numbers.update(numbers)
            self._say_if_due(task)

    def _say_if_due(self, task: Underway) -> None:
        if self._clock() >= task.next_s and task.pace.share < 1:
            self._spoke(task)
            self.on_task_progress(task)

    def _spoke(self, task: Underway) -> None:
        self._last_word_s = self._clock()
        task.next_s = self._last_word_s + self.every_s


class _Counted:
    def __init__(self, follower: Follower, task: Underway) -> None:
        self._follower, self._task = follower, task

    def advance(self, steps: float = 1, **numbers: float) -> None:
        self._follower.advanced(self._task, steps, numbers)


@contextmanager
def ticking(followers: Sequence[Follower]) -> Iterator[None]:
    """Call `tick` of every follower once a second, from a thread, until the block ends."""
    stopped = threading.Event()

    def tick() -> None:
        while not stopped.wait(_TICK_EVERY_S):
            for follower in followers:
                follower.tick()

    thread = threading.Thread(target=tick, name="edgerecover-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
