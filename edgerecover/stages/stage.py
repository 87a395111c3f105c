"""A stage under way: its time, and no failure that leaves it without its name and an exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgerecover.artifacts import StageTime
from edgerecover.compute import is_out_of_memory
from edgerecover.errors import BadInputError, EdgeRecoverError, MissingError, StageError
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.machine.memory import release_freed_memory


@dataclass
class Clock:
    """One stage under way; the stage says here when it found its result already done."""

    reused: bool = False


@contextmanager
def stage(name: str, times: list[StageTime], progress: Progress = SILENT) -> Iterator[Clock]:
    """Time a stage, and let no failure leave it without its name and an exit code.

    Args:
        name: as it stands in the report.
        times: of the stages so far; this one's is added when it is through.
        progress: told when it begins and when it is through.
    """
    started, clock = time.perf_counter(), Clock()
    progress.began(name)
    try:
        yield clock
    except EdgeRecoverError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            first_line = str(error).partition("\n")[0]
            raise MissingError(
                f"stage {name}: out of memory: {first_line or type(error).__name__}",
                hint="close other programs; the same command resumes from its finished steps",
            ) from error
        if isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            raise BadInputError(
                f"stage {name}: {error.strerror or error}{where}",
                hint="check that path and the free space; the same command resumes from its finished steps",
            ) from error
        raise StageError(
            f"stage {name} failed: {type(error).__name__}: {error}",
            hint="run again with --debug for the full trace; finished steps are reused",
        ) from error
    release_freed_memory()
    seconds = time.perf_counter() - started
    times.append(StageTime(name, seconds, clock.reused))
    progress.ended(name, seconds, clock.reused)
