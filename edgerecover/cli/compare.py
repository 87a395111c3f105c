"""`compare`: two bundles side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.options import (
    OUTPUT,
    ForceOption,
    JsonOption,
)
from edgerecover.cli.reports import drawing, write_page
from edgerecover.commands.outputs import require_free


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Bundle (folder or archive) to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Bundle (folder or archive) to compare.")],
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write the comparison to this HTML file instead of showing it.", rich_help_panel=OUTPUT
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify bundles A and B, and show what changed from A to B and whether it is more than chance."""
    from edgerecover.artifacts import to_json
    from edgerecover.commands.compare import compare as put_side_by_side

    if html is not None:
        require_free("--html", html, force=force)
    with drawing(f"{a}, {b}"):
        both = put_side_by_side(a, b)
    if html is not None:
        from edgerecover.report.side_by_side_html import side_by_side_html

        with drawing(f"{a}, {b}"):
            page = side_by_side_html(both)
        write_page(html, page)
    if as_json:
        print_json(to_json(both))
    elif html is None:
        from edgerecover.report.side_by_side_terminal import print_side_by_side

        print_side_by_side(stdout(), both)
