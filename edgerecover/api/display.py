"""What a call shows while it works: bars in a terminal or a notebook, and a log in its run folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.errors import EXIT_PASS, EdgeRecoverError

if TYPE_CHECKING:
    from edgerecover.progress import Progress
    from edgerecover.report.live import Lines
    from edgerecover.report.notebook import NotebookBars


@contextmanager
def watching(function: str, run_folder: Path, progress: bool | Progress) -> Iterator[Progress]:
    """Show the progress of the block, and log it; what libraries warn of goes to the log alone.

    Args:
        function: the caller, for the log's name.
        run_folder: the log goes to `logs` in it.
        progress: True for bars; False for silence; or an object that is told everything.
    """
    from edgerecover.progress import Several
    from edgerecover.report.following import ticking
    from edgerecover.report.log import RunLog, libraries_logged

    log = RunLog(run_folder / "logs", f"{function}-{os.getpid()}")
    with ExitStack() as ends:
        ends.enter_context(libraries_logged(log))
        shown = _bars() if progress is True else None
        ends.enter_context(ticking([log] if shown is None else [log, shown]))
        if shown is not None:
            ends.callback(shown.close)
        log.run_started([f"edgerecover.{function}"])
        try:
            yield Several([log, *([shown] if shown is not None else []), *_own(progress)])
        except EdgeRecoverError as error:
            log.failed(error)
            log.run_ended(error.exit_code)
            error.log = log.path if log.is_kept else None
            raise
        log.run_ended(EXIT_PASS)


def _own(progress: bool | Progress) -> list[Progress]:
    return [] if isinstance(progress, bool) else [progress]


def _bars() -> Lines | NotebookBars:
    if is_notebook():
        from edgerecover.report.notebook import NotebookBars

        return NotebookBars()
    from rich.console import Console

    from edgerecover.report.live import live_progress

    return live_progress(Console(stderr=True))


def is_notebook() -> bool:
    """Whether this code runs in a notebook's kernel, where a terminal's bars cannot be drawn. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None
