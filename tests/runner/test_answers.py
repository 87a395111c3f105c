import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.artifacts import OutputPart, OutputSpec, Precision, TaskKind
from edgerecover.runner.answers import TOLERANCE, check
from edgerecover.tasks.measure import measure_of
from tests.pairs import measure_of_classes

GOLDEN_NK = np.array([[4.0, 0.0, -4.0], [0.1, 0.0, -3.0], [-2.0, 3.0, 0.0]], np.float32)
SPREAD = GOLDEN_NK.std()


def checked(answers_NK, precision=Precision.FP32, golden_precision=Precision.FP32):
    return check(
        np.asarray(answers_NK, np.float32), GOLDEN_NK, None, measure_of_classes(3), precision, golden_precision
    )


def test_the_same_answers_pass():
    found = checked(GOLDEN_NK)
    assert (found.num_images, found.same_decisions, found.largest_difference) == (3, 3, 0.0)
    assert found.passed


@pytest.mark.parametrize("precision", list(Precision))
def test_the_tolerance_is_that_of_the_precision(precision):
    for factor, passes in ((0.9, True), (1.1, False)):
        answers_NK = GOLDEN_NK.copy()
        answers_NK[0, 0] += factor * TOLERANCE[precision] * SPREAD
        assert checked(answers_NK, precision, precision).passed is passes


def test_another_precision_is_judged_by_clear_decisions():
    far_NK = GOLDEN_NK * 2
    assert checked(far_NK, Precision.INT8).passed
    swapped_NK = GOLDEN_NK.copy()
    swapped_NK[1, :2] = swapped_NK[1, 1::-1]  # 0.1 apart: less than int8 can tell
    found = checked(swapped_NK, Precision.INT8)
    assert (found.same_decisions, found.too_close, found.passed) == (2, 1, True)
    swapped_NK = GOLDEN_NK.copy()
    swapped_NK[0] = swapped_NK[0, ::-1]
    assert not checked(swapped_NK, Precision.INT8).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", list(Precision))
def test_no_number_never_passes(value, precision):
    answers_NK = GOLDEN_NK.copy()
    answers_NK[1, 0] = value  # where the decision is too close to call
    found = checked(answers_NK, precision)
    assert not found.passed
    assert np.isfinite(found.largest_difference)


@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=3, max_size=3))
def test_counts_never_exceed_the_images(answers_NK):
    found = checked(answers_NK)
    assert 0 <= found.same_decisions + found.too_close <= found.num_images
    assert found.passed <= (found.same_decisions + found.too_close == found.num_images)


TWO = OutputSpec.several(
    (
        OutputPart("digit", OutputSpec(TaskKind.ONE_LABEL, (3,)), 99.0),
        OutputPart("age", OutputSpec(TaskKind.REGRESSION, (1,))),
    )
)
GOLDEN_ND = np.concatenate([GOLDEN_NK, np.array([[30.0], [50.0], [40.0]], np.float32)], 1)


def test_every_output_must_be_the_same():
    measure = measure_of(TWO)
    found = check(GOLDEN_ND, GOLDEN_ND, GOLDEN_ND, measure, Precision.FP32, Precision.FP32)
    assert (found.passed, found.same_decisions, found.teacher.value) == (True, 3, 1.0)
    off_ND = GOLDEN_ND.copy()
    off_ND[0, 3] = 50.0  # a hundredth of the weight
    for precision in Precision:
        assert not check(off_ND, GOLDEN_ND, None, measure, precision, Precision.FP32).passed
    close_ND = GOLDEN_ND.copy()
    close_ND[0, 3] += 0.01 * GOLDEN_ND[:, 3].std()  # much, beside what logits vary by
    assert check(close_ND, GOLDEN_ND, None, measure, Precision.FP32, Precision.FP32).passed
