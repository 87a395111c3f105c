"""What calls return: a report to read, and its bundle to keep."""

from __future__ import annotations

import io
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.api.given import FilePath
from edgerecover.api.words import errors_in_python
from edgerecover.artifacts import GateStatus

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from edgerecover import artifacts

_FRAME = "width: 100%; height: 720px; border: 1px solid #8884; border-radius: 4px"
_ARCHIVE = ".tar"


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What was found, and the bundle that holds it. Print it to read it; a notebook shows it as a page."""

    details: artifacts.Report
    """Every number, as in the bundle's report.json."""
    bundle: Path
    """The bundle: the folder named by `out`, or a temporary one, which is gone when the report is; see `save_bundle`.
    """

    @property
    def verdict(self) -> str:
        """The worst gate: `"pass"`, `"fail"` or `"inconclusive"`. A gate that needs the device does not count."""
        return self.details.verdict.value

    @property
    def passed(self) -> bool:
        """Whether the verdict is `"pass"`."""
        return self.details.verdict is GateStatus.PASS

    def save_bundle(self, path: FilePath, *, force: bool = False) -> Path:
        """Copy the bundle to a folder or, if `path` ends in .tar, write it as an archive.

        Args:
            path: folder or archive to write.
            force: replace a bundle that is there.

        Returns:
            `path`.

        Raises:
            EdgeRecoverError: something is there, or it cannot be written.
        """
        from edgerecover.bundle.carry import copy_bundle, pack_bundle
        from edgerecover.bundle.verify import verify_bundle
        from edgerecover.commands.outputs import require_free, require_new_folder

        out = Path(path)
        with errors_in_python(self.save_bundle, out="path"):
            if out.suffix.lower() == _ARCHIVE:
                require_free("--out", out, force=force)
                pack_bundle(self.bundle, out)
            else:
                require_new_folder("--out", out, force=force)
                copy_bundle(verify_bundle(self.bundle), out)
        return out

    def __str__(self) -> str:
        from edgerecover.report.terminal import print_report

        return as_text(lambda console: print_report(console, self.details, str(self.bundle)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.details.student.path}: {self.verdict}, bundle {self.bundle}>"

    def _page(self) -> str:
        """The report as a whole HTML page."""
        from edgerecover.report.html.report import html

        try:
            return (self.bundle / "report.html").read_text(encoding="utf-8")
        except OSError:  # moved or deleted: the numbers are here, the pictures are not
            return html(self.details)

    def _repr_html_(self) -> str:
        # In a frame, its style sheet does not reach the notebook. There "#gates" would be a place in the notebook.
        page = self._page().replace('href="#', 'href="about:srcdoc#')
        return f'<iframe title="edgerecover report" srcdoc="{escape(page)}" style="{_FRAME}"></iframe>'


@dataclass(frozen=True, eq=False, repr=False)
class RecoveryReport(Report):
    """The report of a recovery, and the recovered network."""

    model: nn.Module
    """The recovered network: a new one, float32, on the CPU, in eval mode. Every pruned weight is zero. It is of the
    student's own class and has its outputs; wrappers for training and pruning hooks are removed."""


def as_text(show: Callable[[Console], None]) -> str:
    """What the command line prints, 80 columns wide, without colours."""
    from rich.console import Console

    text = io.StringIO()
    show(Console(file=text, width=80, color_system=None, force_terminal=False, force_jupyter=False))
    return text.getvalue()


def delete_with(owner: object, folder: Path) -> None:
    """Delete a folder once nobody can use `owner` any more."""
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
