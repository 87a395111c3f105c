"""Layout in the terminal: readable at 80 columns and without colour."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from edgerecover.artifacts import GateStatus
from edgerecover.report.plain import plain
from edgerecover.report.words import status_tone

BAR_COLUMNS = 24
_WIDEST = 100
"""Columns beyond which prose is hard to read."""
_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "device": "cyan", "plain": "dim"}
"""By the tone of a status."""


def show(console: Console, *parts: RenderableType) -> None:
    """Print parts one below the other, at a width that is easy to read. Text that goes to a file has no padding."""
    width = min(console.width, _WIDEST)
    if console.is_terminal or console.record:
        console.print(Group(*parts), highlight=False, width=width)
        return
    with console.capture() as capture:
        console.print(Group(*parts), highlight=False, width=width)
    console.file.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def section(title: str) -> RenderableType:
    """A heading with a rule."""
    return Padding(Rule(Text(plain(title), "bold"), align="left", style="dim"), (1, 0, 0, 0))


def facts_grid(pairs: Mapping[str, str]) -> RenderableType:
    """Names and facts in two aligned columns."""
    return grid((Text(f"{name:<9}", "dim"), text) for name, text in pairs.items())


class Name:
    """A name such as "layer1.0.conv1.weight", which is broken after its dots, slashes and underscores if need be."""

    def __init__(self, name: str) -> None:
        self._pieces = re.split(r"(?<=[./_])(?=[^./_])", plain(name))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        lengths = [cell_len(piece) for piece in self._pieces]
        return Measurement(max(lengths), sum(lengths))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [""]
        for piece in self._pieces:
            if lines[-1] and cell_len(lines[-1] + piece) > options.max_width:
                lines.append("")
            lines[-1] += piece
        yield Text("\n".join(lines), overflow="fold")


def grid(
    rows: Iterable[tuple[str | Text | Name, ...]], *, right: tuple[int, ...] = (), folds: int = -1
) -> RenderableType:
    """Aligned columns, those in `right` flush right; only column `folds` wraps. Brackets in strings are not markup."""
    cells = [tuple(_harmless(cell) for cell in row) for row in rows]
    num_columns = max((len(row) for row in cells), default=0)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for number in range(num_columns):
        wraps = number == folds % num_columns
        table.add_column(justify="right" if number in right else "left", no_wrap=not wraps, overflow="fold")
    for row in cells:
        table.add_row(*row)
    return Padding(table, (0, 0, 0, 2))


def _harmless(cell: str | Text | Name) -> Text | Name:
    """A cell with terminal control characters escaped."""
    if isinstance(cell, Name):
        return cell
    if isinstance(cell, str):
        return Text(plain(cell))
    safe = plain(cell.plain)
    return cell if safe == cell.plain else Text(safe, cell.style)


def status_text(status: GateStatus, *, is_verdict: bool = False) -> Text:
    """The word of a status in its colour; a verdict's stands out."""
    style = _STYLES[status_tone(status)]
    return Text(status.word, f"reverse {style}" if is_verdict else style)


def bar(fraction: float, columns: int = BAR_COLUMNS) -> Text:
    """A fraction as a bar, clipped to 0 to 1: reports are untrusted."""
    filled = round(columns * min(max(fraction, 0.0), 1.0))
    return Text("█" * filled, "blue") + Text("░" * (columns - filled), "dim")
