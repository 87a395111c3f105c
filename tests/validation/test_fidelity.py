import numpy as np
import pytest

from edgerecover.artifacts import Proportion
from edgerecover.validation.fidelity import agreement, correct

ONE_HOT = np.eye(4, dtype=np.float32)


def test_agreement_counts_equal_decisions():
    assert agreement(ONE_HOT, ONE_HOT * 7 + 1) == Proportion(4, 4)
    assert agreement(ONE_HOT, ONE_HOT[[0, 1, 3, 2]]) == Proportion(2, 4)


@pytest.mark.parametrize("column", [0, 3])
def test_a_nan_never_agrees_not_even_with_a_nan(column):
    broken = ONE_HOT.copy()
    broken[0, column] = np.nan
    assert agreement(broken, ONE_HOT).hits == 3
    assert agreement(ONE_HOT, broken).hits == 3
    assert agreement(broken, broken).hits == 3


def test_correct_is_per_image():
    labels = np.array([0, 1, 0, 3])
    assert correct(ONE_HOT, labels).tolist() == [True, True, False, True]
    assert not correct(np.full((4, 4), np.nan), labels).any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(3, 4\)"):
        agreement(ONE_HOT, ONE_HOT[:3])
    with pytest.raises(ValueError, match="labels"):
        correct(ONE_HOT, np.zeros(3, dtype=np.int64))
