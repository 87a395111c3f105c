"""`bundle verify` and `bundle show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.options import JsonOption
from edgerecover.errors import BadInputError

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
    as_json: JsonOption = False,
) -> None:
    """Verify BUNDLE and show the report inside it."""
    from edgerecover.artifacts import Report, from_json
    from edgerecover.bundle.verify import verify_bundle

    verify_bundle(bundle)
    try:
        data = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
        report = from_json(Report, data)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{bundle}/report.json cannot be read: {error}", hint="was it written by another version?"
        ) from error
    if as_json:
        print_json(data)
        return
    from edgerecover.report.terminal import print_report

    print_report(stdout(), report, str(bundle))
