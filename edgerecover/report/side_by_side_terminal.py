"""Two reports side by side in the terminal."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from edgerecover.report.layout import grid, section, show
from edgerecover.report.side_by_side import BETTER, SAME, UNCERTAIN, UNCLEAR, WORSE, Measure, SideBySide
from edgerecover.report.words import count

_STYLES = {BETTER: "green", WORSE: "red", SAME: "dim", UNCERTAIN: "yellow", UNCLEAR: "yellow"}
_MOST_LAYERS = 20


def print_side_by_side(console: Console, both: SideBySide) -> None:
    """Show what differs, and what was measured of both."""
    c = both
    same = [fact.name for fact in c.facts if not fact.differs]
    differing = [(Text(fact.name, "dim"), fact.a, fact.b) for fact in c.facts if fact.differs]
    parts: list[RenderableType] = [
        Text.assemble(("edgerecover compare", "bold")),
        grid([(Text("A", "bold"), c.a), (Text("B", "bold"), c.b)]),
        section("Differs"),
        grid([_header("", "A", "B"), *differing], folds=2) if differing else grid([("nothing",)]),
        grid([(Text(f"the same: {', '.join(same)}" if same else "nothing is the same", "dim"),)]),
        section("Measured: B against A"),
    ]
    parts += _measures(c.measures)
    if changed := [pair for pair in c.gates if pair.differs]:
        rows = [(Text(pair.name, "dim"), pair.a or "–", pair.b or "–") for pair in changed]
        parts += [section("Gates that came out differently"), grid([_header("", "A", "B"), *rows], folds=0)]
    else:
        parts += [section("Gates"), grid([(f"all {len(c.gates)} came out the same",)])]
    if c.layers:
        rows = [(Text(layer.name, "dim"), layer.a or "–", layer.b or "–") for layer in c.layers[:_MOST_LAYERS]]
        parts += [section("Zeros, layer by layer"), grid([_header("", "A", "B"), *rows], folds=0)]
        if more := len(c.layers) - _MOST_LAYERS:
            parts += [grid([(Text(f"and {count(more, 'more layer')}", "dim"),)])] if more > 0 else []
    show(console, *parts)


def _header(*titles: str) -> tuple[Text, ...]:
    return tuple(Text(title, "dim") for title in titles)


def _measures(measures: tuple[Measure, ...]) -> Iterator[RenderableType]:
    rows: list[tuple[str | Text, ...]] = [_header("", "A", "B", "")]
    for one in measures:
        rows.append((Text(one.name, "dim"), one.a_words, one.b_words, Text(one.verdict, _STYLES[one.verdict])))
    yield grid(rows, right=(1, 2), folds=0)
    yield Text()
    yield grid((Text(one.name, "dim"), one.difference) for one in measures if one.difference)
