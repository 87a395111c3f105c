"""From numbers to pixels: axes, their numbers, columns and lines of charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgerecover.report.html.blocks import BOTTOM, LEFT, RIGHT, TOP, Mark, Tick

MOST_COLUMNS = 180
"""In one chart, which has no room for more."""
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
