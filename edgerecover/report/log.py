"""The log of a run: plain lines with time, level and stage, in a file of its own. Stdlib only."""

from __future__ import annotations

import contextlib
import logging
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from edgerecover import __version__
from edgerecover.errors import EXIT_INTERNAL, EdgeRecoverError
from edgerecover.report.following import Follower, Underway
from edgerecover.report.words import amount, duration, numbers, rate

KEPT_LOGS = 20
_SUFFIX = ".log"


class RunLog(Follower):
    """A `progress.Progress` in a log file.

    The file is made once there is something to keep: after the first stage, with the first task, or for a fault of
    ours. Bad input, which is refused before that, leaves nothing behind. Every line is on its way to the disk before
    the next one, so an interrupt leaves a whole log.
    """

    def __init__(self, folder: Path, name: str, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(clock)
        now = datetime.now(timezone.utc)
        self.path = folder / f"{now:%Y%m%d-%H%M%S}-{name}{_SUFFIX}"
        self.error: OSError | None = None
        """Why nothing is written any more; None: no error."""
        self._held_back: list[str] = []
        self._is_open = False

    @property
    def is_kept(self) -> bool:
        """Whether there is a log file."""
        return self._is_open and self.error is None

    def run_started(self, arguments: Sequence[str]) -> None:
        """Log the command line, the machine and the folder."""
        self.say("INFO", f"edgerecover {__version__}: {' '.join(arguments)}")
        self.say("INFO", f"Python {platform.python_version()}, {platform.platform()}, folder {Path.cwd()}")

    def failed(self, error: EdgeRecoverError) -> None:
        """Log the error that ended the work, with its traceback, which the terminal does not show."""
        self.say("ERROR", error.message)
        if error.hint:
            self.say("ERROR", f"next: {error.hint}")
        if error.exit_code == EXIT_INTERNAL:
            self.open()
        self.say("DEBUG", "".join(traceback.format_exception(error)).rstrip())

    def run_ended(self, exit_code: int) -> None:
        """Log the exit code, as the last line."""
        self.say("INFO", f"ended with exit code {exit_code}")

    def on_stage_began(self, stage: str) -> None:
        """A line."""
        self.say("INFO", "began")

    def on_stage_goes_on(self, stage: str, elapsed_s: float) -> None:
        """Log how long the stage has taken."""
        self.say("INFO", f"{duration(elapsed_s)} so far")

    def on_stage_ended(self, stage: str, seconds: float, reused: bool) -> None:
        """Log the end of a stage and its seconds."""
        self.open()
        self.say("INFO", f"ended after {duration(seconds)}{', from an earlier run' if reused else ''}")

    def on_task_started(self, task: Underway) -> None:
        """Log the start of a task and its total."""
        self.open()
        self.say("INFO", f"{task.title}: 0 of {amount(task.pace.total)} {task.unit}")

    def on_task_progress(self, task: Underway) -> None:
        """Log the progress of a task."""
        left_s = task.pace.left_s()
        self._say_task(task, f"about {duration(left_s)} left" if left_s is not None else "")

    def on_task_ended(self, task: Underway, is_finished: bool) -> None:
        """Log the end of a task, finished or stopped."""
        self._say_task(task, f"{'done' if is_finished else 'stopped'} after {duration(task.pace.elapsed_s())}")

    def on_note(self, message: str, numbers: Mapping[str, float]) -> None:
        """A line."""
        self.say("INFO", message)

    def say(self, level: str, message: str) -> None:
        """Write one entry; further lines of a message are indented."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = message.replace("\n", "\n    ")
        self._write(f"{now} {level:<7} {self.stage or '-':<10} {text}\n")

    def open(self) -> None:
        """Create the file, and write what was held back so far."""
        if self._is_open or self.error is not None:
            return
        self._is_open = True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_oldest(self.path.parent)
        except OSError as error:
            self.error = error
            return
        held_back, self._held_back = self._held_back, []
        self._write("".join(held_back))

    def _say_task(self, task: Underway, how: str) -> None:
        parts = [how, rate(task.pace.rate_per_s()), numbers(task.numbers)]
        done = f"{amount(task.pace.done)} of {amount(task.pace.total)} {task.unit}"
        self.say("INFO", f"{task.title}: {', '.join(filter(None, (done, *parts)))}")

    def _write(self, text: str) -> None:
        if not self._is_open:
            self._held_back.append(text)
            return
        if self.error is not None:
            return
        try:
            # Opened for each line: a line is whole or not there, and a folder that is moved or full is no disaster.
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            self.error = error


def _remove_oldest(folder: Path) -> None:
    """Keep `KEPT_LOGS` - 1 logs, so that there is room for one more; names begin with the time."""
    logs = sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.is_file())
    for path in logs[: max(0, len(logs) - KEPT_LOGS + 1)]:
        with contextlib.suppress(OSError):
            path.unlink()


class _Handler(logging.Handler):
    """Write what libraries log and warn to the log of the run."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.say(record.levelname, f"{record.name}: {record.getMessage().rstrip()}")
        except Exception:  # as every logging.Handler: what logs must not fail for it
            self.handleError(record)


@contextlib.contextmanager
def libraries_logged(log: RunLog) -> Iterator[None]:
    """Inside, warnings of Python and of libraries go to the log instead of the terminal."""
    root, handler = logging.getLogger(), _Handler(log)
    root.addHandler(handler)
    logging.captureWarnings(not _is_strict())
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)


def _is_strict() -> bool:
    """`python -W …` asked for warnings to be shown: then they are."""
    return bool(sys.warnoptions)
