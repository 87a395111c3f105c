"""What a page of a report consists of: frozen values that a template draws.

Numbers are worked out here and written there, so that a page holds no text that was not escaped.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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


# --- charts ---------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 420.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 392.0, 40.0, 170.0
_WORD_WIDTH_PX, _WORD_HEIGHT_PX = 26.0, 11.0
_LANES = 3
"""Heights at which words may stand above a plot."""


@dataclass(frozen=True)
class Axis:
    """From numbers to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    def px(self, value: float) -> float:
        """Pixel of a value; values outside the axis are placed at its nearer end."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.0
        return self.start_px + min(max(share, 0.0), 1.0) * (self.end_px - self.start_px)


def x_axis(low: float, high: float) -> Axis:
    """Left to right."""
    return Axis(low, high, LEFT, RIGHT)


def y_axis(low: float, high: float) -> Axis:
    """Bottom to top."""
    return Axis(low, high, BOTTOM, TOP)


def round_numbers(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    """About so many numbers of one, two or five times a power of ten, from `low` to `high`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return (low,) if math.isfinite(low) else ()
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(number * step for number in range(first, last + 1))


def ticks(axis: Axis, unit: str = "", about: int = 5) -> tuple[Tick, ...]:
    """Round numbers along an axis."""
    return tuple(Tick(axis.px(value), f"{value:.6g}{unit}") for value in round_numbers(axis.low, axis.high, about))


def beside_each_other(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Lines across, with their words at different heights where these would overlap."""
    placed: list[Mark] = []
    free_from_px = [-math.inf] * _LANES
    for mark in sorted(marks, key=lambda mark: mark.x):
        lane = next((lane for lane, free in enumerate(free_from_px) if free <= mark.x), _LANES - 1)
        free_from_px[lane] = mark.x + _WORD_WIDTH_PX
        placed.append(replace(mark, y=mark.y - lane * _WORD_HEIGHT_PX))
    return tuple(placed)


# --- what several sections show ---------------------------------------------------------------------------------


BEFORE = Key("before", "before recovery")
AFTER = Key("after", "recovered")
INTERVAL = Key("interval", "95 % interval")
"""What bars mean."""

MOST_COLUMNS = 180
"""In one chart, which has no room for more."""


def chip_of(status: GateStatus) -> Chip:
    """A gate's status as a chip."""
    return Chip(status.word, status_tone(status))


def facts_table(caption: str, facts: dict[str, str]) -> Table:
    """A table without a header: the name of a fact, and the fact."""
    return Table(caption, (), tuple(facts.items()))


def bar_of(value: Proportion, tone: str = "after") -> Bar:
    """A proportion and its 95 % interval as a bar; `tone` as in `Bar`."""
    return Bar(value.value, *value.interval(), tone)


def group(values: Sequence[float], most: int) -> Iterator[tuple[int, int, float]]:
    """Group neighbouring values into at most `most` groups: index of the first, one past the last, and the mean."""
    num_groups = min(most, len(values))
    for number in range(num_groups):
        start, end = (edge * len(values) // num_groups for edge in (number, number + 1))
        yield start, end, sum(values[start:end]) / (end - start)


def column(left: float, right: float, top: float, says: str, tone: str = "after") -> Mark:
    """A column of a chart, in pixels, with a gap to the next one where there is room."""
    gap = 1.0 if right - left > 3 else 0.0
    return Mark(left, top, max(0.5, right - left - gap), max(0.0, BOTTOM - top), says, tone)
