import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.artifacts import Decisions, PrecisionLoss, paired_interval


def test_the_paired_interval_is_that_of_bonett_and_price():
    low, high = paired_interval(40, 20, 1000)
    centre, half = 20 / 1002, 1.959964 * ((62 / 1002 - (20 / 1002) ** 2) / 1002) ** 0.5
    assert (low, high) == pytest.approx((centre - half, centre + half))


@given(st.integers(0, 500), st.integers(0, 500))
def test_what_was_measured_shrinks_towards_none_and_lies_inside(lost, won):
    loss = PrecisionLoss(1000, lost, won, lost + won)
    low, high = loss.interval_points()
    assert loss.points == pytest.approx((lost - won) / 10)
    assert low <= loss.points + 0.2
    assert loss.points - 0.2 <= high


def test_two_models_are_compared_image_by_image_where_both_saw_the_same():
    ours, theirs = Decisions("a", "1100"), Decisions("a", "1010")
    assert ours.pairs(theirs) == (1, 1)
    assert ours.pairs(Decisions("b", "1010")) is None
    graded, worse = Decisions("a", "", (0.5, 1.0, 0.25)), Decisions("a", "", (0.75, 0.5, 0.25))
    assert (graded.hits, graded.total) == (1.75, 3)
    assert graded.pairs(worse) == (0.5, 0.25)
    assert graded.pairs(graded) == (0, 0)
    assert graded.pairs(Decisions("a", "110")) is None
