"""Writing pages that were asked for."""

from __future__ import annotations

from pathlib import Path

import typer

from edgerecover.errors import BadInputError


def write_page(path: Path, page: str) -> None:
    """Write an HTML page, whole or not at all, and say where it is.

    Raises:
        BadInputError: it cannot be written there.
    """
    from edgerecover.files import replace_file

    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise BadInputError(f"--html {path}: {error.strerror or error}", hint="name a file you can write") from error
    typer.echo(f"{path}: {len(page.encode()) / 1e6:.2f} MB, opens in any browser", err=True)
