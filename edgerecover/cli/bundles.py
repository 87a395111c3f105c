"""`bundle verify` and `bundle show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Check and show bundles.")


@app.command("verify")
def bundle_verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    as_json: JsonOption = False,
) -> None:
    """Check every file of BUNDLE against its manifest."""
    from edgerecover.bundle.verify import verify_bundle

    manifest = verify_bundle(bundle)
    if as_json:
        print_json({"verified": True, "files": sorted(manifest.files)})
    else:
        typer.echo(f"{bundle}: {len(manifest.files)} files are what the manifest says")


@app.command("show")
def bundle_show(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report there as one HTML file instead of showing it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify BUNDLE and show the report inside it."""
    from edgerecover.cli.reports import drawing, write_page
    from edgerecover.packing import read_packed

    packed = read_packed(bundle)
    if html is not None:
        from edgerecover.report.html import html as as_html

        with drawing(str(bundle)):
            page = as_html(packed.report, packed.sheet_png, packed.manifest_sha256)
        write_page(html, page)
    if as_json:
        print_json(packed.report_json)
    elif html is None:
        from edgerecover.report.terminal import print_report

        with drawing(str(bundle)):
            print_report(stdout(), packed.report, str(bundle))
