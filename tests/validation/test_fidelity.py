import numpy as np
import pytest

from edgerecover.artifacts import Proportion
from edgerecover.validation.fidelity import agreement, only_first, proportion, shares_of_truth
from tests.pairs import measure_of_classes

ONE_HOT = np.eye(4, dtype=np.float32)
MEASURE = measure_of_classes(4)


def test_agreement_counts_equal_decisions():
    assert agreement(ONE_HOT, ONE_HOT * 7 + 1, MEASURE) == Proportion(4, 4)
    assert agreement(ONE_HOT, ONE_HOT[[0, 1, 3, 2]], MEASURE) == Proportion(2, 4)


@pytest.mark.parametrize("column", [0, 3])
def test_a_nan_never_agrees_not_even_with_a_nan(column):
    broken = ONE_HOT.copy()
    broken[0, column] = np.nan
    assert agreement(broken, ONE_HOT, MEASURE).hits == 3
    assert agreement(ONE_HOT, broken, MEASURE).hits == 3
    assert agreement(broken, broken, MEASURE).hits == 3


def test_truth_is_asked_of_each_image():
    labels = np.array([0, 1, 0, 3])
    assert shares_of_truth(ONE_HOT, labels, MEASURE).tolist() == [1, 1, 0, 1]
    assert not shares_of_truth(np.full((4, 4), np.nan), labels, MEASURE).any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(3, 4\)"):
        agreement(ONE_HOT, ONE_HOT[:3], MEASURE)
    with pytest.raises(ValueError, match="one truth for each image"):
        shares_of_truth(ONE_HOT, np.zeros(3, dtype=np.int64), MEASURE)


def test_whole_numbers_stay_whole():
    assert str(proportion(np.array([1.0, 0.0, 1.0])).hits) == "2"
    assert proportion(np.array([0.25, 0.5])).hits == 0.75


def test_what_only_the_first_has_right_is_summed_over_the_images_on_which_it_is_better():
    first, second = np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.75, 0.0])
    assert (only_first(first, second), only_first(second, first)) == (1, 0.25)
