"""A running command: its progress on stderr, in the log of its work folder, and as events if requested."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgerecover.cli.console import internal_error, stderr
from edgerecover.errors import (
    EXIT_INTERRUPTED,
    EXIT_PASS,
    BadInputError,
    EdgeRecoverError,
    unwritable_hint,
)

if TYPE_CHECKING:
    from edgerecover.progress import Progress
    from edgerecover.report.events import Events
    from edgerecover.report.following import Follower
    from edgerecover.report.live import Lines
    from edgerecover.report.log import RunLog

LOGS = "logs"
"""Folder of the logs, in the work folder."""
STDERR = "-"
"""Value of `--events` that means stderr."""


@contextmanager
def following(
    command: str, *, work: Path | None = None, events: str | None = None, quiet: bool = False
) -> Iterator[Progress]:
    """Report the progress of the block, including its end and exit code.

    Args:
        command: "run", "engine build".
        work: folder of the log, and of the finished work that an interrupted command resumes from; None: neither.
        events: value of `--events`; None: no events.
        quiet: show no progress on stderr.

    Raises:
        BadInputError: the events cannot be written.
        EdgeRecoverError: the block failed; the error names the log.
    """
    with ExitStack() as ends:
        followers = _Followers.open(command, work, events, quiet, ends)
        exit_code: int | None = None
        try:
            yield followers.progress
            exit_code = EXIT_PASS
        except typer.Exit as ended:
            exit_code = ended.exit_code
            raise
        except KeyboardInterrupt:
            exit_code = EXIT_INTERRUPTED
            followers.interrupted(work)
            raise
        except EdgeRecoverError as error:
            exit_code = error.exit_code
            followers.failed(error)
            raise
        except BrokenPipeError:  # of stdout: the reader has gone
            raise
        except Exception as error:
            internal = internal_error(error)
            internal.__cause__ = error
            exit_code = internal.exit_code
            followers.failed(internal)
            raise internal from error
        finally:
            followers.ended(EXIT_INTERRUPTED if exit_code is None else exit_code)


@dataclass(frozen=True)
class _Followers:
    live: Lines | None
    log: RunLog | None
    events: Events | None

    @classmethod
    def open(cls, command: str, work: Path | None, events: str | None, quiet: bool, ends: ExitStack) -> _Followers:
        from edgerecover.report.events import Events
        from edgerecover.report.following import ticking
        from edgerecover.report.live import live_progress
        from edgerecover.report.log import RunLog, libraries_logged

        write = _writer(events, ends) if events is not None else None
        opened = cls(
            # stderr is for people or for machines, not both.
            live=live_progress(stderr()) if events != STDERR and not quiet else None,
            log=RunLog(work / LOGS, f"{command.replace(' ', '-')}-{os.getpid()}") if work is not None else None,
            events=Events(write) if write is not None else None,
        )
        if opened.events is not None:
            opened.events.run_started(command, sys.argv[1:])
        if opened.log is not None:
            opened.log.run_started(sys.argv[1:])
            ends.enter_context(libraries_logged(opened.log))
        ends.enter_context(ticking(opened.all))
        return opened

    @property
    def all(self) -> list[Follower]:
        return [follower for follower in (self.live, self.log, self.events) if follower is not None]

    @property
    def progress(self) -> Progress:
        from edgerecover.progress import Several

        return Several(self.all)

    def interrupted(self, work: Path | None) -> None:
        kept = f"; finished work is kept in {work}, and the same command resumes from it" if work else ""
        self._close_live()
        self.progress.note(f"interrupted{kept}")

    def failed(self, error: EdgeRecoverError) -> None:
        if self.events is not None:
            self.events.failed(error)
        if self.log is not None:
            self.log.failed(error)
            if self.log.is_kept:
                error.log = self.log.path

    def ended(self, exit_code: int) -> None:
        self._close_live()
        if self.log is not None:
            self.log.run_ended(exit_code)
        if self.events is not None:
            self.events.run_ended(exit_code)
        if self.live is not None:
            for follower, what in ((self.log, "log"), (self.events, "events")):
                if follower is not None and follower.error is not None:
                    self.live.say(f"the {what} could not be written: {follower.error.strerror or follower.error}")

    def _close_live(self) -> None:
        if self.live is not None:
            self.live.close()


def _writer(events: str, ends: ExitStack) -> Callable[[str], object]:
    """A function that writes lines to a file, a named pipe, or stderr (a duplicate, in case a library redirects it).

    Every line is written at once, so nothing is left in a buffer when the reader goes away.
    """
    try:
        if events != STDERR:
            descriptor = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        else:
            try:
                descriptor = os.dup(sys.stderr.fileno())
            except (OSError, ValueError):  # not a file: replaced by a program that calls us
                return sys.stderr.write
    except OSError as error:
        raise BadInputError(
            f"--events {events}: {error.strerror or error}",
            hint=unwritable_hint(error, "name a file in a folder that is there, or - for stderr"),
        ) from error
    ends.callback(os.close, descriptor)

    def write(line: str) -> None:
        left = line.encode(errors="replace")
        while left:
            left = left[os.write(descriptor, left) :]

    return write
