"""Progress for machines: one JSON object a line, documented in docs/reference/events.md. Stdlib only."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from edgerecover import __version__
from edgerecover.errors import EdgeRecoverError
from edgerecover.report.following import Follower, Underway

SCHEMA_VERSION = 1
"""Raised only for a change that would break today's readers; a new event or field is no such change."""


class Events(Follower):
    """A `progress.Progress` as JSON lines. The work continues if the reader goes away."""

    every_s = 1.0
    """Minimum seconds between two events about the progress of a task."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.perf_counter) -> None:
        """`write` takes one line and has written it when it returns."""
        super().__init__(clock)
        self._write_line = write
        self._began_s = clock()
        self.error: OSError | None = None
        """Why nothing is written any more; None: no error."""

    def run_started(self, command: str, arguments: Sequence[str]) -> None:
        """Write the first event.

        Args:
            command: as typed: "run", "engine build".
            arguments: the command line without the program's name.
        """
        self._write(
            "run_started",
            schema=SCHEMA_VERSION,
            edgerecover=__version__,
            command=command,
            arguments=list(arguments),
            pid=os.getpid(),
        )

    def failed(self, error: EdgeRecoverError) -> None:
        """Write the error that ended the work."""
        self._write(
            "error",
            stage=self.stage,
            kind=type(error).__name__,
            message=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )

    def run_ended(self, exit_code: int) -> None:
        """Write the last event, whatever happened."""
        self._write("run_ended", exit_code=exit_code, seconds=self._clock() - self._began_s)

    def on_stage_began(self, stage: str) -> None:
        """`stage_started`."""
        self._write("stage_started", stage=stage)

    def on_stage_goes_on(self, stage: str, elapsed_s: float) -> None:
        """`stage_progress`."""
        self._write("stage_progress", stage=stage, elapsed_s=elapsed_s)

    def on_stage_ended(self, stage: str, seconds: float, reused: bool) -> None:
        """`stage_ended`."""
        self._write("stage_ended", stage=stage, seconds=seconds, reused=reused)

    def on_task_started(self, task: Underway) -> None:
        """`task_started`."""
        self._write("task_started", **self._task_fields(task))

    def on_task_progress(self, task: Underway) -> None:
        """`task_progress`."""
        self._write("task_progress", **self._task_fields(task), **_progress_fields(task), left_s=task.pace.left_s())

    def on_task_ended(self, task: Underway, is_finished: bool) -> None:
        """`task_ended`."""
        self._write("task_ended", **self._task_fields(task), **_progress_fields(task), finished=is_finished)

    def on_note(self, message: str, numbers: Mapping[str, float]) -> None:
        """`note`."""
        self._write("note", stage=self.stage, message=message, numbers=dict(numbers))

    def _task_fields(self, task: Underway) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "task": task.number,
            "title": task.title,
            "unit": task.unit,
            "total": task.pace.total,
        }

    def _write(self, event: str, **fields: Any) -> None:
        if self.error is not None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(_finite({"event": event, "time": now, **fields}), ensure_ascii=False, allow_nan=False)
        try:
            self._write_line(line + "\n")
        except OSError as error:
            self.error = error


def _progress_fields(task: Underway) -> dict[str, Any]:
    return {
        "done": task.pace.done,
        "elapsed_s": task.pace.elapsed_s(),
        "rate_per_s": task.pace.rate_per_s(),
        "numbers": task.numbers,
    }


def _finite(value: Any) -> Any:
    """A value with what JSON cannot hold (NaN, infinity) as null, and numbers rounded to six digits."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
