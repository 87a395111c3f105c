"""How anything is laid out in the terminal: sections, aligned columns, bars; readable at 80 columns."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

BAR_COLUMNS = 24
_WIDEST = 100
"""Columns beyond which lines of prose get hard to read."""


def show(console: Console, *parts: RenderableType) -> None:
    """Print one below the other."""
    console.print(Group(*parts), highlight=False, width=min(console.width, _WIDEST))


def section(title: str) -> RenderableType:
    """A rule that begins with a title."""
    return Padding(Rule(Text(title, "bold"), align="left", style="dim"), (1, 0, 0, 0))


def facts(pairs: Mapping[str, str]) -> RenderableType:
    """Names, and what is known of each."""
    return grid((Text(f"{name:<9}", "dim"), text) for name, text in pairs.items())


def grid(rows: Iterable[tuple[str | Text, ...]], *, right: tuple[int, ...] = (), folds: int = -1) -> RenderableType:
    """Aligned columns, `right` ones flush right; only column `folds` wraps. Brackets in strings are no markup."""
    cells = [tuple(Text(cell) if isinstance(cell, str) else cell for cell in row) for row in rows]
    num_columns = max((len(row) for row in cells), default=0)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for number in range(num_columns):
        wraps = number == folds % num_columns
        table.add_column(justify="right" if number in right else "left", no_wrap=not wraps, overflow="fold")
    for row in cells:
        table.add_row(*row)
    return Padding(table, (0, 0, 0, 2))


def bar(fraction: float, columns: int = BAR_COLUMNS) -> Text:
    """A fraction of a line of blocks."""
    filled = round(columns * fraction)
    return Text("█" * filled, "blue") + Text("░" * (columns - filled), "dim")
