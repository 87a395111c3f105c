"""Progress as people see it: bars with rate and ETA on a terminal, one line per finished task elsewhere."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when work starts

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgerecover.progress import Task
from edgerecover.report.words import duration


class LiveProgress:
    """A `progress.Progress` on stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:
        """Show one counted piece of work until the block ends."""
        started = time.perf_counter()
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            plain = _Numbers()
            yield plain
        else:
            columns = (
                TextColumn("  {task.description:<18}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[numbers]}"),
                TextColumn("[dim]left[/]"),
                TimeRemainingColumn(compact=True),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self._console, transient=True, refresh_per_second=4) as bars:
                plain = _Bar(bars, bars.add_task(title, total=total, rate="", numbers=""), unit)
                yield plain
        seconds = time.perf_counter() - started
        self.note(f"{title}: {plain.done:,} {unit} in {duration(seconds)}{plain.shown(', ')}")

    def note(self, message: str) -> None:
        """One line on stderr."""
        self._console.print(f"  {message}", highlight=False, markup=False, soft_wrap=True)


class _Numbers:
    def __init__(self) -> None:
        self.done = 0
        self._numbers: dict[str, float] = {}

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.done += steps
        self._numbers.update(numbers)

    def shown(self, before: str = "") -> str:
        text = " ".join(f"{name} {value:.3g}" for name, value in self._numbers.items())
        return before + text if text else ""


class _Bar(_Numbers):
    def __init__(self, bars: Progress, task: TaskID, unit: str) -> None:
        super().__init__()
        self._bars, self._task, self._unit = bars, task, unit

    def advance(self, steps: int = 1, **numbers: float) -> None:
        super().advance(steps, **numbers)
        speed = self._bars.tasks[0].speed
        rate = f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.1f}/s" if speed else ""
        self._bars.update(self._task, advance=steps, numbers=self.shown(), rate=rate)
