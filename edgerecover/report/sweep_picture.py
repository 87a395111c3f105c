"""The front of a sweep as a self-contained SVG: latency across, quality up, the disc's area the file's size."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgerecover.artifacts import PointFound, Sweep
from edgerecover.report.words import size

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 24, 56
_LARGEST_RADIUS, _SMALLEST_RADIUS = 16.0, 3.0
_LINE = 15
"""Pixels between two labels."""
_STYLE = """
.front-picture { font: 12px system-ui, sans-serif; --ink: #1f2328; --dim: #8a929b; --front: #0b62c4; }
@media (prefers-color-scheme: dark) { .front-picture { --ink: #e6e9ec; --dim: #848d97; --front: #6cb0ff; } }
.front-picture text { fill: var(--ink); } .front-picture .tick { fill: var(--dim); }
.front-picture line { stroke: var(--dim); stroke-width: 1; } .front-picture .grid { stroke-opacity: .3; }
.front-picture .on { fill: var(--front); fill-opacity: .55; stroke: var(--front); }
.front-picture .off { fill: none; stroke: var(--dim); } .front-picture .off-label { fill: var(--dim); }
"""


@dataclass(frozen=True)
class _Axis:
    """A range of values along a range of pixels."""

    low: float
    high: float
    first: float
    last: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.first + (value - low) / (high - low) * (self.last - self.first)


def front_svg(sweep: Sweep) -> str:
    """Draw all points that were timed; those on the front are filled. Whiskers are 95 % intervals."""
    timed = [found for found in sweep.found if found.latency and found.quality]
    across = _across(timed)
    up = _up(timed)
    parts = [_frame(sweep, across, up), *(_disc(sweep, found, across, up, _largest(timed)) for found in timed)]
    parts += _labels(sweep, timed, across, up)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="front-picture" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}"><style>{_STYLE}</style><title>{_text(_alt_text(sweep))}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _alt_text(sweep: Sweep) -> str:
    names = ", ".join(sweep.label(found) for found in sweep.front) or "none"
    return f"{sweep.measure} over latency of {len(sweep.found)} points; on the front: {names}"


def _across(timed: Sequence[PointFound]) -> _Axis:
    medians = [found.median_ms for found in timed if found.median_ms] or [1.0]
    low, high = min(medians), max(medians)
    if high / low > 8:
        return _Axis(low / 1.3, high * 1.5, _LEFT, _WIDTH - _RIGHT, logarithmic=True)
    room = 0.15 * (high - low) or 0.1 * high
    return _Axis(max(0.0, low - room), high + 2 * room, _LEFT, _WIDTH - _RIGHT)


def _up(timed: Sequence[PointFound]) -> _Axis:
    ends = [end for found in timed if found.quality for end in found.quality.interval()] or [0.0, 1.0]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    return _Axis(max(0.0, min(ends) - room), min(1.0, max(ends) + room), _HEIGHT - _BOTTOM, _TOP)


def _largest(timed: Sequence[PointFound]) -> int:
    return max((found.size_bytes or 0 for found in timed), default=0) or 1


def _frame(sweep: Sweep, across: _Axis, up: _Axis) -> str:
    parts = []
    for value in _ticks(across):
        x = across.place(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        below = _HEIGHT - _BOTTOM + 16
        parts.append(f'<text class="tick" x="{x:.1f}" y="{below}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(up):
        y = up.place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{100 * value:g} %"
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    bottom = f"median latency of one query, ms{', logarithmic' if across.logarithmic else ''}; area: size of the file"
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 14}" text-anchor="middle">{bottom}</text>')
    side = f"{sweep.measure} on {sweep.measured_on}"
    centre = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text transform="translate(14 {centre}) rotate(-90)" text-anchor="middle">{_text(side)}</text>')
    return "\n".join(parts)


def _ticks(axis: _Axis) -> list[float]:
    """Round numbers inside an axis, about five of them."""
    if axis.logarithmic:
        decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        values = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        return [value for value in values if axis.low <= value <= axis.high]
    rough = (axis.high - axis.low) / 5
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(multiple * decade for multiple in (1, 2, 5, 10) if multiple * decade >= rough)
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def _disc(sweep: Sweep, found: PointFound, across: _Axis, up: _Axis, largest: int) -> str:
    assert found.latency is not None
    assert found.quality is not None
    x, y = across.place(found.latency.percentile_ms(50)), up.place(found.quality.value)
    left, right = (across.place(max(value, across.low)) for value in found.latency.percentile_interval_ms(50))
    low, high = (up.place(value) for value in found.quality.interval())
    radius = max(_SMALLEST_RADIUS, _LARGEST_RADIUS * math.sqrt((found.size_bytes or 0) / largest))
    said = (
        f"{sweep.label(found)}: {100 * found.quality.value:.1f} %, {found.median_ms:.3f} ms, "
        f"{size(found.size_bytes or 0)}"
    )
    return (
        f"<g><title>{_text(said)}</title>"
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle class="{"on" if found.on_front else "off"}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/></g>'
    )


def _labels(sweep: Sweep, timed: Sequence[PointFound], across: _Axis, up: _Axis) -> list[str]:
    """Labels beside their discs, moved apart vertically where they would overlap."""
    wanted = sorted(timed, key=lambda found: _height(found, up))
    heights = _spread([_height(found, up) for found in wanted], _TOP + 8, _HEIGHT - _BOTTOM - 4)
    parts = []
    for found, y in zip(wanted, heights, strict=True):
        x = across.place(found.median_ms or across.low)
        is_right = x > 0.7 * _WIDTH
        anchor = "end" if is_right else "start"
        x += -_LARGEST_RADIUS - 4 if is_right else _LARGEST_RADIUS + 4
        kind = "" if found.on_front else ' class="off-label"'
        parts.append(
            f'<text{kind} x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{_text(sweep.label(found))}</text>'
        )
    return parts


def _height(found: PointFound, up: _Axis) -> float:
    return up.place(found.quality.value) if found.quality else up.last


def _spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Ascending heights, moved apart to be a line from each other where there is room for that."""
    gap = min(_LINE, (bottom - top) / max(1, len(heights)))
    spread: list[float] = []
    for height in heights:
        spread.append(max(height, spread[-1] + gap) if spread else max(height, top))
    last = len(spread) - 1
    return [min(height, bottom - gap * (last - number)) for number, height in enumerate(spread)]


def _text(value: str) -> str:
    return html.escape(value)
