"""Progress in a notebook: one output under the cell, which is updated in place."""

# ruff: noqa: TID253 - this module is rich's lines, drawn elsewhere; it is imported when work starts

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

from rich.console import Console

from edgerecover.report.following import Underway
from edgerecover.report.live import Lines, progress_line
from edgerecover.report.plain import plain
from edgerecover.report.words import duration

_BAR_WIDTH = 12


class NotebookBars(Lines):
    """A `progress.Progress` in the output of a cell: a line for what is done, a bar for what is under way.

    It needs IPython's display protocol alone, no widgets; a saved notebook keeps the lines.
    """

    every_s = 0.5
    """Minimum seconds between two updates of a bar."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(Console(quiet=True), clock)
        self._lines: list[str] = []
        self._bars: dict[int, str] = {}
        self._stage_line = ""
        self._handle: Any = None

    def write(self, line: str) -> None:
        """Add a line to the output."""
        self._lines.append(line)
        self._draw()

    def close(self) -> None:
        """Leave the lines, without bars."""
        self._bars.clear()
        self._stage_line = ""
        self._draw()

    def on_stage_began(self, stage: str) -> None:
        """Name the stage for as long as it has no task."""
        super().on_stage_began(stage)
        self._stage_line = f"{stage} …"
        self._draw()

    def on_stage_goes_on(self, stage: str, elapsed_s: float) -> None:
        """Update the time of the stage."""
        self._stage_line = f"{stage} … {duration(elapsed_s)}"
        self._draw()

    def on_stage_ended(self, stage: str, seconds: float, reused: bool) -> None:
        """Remove the name of the stage."""
        self._stage_line = ""
        super().on_stage_ended(stage, seconds, reused)
        self._draw()

    def on_task_started(self, task: Underway) -> None:
        """Draw the bar of a task."""
        self.on_task_progress(task)

    def on_task_progress(self, task: Underway) -> None:
        """Update the bar of a task."""
        full = round(_BAR_WIDTH * task.pace.share)
        self._bars[task.number] = f"{'█' * full}{'░' * (_BAR_WIDTH - full)} {progress_line(task)}"
        self._draw()

    def on_task_ended(self, task: Underway, is_finished: bool) -> None:
        """Replace the bar of a task by a line."""
        self._bars.pop(task.number, None)
        super().on_task_ended(task, is_finished)
        self._draw()

    def _draw(self) -> None:
        if not repr(self) and self._handle is None:
            return
        if self._handle is None:
            from IPython.display import display

            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        under_way = [*self._bars.values()] or [self._stage_line] * bool(self._stage_line)
        return plain("\n".join([*self._lines, *under_way]))

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre-wrap">{escape(repr(self))}</pre>'
