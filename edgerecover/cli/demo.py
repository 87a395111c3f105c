"""`demo`: a whole run on a small network that comes with edgerecover."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import stderr
from edgerecover.cli.options import (
    OUTPUT,
    EventsOption,
    JsonOption,
    QuietOption,
    SeedOption,
)
from edgerecover.cli.run import run_and_show


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the demo's files and bundle.", rich_help_panel=OUTPUT)
    ] = Path("edgerecover-demo"),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Recover a digit classifier broken by pruning, without data, and report its accuracy on real test images."""
    from edgerecover.demo import DATA_CREDIT
    from edgerecover.demo.example import demo_request

    request = demo_request(out, seed)
    if not (as_json or quiet):
        console = stderr()
        console.print(
            "A digit classifier that lost its accuracy to pruning. No training image is used.",
            highlight=False,
        )
        console.print(f"[dim]Test images: {DATA_CREDIT}[/]", highlight=False)
    run_and_show("demo", request, as_json, events, quiet=quiet)
