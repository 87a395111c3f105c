"""`doctor`: what is here, what is missing, and one command for each thing that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.following import following
from edgerecover.cli.options import EventsOption, JsonOption, QuietOption
from edgerecover.errors import EXIT_MISSING, EXIT_PASS

if TYPE_CHECKING:
    from rich.console import Console

    from edgerecover.doctor.findings import Diagnosis

_STYLES = {"ok": "green", "note": "dim", "missing": "bold red", "wrong": "bold red"}


def doctor(
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Target to check for: a name from `targets list`, or a .toml file."),
    ] = None,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Check what this machine has and lacks, with one command for each missing thing. Installs nothing."""
    from edgerecover.artifacts import to_json
    from edgerecover.config import load_target
    from edgerecover.doctor.examine import examine

    loaded_target = load_target(target) if target is not None else None
    with following("doctor", events=events, quiet=quiet) as progress:
        diagnosis = examine(loaded_target, progress=progress)
    if as_json:
        print_json({"ready": diagnosis.is_ready, **to_json(diagnosis)})
    else:
        _show(stdout(), diagnosis)
    raise typer.Exit(EXIT_PASS if diagnosis.is_ready else EXIT_MISSING)


def _show(console: Console, diagnosis: Diagnosis) -> None:
    from rich.table import Table
    from rich.text import Text

    for finding in diagnosis.findings:
        row = Table.grid(padding=(0, 1))
        row.add_column(width=8)
        row.add_column(width=20, overflow="fold")
        row.add_column(overflow="fold")
        status = finding.status.value
        row.add_row(Text(status, _STYLES[status]), Text(finding.name, "bold"), Text(finding.found))
        console.print(row)
        if finding.fix:
            # Not wrapped by us: a command that is copied must be whole.
            console.print(Text(f"{'':9}{finding.fix}", "cyan"), soft_wrap=True)
    console.print()
    console.print(Text(_verdict(diagnosis)))


def _verdict(diagnosis: Diagnosis) -> str:
    purpose = f"to make bundles for {diagnosis.target}" if diagnosis.target else "to run edgerecover"
    if diagnosis.is_target:
        purpose = f"to make and run bundles for {diagnosis.target}"
    bad = [finding.name for finding in diagnosis.findings if finding.status.value in ("missing", "wrong")]
    matching = ", ".join(diagnosis.targets_here)
    here = f"This machine matches target {matching}." if matching else "This machine matches no shipped target."
    if diagnosis.is_ready:
        return f"{here} It is ready {purpose}."
    return f"{here} It is not ready {purpose}: {', '.join(bad)}."
