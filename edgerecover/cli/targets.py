"""`targets list|show`: the shipped targets."""

from __future__ import annotations

from typing import Annotated

import typer

from edgerecover.cli.console import print_json, show_settings, stdout
from edgerecover.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Devices that edgerecover knows.")


@app.command("list")
def targets_list(as_json: JsonOption = False) -> None:
    """List the shipped targets."""
    from edgerecover.config import load_target, shipped_names
    from edgerecover.report.terminal import print_groups

    targets = [load_target(name) for name in shipped_names("targets")]
    if as_json:
        print_json({target.name: target.description for target in targets})
        return
    families = sorted({target.family for target in targets}, key=str.casefold)
    groups = {family: {t.name: t.description for t in targets if t.family == family} for family in families}
    print_groups(stdout(), groups)


@app.command("show")
def targets_show(name: Annotated[str, typer.Argument(help="Name or .toml file.")], as_json: JsonOption = False) -> None:
    """Show every fact of a target with its source."""
    from edgerecover.config import load_target

    show_settings(load_target(name).model_dump(mode="json", exclude_none=True), as_json)
