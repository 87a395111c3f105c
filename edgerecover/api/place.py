"""Where a call writes: a temporary folder, unless the caller names another."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgerecover.api.given import FilePath, Given, path_of
from edgerecover.api.reports import delete_with
from edgerecover.commands.outputs import require_outside, require_same_release
from edgerecover.errors import EdgeRecoverError


@dataclass(frozen=True)
class Place:
    """The folders of one call."""

    scratch: Path
    """The temporary one."""
    work: Path
    """The run folder."""
    bundle: Path
    ends: ExitStack
    """Deletes the temporary folder."""

    @property
    def inputs(self) -> Path:
        """For the weights of networks in memory."""
        return self.scratch / "inputs"

    def require_free(self, model: Given, target: str, *, force: bool) -> None:
        """Refuse to replace the bundle of another model or target, unless forced.

        Raises:
            BadInputError: one is there.
        """
        require_same_release(self.bundle, model.path, target, force=force, by_content=model.live is not None)

    def leave_to(self, report: object) -> None:
        """Keep the bundle for as long as the report lives, and delete all else that is temporary."""
        for folder in (self.inputs, self.scratch / "work"):
            shutil.rmtree(folder, ignore_errors=True)
        self.ends.pop_all()
        delete_with(report, self.scratch)


@contextmanager
def place_of(out: FilePath | None, run_folder: FilePath | None, name: str) -> Iterator[Place]:
    """The folders of a call; the temporary one is deleted after the block unless it was left to a report.

    Args:
        out: of the bundle; None: in the temporary folder.
        run_folder: None: in the temporary folder.
        name: of a temporary bundle.

    Raises:
        BadInputError: the run folder is inside a bundle.
    """
    work = path_of(run_folder)
    if work is not None:
        require_outside("--work", work)
    scratch = Path(tempfile.mkdtemp(prefix="edgerecover-"))
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, scratch, ignore_errors=True)
        place = Place(scratch, work or scratch / "work", path_of(out) or scratch / f"{name}.bundle", ends)
        try:
            yield place
        except EdgeRecoverError as error:  # a file that the caller never saw: "student.pt" says more than its path
            hidden = f"{place.inputs}{os.sep}"
            error.message, error.hint = (text.replace(hidden, "") for text in (error.message, error.hint))
            raise
