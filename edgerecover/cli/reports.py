"""Showing reports of bundles, which are untrusted, and writing them as pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgerecover.errors import (
    BadInputError,
    unwritable_hint,
)

if TYPE_CHECKING:
    from edgerecover.artifacts import Report
    from edgerecover.bundle.verify import Verified


@contextmanager
def drawing(what: str) -> Iterator[None]:
    """Turn errors of drawing into bad input: a well-formed report may still contain numbers that cannot be drawn.

    Raises:
        BadInputError: the report cannot be drawn.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, StopIteration, ValueError) as error:
        raise BadInputError(
            f"{what}: its report cannot be shown: {error or type(error).__name__}",
            hint="it is damaged, or was not written by edgerecover",
        ) from error


def page_of(verified: Verified, report: Report) -> str:
    """The report of a bundle as HTML, with its pictures.

    Raises:
        BadInputError: the report cannot be drawn.
    """
    from edgerecover.report.html.report import html

    sheet = report.sheet
    sheet_png = verified.read(sheet.path) if sheet is not None and sheet.path in verified.files else None
    with drawing(str(verified.path)):
        return html(report, sheet_png, verified.manifest_sha256, verified.path.resolve().name)


def write_page(path: Path, page: str) -> None:
    """Write an HTML page, whole or not at all, and say where it is.

    Raises:
        BadInputError: it cannot be written there.
    """
    from edgerecover.files import replace_file

    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise BadInputError(
            f"--html {path}: {error.strerror or error}",
            hint=unwritable_hint(error, "name a file in a folder that is there"),
        ) from error
    typer.echo(f"{path}: {len(page.encode()) / 1e6:.2f} MB, opens in any browser", err=True)
