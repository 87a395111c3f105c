"""`targets` and `profiles`: what is shipped."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.options import JsonOption

targets_app = typer.Typer(no_args_is_help=True, help="Devices that edgerecover knows.")
profiles_app = typer.Typer(no_args_is_help=True, help="Recipes and their gates.")


@targets_app.command("list")
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


@targets_app.command("show")
def targets_show(name: Annotated[str, typer.Argument(help="Name or .toml file.")], as_json: JsonOption = False) -> None:
    """Show every fact of a target with its source."""
    from edgerecover.config import load_target

    _print_settings(load_target(name).model_dump(mode="json", exclude_none=True), as_json)


@profiles_app.command("list")
def profiles_list(as_json: JsonOption = False) -> None:
    """List the shipped profiles."""
    from edgerecover.config import load_profile, shipped_names
    from edgerecover.report.terminal import print_pairs

    descriptions = {name: load_profile(name).description for name in shipped_names("profiles")}
    if as_json:
        print_json(descriptions)
    else:
        print_pairs(stdout(), descriptions)


@profiles_app.command("show")
def profiles_show(
    name: Annotated[str, typer.Argument(help="Name or .toml file.")], as_json: JsonOption = False
) -> None:
    """Show every setting of a profile, inherited ones included."""
    from edgerecover.config import load_profile

    _print_settings(load_profile(name).model_dump(mode="json"), as_json)


def _print_settings(data: dict[str, Any], as_json: bool) -> None:
    from edgerecover.report.terminal import print_settings

    if as_json:
        print_json(data)
    else:
        print_settings(stdout(), data)
