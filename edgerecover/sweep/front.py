"""Which points of a sweep are Pareto-optimal in quality, latency and size. Needs NumPy for the intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgerecover.artifacts import PointFound

SAME = 0.02
"""Two processes that run the same file differ by about 1 %: such a difference does not count."""


def with_front(found: Sequence[PointFound]) -> tuple[PointFound, ...]:
    """The same points, each told whether it is on the front (the Pareto set of quality, latency and size).

    A point is off it when another one is as good in all and better in one. A latency is worse only when it is so
    significantly: when the 95 % interval of the ratio, round by round of their race, begins beyond 1 and `SAME`.
    Quality and size are compared as they are: all points are judged on the same images. Points without a latency are
    on no front.
    """
    placed = []
    for one in found:
        better = next((other for other in found if other is not one and _is_better(other, one)), None)
        if one.latency is None or one.quality is None:
            placed.append(one)
        else:
            placed.append(replace(one, on_front=better is None, behind=better.point.name if better else ""))
    return tuple(placed)


def _is_better(other: PointFound, one: PointFound) -> bool:
    """Whether `other` is as good as `one` in everything, and better in something."""
    if other.quality is None or one.quality is None or other.size_bytes is None or one.size_bytes is None:
        return False
    if other.quality.value < one.quality.value or other.size_bytes > one.size_bytes or _is_slower(other, one):
        return False
    return other.quality.value > one.quality.value or other.size_bytes < one.size_bytes or _is_slower(one, other)


def _is_slower(one: PointFound, other: PointFound) -> bool:
    """Significantly; what has no latency is slower than anything."""
    if one.latency is None or other.latency is None:
        return one.latency is None
    return one.latency.slower_than(other.latency).low > 1 + SAME
