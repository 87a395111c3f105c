"""How many channels each group keeps: widths for which kernels are fast, and the requested MACs.

Kernels work on blocks of 8 or 16 channels; a layer between two multiples costs as much as the larger one, or needs a
slower kernel. If all groups rounded at the same point, layers of equal width would all step at once, and the MACs with
them; so each group rounds at its own point, and one after the other steps as the fraction grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgerecover.pruning.coupled import Group

_GOLDEN_RATIO = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly, however many there are."""
_BISECTIONS = 24
_MAX_REPAIRS = 40


@dataclass(frozen=True)
class _Side:
    """A group's share of a layer's inputs or outputs."""

    group: int
    share: float


@dataclass(frozen=True)
class _Layer:
    macs: int
    inputs: tuple[_Side, ...]
    outputs: tuple[_Side, ...]


class Work:
    """MACs of a network as a function of the units that its groups keep."""

    def __init__(self, groups: Sequence[Group], macs_by_weight: Mapping[str, int]) -> None:
        self._groups = groups
        self._total = sum(macs_by_weight.values())
        sides: dict[tuple[str, bool], list[_Side]] = {}
        for number, group in enumerate(groups):
            for member in group.members:
                share = len(member.units) / member.num_channels
                sides.setdefault((member.layer, member.is_output), []).append(_Side(number, share))
        self._layers = [
            _Layer(
                macs,
                tuple(sides.get((name.removesuffix(".weight"), False), ())),
                tuple(sides.get((name.removesuffix(".weight"), True), ())),
            )
            for name, macs in macs_by_weight.items()
        ]

    def kept(self, units: Sequence[int]) -> float:
        """Fraction of MACs that remains when each group keeps this many units."""
        gone = [1 - kept / group.num_units for kept, group in zip(units, self._groups, strict=True)]
        left = 0.0
        for layer in self._layers:
            inputs, outputs = (
                1 - sum(side.share * gone[side.group] for side in of) for of in (layer.inputs, layer.outputs)
            )
            left += layer.macs * inputs * outputs
        return left / self._total


def choose_widths(groups: Sequence[Group], work: Work, macs_removed: float, multiple: int) -> tuple[int, ...]:
    """Units that each group keeps, about the same fraction in all groups.

    Args:
        groups: the network's groups.
        work: the network's MACs.
        macs_removed: fraction of MACs to remove.
        multiple: multiple of channels for a layer's width; layers less than twice as wide may stay as they are.
    """
    steps = [_step(group, multiple) for group in groups]
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        ratio = (low + high) / 2
        if 1 - work.kept(_round(groups, steps, ratio)) < macs_removed:
            low = ratio
        else:
            high = ratio
    nearest = min(
        (_round(groups, steps, ratio) for ratio in (low, high)),
        key=lambda units: abs(1 - work.kept(units) - macs_removed),
    )
    return _repair(nearest, groups, steps, work, macs_removed)


def _step(group: Group, multiple: int) -> int:
    """Units that make up a multiple of channels; if blocks are wide enough, a multiple in each block."""
    if group.num_units >= 2 * multiple:
        return multiple
    channels_per_unit = max(1, group.width // group.num_units)
    return multiple // math.gcd(multiple, channels_per_unit)


def _round(groups: Sequence[Group], steps: Sequence[int], ratio: float) -> tuple[int, ...]:
    units = []
    for number, (group, step) in enumerate(zip(groups, steps, strict=True)):
        point = (number + 1) * _GOLDEN_RATIO % 1
        kept = int(group.num_units * (1 - ratio) / step + point) * step
        units.append(min(max(kept, step), group.num_units))
    return tuple(units)


def _repair(
    units: tuple[int, ...], groups: Sequence[Group], steps: Sequence[int], work: Work, macs_removed: float
) -> tuple[int, ...]:
    """Make single groups a step wider or narrower, as long as that comes nearer to the MACs."""

    def distance(units: Sequence[int]) -> float:
        return abs(1 - work.kept(units) - macs_removed)

    for _ in range(_MAX_REPAIRS):
        others = [
            (*units[:number], moved, *units[number + 1 :])
            for number, (group, step) in enumerate(zip(groups, steps, strict=True))
            for moved in _neighbours(units[number], group.num_units, step)
        ]
        nearest = min(others, key=distance, default=units)
        if distance(nearest) >= distance(units):
            break
        units = nearest
    return units


def _neighbours(kept: int, num_units: int, step: int) -> set[int]:
    lower = (kept - 1) // step * step
    upper = min(kept + step, num_units) if kept % step == 0 else num_units
    return {width for width in (lower, upper) if step <= width <= num_units and width != kept}
