"""What a page of a report consists of: frozen values that a template draws.

Numbers are worked out here and written there, so that a page holds no text that was not escaped.
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from typing import ClassVar

from edgerecover.artifacts import GateStatus, Proportion
from edgerecover.report.words import status_tone


class DataUri(str):
    """A picture embedded in the page: the one kind of text that is not cut when it is long."""

    __slots__ = ()

    @classmethod
    def of(cls, media_type: str, content: bytes) -> DataUri:
        """The bytes as an address that needs no network."""
        return cls(f"data:{media_type};base64,{base64.b64encode(content).decode()}")


# --- cells of tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A fraction, 0 to 1, with its interval where there is one."""

    kind: ClassVar[str] = "bar"
    value: float
    low: float | None = None
    high: float | None = None
    tone: str = "after"
    """"after", "before" or "reference"."""


@dataclass(frozen=True)
class Whisker:
    """A value and its interval on a scale of its own, all as fractions of it, with a line to compare with."""

    kind: ClassVar[str] = "whisker"
    value: float
    low: float
    high: float
    reference: float
    rules: tuple[float, ...] = ()
    """Where the numbers of its scale stand."""


@dataclass(frozen=True)
class Scale:
    """The numbers below a column of whiskers; their places are fractions of its width."""

    kind: ClassVar[str] = "scale"
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Chip:
    """A word that stands out."""

    kind: ClassVar[str] = "chip"
    word: str
    tone: str
    """"pass", "fail", "inconclusive", "device" or "plain"."""


@dataclass(frozen=True)
class Spark:
    """A small histogram; heights are fractions of the highest."""

    kind: ClassVar[str] = "spark"
    heights: tuple[float, ...]
    says: str
    """Text alternative, for screen readers."""


Cell = str | Bar | Whisker | Scale | Chip | Spark


# --- blocks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""
    """"warning" or "" """


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: tuple[int, ...] = ()
    """Columns of numbers."""
    is_folded: bool = False
    """Collapsed until the reader opens it."""
    stacks: bool = False
    """In a narrow window the cells of a row stand below each other, each with its heading; else the table scrolls."""


@dataclass(frozen=True)
class Key:
    """What one colour or mark means."""

    mark: str
    """"after", "before", "reference", "interval", "value", "dense", "shades" or "hit"."""
    says: str


@dataclass(frozen=True)
class Legend:
    """What the colours and marks of a section mean."""

    kind: ClassVar[str] = "legend"
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Step:
    """Something to do, and the commands that do it."""

    says: str
    commands: str


@dataclass(frozen=True)
class Steps:
    """Things to do, in order."""

    kind: ClassVar[str] = "steps"
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Word:
    """A word and what it means."""

    word: str
    meaning: str

    @property
    def anchor(self) -> str:
        """Where links to it lead."""
        return f"word-{'-'.join(re.findall(r'[a-z0-9]+', self.word.lower()))}"


@dataclass(frozen=True)
class Words:
    """Words and what they mean."""

    kind: ClassVar[str] = "words"
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Tile:
    """A figure that is read first."""

    label: str
    value: str
    note: str
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Tiles:
    """Tiles side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Picture:
    """An image with its name."""

    source: DataUri
    says: str
    caption: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Pictures:
    """Images side by side, as many as fit."""

    kind: ClassVar[str] = "pictures"
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Matrix:
    """Counts by row and column, shaded by their share of the row."""

    kind: ClassVar[str] = "matrix"
    caption: str
    corner: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def shade(self, row: int, column: int) -> int:
        """0 for none to 9 for all of the row."""
        count, total = self.counts[row][column], sum(self.counts[row])
        return min(9, math.ceil(9 * count / total)) if total else 0


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point, column or line of a chart, in pixels, with what it says."""

    x: float
    y: float
    width: float
    height: float
    says: str
    tone: str = "after"


WIDTH, HEIGHT = 420.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 392.0, 40.0, 170.0
"""Of a chart and of the plot in it, in pixels."""


@dataclass(frozen=True)
class Chart:
    """A plot in pixels: columns, a line through points, and lines across."""

    kind: ClassVar[str] = "chart"
    caption: str
    says: str
    """Text alternative in a sentence, for screen readers."""
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    columns: tuple[Mark, ...] = ()
    points: tuple[Mark, ...] = ()
    across: tuple[Mark, ...] = ()
    """Vertical lines with a word at their top; `y` is where it stands."""

    @property
    def top(self) -> float:
        """Pixels above the plot that hold nothing."""
        return 0.0 if self.across else TOP - 14.0

    @property
    def line(self) -> str:
        """Through the points, as SVG writes it."""
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.points)


@dataclass(frozen=True)
class Row:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "row"
    blocks: tuple[Block, ...]


Block = Text | Table | Legend | Steps | Words | Tiles | Pictures | Matrix | Chart | Row


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    words: tuple[Word, ...] = ()
    """Of the page's `Words`, those that this section uses."""


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    badge: Chip | None
    lead: str
    """The verdict in a sentence."""
    lines: tuple[str, ...]
    """Model, target, run and date."""
    sections: tuple[Section, ...]
    footer: str


# --- what several sections show ---------------------------------------------------------------------------------


BEFORE = Key("before", "before recovery")
AFTER = Key("after", "recovered")
INTERVAL = Key("interval", "95 % interval")
"""What bars mean."""


def chip_of(status: GateStatus) -> Chip:
    """A gate's status as a chip."""
    return Chip(status.word, status_tone(status))


def facts_table(caption: str, facts: dict[str, str]) -> Table:
    """A table without a header: the name of a fact, and the fact."""
    return Table(caption, (), tuple(facts.items()))


def bar_of(value: Proportion, tone: str = "after") -> Bar:
    """A proportion and its 95 % interval as a bar; `tone` as in `Bar`."""
    return Bar(value.value, *value.interval(), tone)
