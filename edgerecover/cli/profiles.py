"""`profiles list|show`: the shipped profiles."""

from __future__ import annotations

from typing import Annotated

import typer

from edgerecover.cli.console import print_json, show_settings, stdout
from edgerecover.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Recipes and their gates.")


@app.command("list")
def profiles_list(as_json: JsonOption = False) -> None:
    """List the shipped profiles."""
    from edgerecover.config import load_profile, shipped_names
    from edgerecover.report.terminal import print_pairs

    descriptions = {name: load_profile(name).description for name in shipped_names("profiles")}
    if as_json:
        print_json(descriptions)
    else:
        print_pairs(stdout(), descriptions)


@app.command("show")
def profiles_show(
    name: Annotated[str, typer.Argument(help="Name or .toml file.")], as_json: JsonOption = False
) -> None:
    """Show every setting of a profile, inherited ones included."""
    from edgerecover.config import load_profile

    show_settings(load_profile(name).model_dump(mode="json"), as_json)
