"""Widths are multiples, near one fraction of every group, and move one group at a time."""

import itertools

import pytest

from edgerecover.pruning.coupled import Group, Member
from edgerecover.pruning.widths import Work, choose_widths

WIDTHS = (16, 24, 64, 64, 64, 64, 320, 12, 8)


class Chain:
    """Layers of so many outputs, each of which the next one reads."""

    def __init__(self, widths):
        def members(number, width):
            sides = [Member(f"layer{number}", None, True, width, {place: place for place in range(width)})]
            if number + 1 < len(widths):
                inputs = Member(f"layer{number + 1}", None, False, width, {place: place for place in range(width)})
                sides.append(inputs)
            return tuple(sides)

        self.groups = [Group(w, tuple(map(float, range(w))), members(n, w)) for n, w in enumerate(widths)]
        inputs = (3, *widths)
        macs = {f"layer{n}.weight": 9 * before * w for n, (before, w) in enumerate(zip(inputs, widths, strict=False))}
        self.work = Work(self.groups, macs)


@pytest.mark.parametrize("multiple", [1, 8, 16])
@pytest.mark.parametrize("macs_removed", [0.25, 0.5, 0.75])
def test_multiples_that_meet_the_macs(macs_removed, multiple):
    chain = Chain(WIDTHS)
    kept = choose_widths(chain.groups, chain.work, macs_removed, multiple)
    assert 1 - chain.work.kept(kept) == pytest.approx(macs_removed, abs=0.03)
    for width, units in zip(WIDTHS, kept, strict=True):
        assert units == width or units % multiple == 0
        assert units > 0


def test_all_or_nothing():
    chain = Chain(WIDTHS)
    assert chain.work.kept(WIDTHS) == 1.0
    assert chain.work.kept([width // 2 for width in WIDTHS]) == pytest.approx(0.25, abs=0.02)


def test_layers_of_one_width_step_one_after_the_other():
    chain = Chain([64] * 10)
    fractions = [
        chain.work.kept(choose_widths(chain.groups, chain.work, removed / 100, 16)) for removed in range(10, 90, 2)
    ]
    assert all(before >= after for before, after in itertools.pairwise(fractions))
    assert max(before - after for before, after in itertools.pairwise(fractions)) < 0.05


def test_a_unit_of_several_channels_counts_as_many():
    units = {place: place % 32 for place in range(64)}
    group = Group(64, (1.0,) * 32, (Member("layer0", None, True, 64, units),))
    kept = choose_widths([group], Work([group], {"layer0.weight": 64}), 0.5, 16)
    assert kept == (16,)
