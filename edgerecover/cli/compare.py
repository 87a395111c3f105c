"""`compare`: two bundles side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.options import JsonOption


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Bundle to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Bundle that is compared.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write it there as one HTML file instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify bundles A and B and show what changed from A to B, and whether it is more than chance."""
    from edgerecover.artifacts import to_json
    from edgerecover.cli.reports import write_page
    from edgerecover.packing import read_packed
    from edgerecover.report.compare import compare as put_beside

    packed_a, packed_b = read_packed(a), read_packed(b)
    comparison = put_beside(packed_a.report, packed_b.report, str(a), str(b))
    if html is not None:
        from edgerecover.report.compare_html import comparison_html

        write_page(html, comparison_html(comparison))
    if as_json:
        print_json(to_json(comparison))
    elif html is None:
        from edgerecover.report.compare_terminal import print_comparison

        print_comparison(stdout(), comparison)
