"""Progress for people: bars with rate and time left on a terminal, occasional lines elsewhere."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when work starts

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from edgerecover.report.following import Follower, Underway
from edgerecover.report.words import amount, clock_time, duration, numbers, rate

_TITLE_WIDTH = 14
_NUMBERS_WIDTH = 26
_WORTH_A_LINE_S = 1.0
"""A task that took less and has no numbers gets no line; neither does a stage without messages."""


def live_progress(console: Console, clock: Callable[[], float] = time.perf_counter) -> Lines:
    """Bars on a terminal that can draw them, lines elsewhere."""
    can_draw = console.is_terminal and not console.is_dumb_terminal
    return Bars(console, clock) if can_draw else Lines(console, clock)


class Lines(Follower):
    """A `progress.Progress` in whole lines, for logs of CI and dumb terminals."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(clock)
        self._console = console
        self._num_lines_before_stage = self._num_lines = 0

    def say(self, message: str) -> None:
        """Print one line."""
        self._num_lines += 1
        self.write(message)

    def write(self, line: str) -> None:
        """Put a line on the console."""
        self._console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """End the display."""

    def on_note(self, message: str, numbers: Mapping[str, float]) -> None:
        """Print a note as a line."""
        self.say(message)

    def on_task_progress(self, task: Underway) -> None:
        """Print the progress of a task."""
        self.say(progress_line(task))

    def on_task_ended(self, task: Underway, is_finished: bool) -> None:
        """Print what a finished task did; within a stage, only if it took a second or has numbers."""
        is_small = self.stage is not None and not task.numbers and task.pace.elapsed_s() < _WORTH_A_LINE_S
        if is_finished and not is_small:
            self.say(ended_line(task))

    def on_stage_began(self, stage: str) -> None:
        """Start counting the lines of the stage."""
        self._num_lines_before_stage = self._num_lines

    def on_stage_goes_on(self, stage: str, elapsed_s: float) -> None:
        """Print how long the stage has taken."""
        self.say(f"{stage}: {duration(elapsed_s)} so far")

    def on_stage_ended(self, stage: str, seconds: float, reused: bool) -> None:
        """Print a line for a stage that took a second and printed nothing else."""
        if self._num_lines == self._num_lines_before_stage and seconds >= _WORTH_A_LINE_S:
            self.say(f"{stage}: {duration(seconds)}")


class Bars(Lines):
    """A `progress.Progress` as bars, one below the other where tasks lie inside each other; each leaves one line."""

    every_s = 0.25
    """Minimum seconds between two updates of a bar."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(console, clock)
        self._bars: Progress | None = None
        self._ids: dict[int, TaskID] = {}
        self._stage_bar: TaskID | None = None

    def on_stage_began(self, stage: str) -> None:
        """Draw a bar for a stage, for as long as it has no task."""
        super().on_stage_began(stage)
        self._stage_bar = self._draw(stage, None)

    def on_stage_goes_on(self, stage: str, elapsed_s: float) -> None:
        """Update the time on the bar of the stage."""
        if self._bars is not None and self._stage_bar is not None:
            self._bars.update(self._stage_bar, elapsed=clock_time(elapsed_s), refresh=True)

    def on_stage_ended(self, stage: str, seconds: float, reused: bool) -> None:
        """Remove the bar of the stage."""
        self._erase_stage()
        super().on_stage_ended(stage, seconds, reused)

    def on_task_started(self, task: Underway) -> None:
        """Draw the bar of a task instead of the stage's."""
        bar = self._draw(task.title, task.pace.total)
        self._erase_stage()
        self._ids[task.number] = bar

    def on_task_progress(self, task: Underway) -> None:
        """Update the bar of a task."""
        if self._bars is None:
            return
        left_s = task.pace.left_s()
        self._bars.update(
            self._ids[task.number],
            completed=task.pace.done,
            rate=rate(task.pace.rate_per_s()),
            numbers=_cut(numbers(task.numbers)),
            left="" if left_s is None else f"left {clock_time(left_s)}",
            elapsed=clock_time(task.pace.elapsed_s()),
            refresh=True,
        )

    def on_task_ended(self, task: Underway, is_finished: bool) -> None:
        """Replace the bar of a task by a line."""
        self._erase(self._ids.pop(task.number))
        super().on_task_ended(task, is_finished)
        if self._stage_bar is None and self.stage is not None and not self._ids:
            self._stage_bar = self._draw(self.stage, None)

    def close(self) -> None:
        """Remove all bars from the terminal."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _draw(self, title: str, total: float | None) -> TaskID:
        if self._bars is None:
            self._bars = _bars(self._console)
            self._bars.start()
        return self._bars.add_task(title[:_TITLE_WIDTH], total=total, rate="", numbers="", left="", elapsed="")

    def _erase(self, bar: TaskID) -> None:
        if self._bars is None:
            return
        self._bars.remove_task(bar)
        if not self._bars.tasks:
            self.close()

    def _erase_stage(self) -> None:
        if self._stage_bar is not None:
            self._erase(self._stage_bar)
            self._stage_bar = None


def progress_line(task: Underway) -> str:
    """How far a task is: "synthesize: 37%, 9.3/s, about 98 s left, loss 0.612"."""
    left_s = task.pace.left_s()
    parts = [
        f"{task.pace.share:.0%}",
        rate(task.pace.rate_per_s()),
        f"about {duration(left_s)} left" if left_s is not None else f"{duration(task.pace.elapsed_s())} so far",
        numbers(task.numbers),
    ]
    return f"{task.title}: {', '.join(filter(None, parts))}"


def ended_line(task: Underway) -> str:
    """What a task did: "synthesize: 1,408 dreams in 152 s (9.3/s), loss 0.25"."""
    mean = rate(task.pace.mean_per_s()) if task.pace.done > 1 else ""
    done = f"{amount(task.pace.done)} {task.unit} in {duration(task.pace.elapsed_s())}{f' ({mean})' if mean else ''}"
    return f"{task.title}: {', '.join(filter(None, (done, numbers(task.numbers))))}"


def _cut(text: str) -> str:
    return text if len(text) <= _NUMBERS_WIDTH else f"{text[: _NUMBERS_WIDTH - 1]}…"


def _bars(console: Console) -> Progress:
    """At most 79 columns: 2 + 14 + 10 + 5 + 8 + 26 + 9, and a space between any two."""
    columns = (
        TextColumn("  {task.description:<14}"),
        BarColumn(bar_width=8),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[numbers]}"),
        TextColumn("[dim]{task.fields[left]}[/]"),
        TextColumn("[dim]{task.fields[elapsed]}[/]"),
    )
    return Progress(*columns, console=console, transient=True, auto_refresh=False)
