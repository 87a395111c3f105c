"""A sweep in the terminal: which points are worth keeping."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.text import Text

from edgerecover.artifacts import Sweep
from edgerecover.report.layout import grid, section, show
from edgerecover.report.sweep import header, notes, rows
from edgerecover.report.words import capital, count


def print_sweep(console: Console, sweep: Sweep, folder: str) -> None:
    """Show all points, those on the front in bold, and where their bundles are."""
    title = Text.assemble(
        ("edgerecover ", "bold"), sweep.edgerecover_version, ": ", (sweep.model, "bold"), " for ",
        (sweep.target, "bold"), f", {count(len(sweep.found), 'point')}",
    )  # fmt: skip
    parts: list[RenderableType] = [title, section(f"{capital(sweep.measure)}, latency and size"), _points(sweep)]
    parts += [section("How to read it"), grid((Text(name, "dim"), said) for name, said in notes(sweep))]
    parts += [
        section("Written"),
        grid([(Text("bundles", "dim"), folder), (Text("picture", "dim"), f"{folder}/front.svg")]),
    ]
    show(console, *parts)


def _points(sweep: Sweep) -> RenderableType:
    cells: list[tuple[str | Text, ...]] = [tuple(Text(name, "dim") for name in header(sweep))]
    for row in rows(sweep):
        style = "bold" if row.on_front else ""
        outcome = Text(row.outcome, "green" if row.on_front else "dim")
        cells.append((row.number, Text(row.name, style), row.quality, row.median, row.size, row.gates, outcome))
    return grid(cells, right=(0, 3, 4), folds=1)
