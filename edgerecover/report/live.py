"""Progress as people see it: bars with rate and ETA on a terminal, one line per finished task elsewhere."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when work starts

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgerecover.progress import Task
from edgerecover.report.words import duration

_LINE_EVERY_S = 30.0
"""How often a task says where it is when nobody watches a bar: a log of hours must not be silent."""


class LiveProgress:
    """A `progress.Progress` on stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:
        """Show one counted piece of work until the block ends."""
        with ExitStack() as bars:
            if self._console.is_terminal and not self._console.is_dumb_terminal:
                task: _Counted = _Bar(bars.enter_context(_bars(self._console)), title, total)
            else:
                task = _Lines(self.note, title, total)
            yield task
        self.note(f"{title}: {task.done:,} {unit} in {duration(task.elapsed_s())}{task.numbers(', ')}")

    def note(self, message: str) -> None:
        """One line on stderr."""
        self._console.print(f"  {message}", highlight=False, markup=False, soft_wrap=True)


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("  {task.description:<12}"),
        BarColumn(bar_width=14),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[numbers]}"),
        TextColumn("[dim]left[/]"),
        TimeRemainingColumn(compact=True),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, refresh_per_second=4)


class _Counted:
    """What every way of showing a task knows: how far it is, since when, and the latest numbers."""

    def __init__(self) -> None:
        self.done = 0
        self._started_s = time.perf_counter()
        self._numbers: dict[str, float] = {}

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.done += steps
        self._numbers.update(numbers)

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started_s

    def numbers(self, before: str = "") -> str:
        text = " ".join(f"{name} {value:.3g}" for name, value in self._numbers.items())
        return before + text if text else ""


class _Bar(_Counted):
    def __init__(self, bars: Progress, title: str, total: int) -> None:
        super().__init__()
        self._bars = bars
        self._id = bars.add_task(title, total=total, rate="", numbers="")

    def advance(self, steps: int = 1, **numbers: float) -> None:
        super().advance(steps, **numbers)
        speed = self._bars.tasks[0].speed
        rate = f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.1f}/s" if speed else ""
        self._bars.update(self._id, advance=steps, numbers=self.numbers(), rate=rate)


class _Lines(_Counted):
    def __init__(self, say: Callable[[str], None], title: str, total: int) -> None:
        super().__init__()
        self._say, self._title, self._total = say, title, total
        self._next_line_s = _LINE_EVERY_S

    def advance(self, steps: int = 1, **numbers: float) -> None:
        super().advance(steps, **numbers)
        elapsed_s = self.elapsed_s()
        if elapsed_s < self._next_line_s or self.done >= self._total:
            return
        self._next_line_s = elapsed_s + _LINE_EVERY_S
        left_s = elapsed_s * (self._total - self.done) / self.done
        share = self.done / self._total
        self._say(f"{self._title}: {share:.0%}, about {duration(left_s)} left{self.numbers(', ')}")
