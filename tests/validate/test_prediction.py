import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.validate.prediction import LARGEST_READING, Calibration, predict, reading, shipped_calibration

TEACHER_NK = np.random.default_rng(0).normal(0, 3, (256, 10)).astype(np.float32)
NOISE_NK = np.random.default_rng(1).normal(0, 3, (256, 10)).astype(np.float32)
READINGS = st.floats(0, LARGEST_READING)
CURVE = shipped_calibration()


def test_the_teacher_itself_keeps_everything():
    assert reading(TEACHER_NK, TEACHER_NK) == pytest.approx(LARGEST_READING)
    predicted = predict(TEACHER_NK, TEACHER_NK)
    assert predicted.kept > 0.99
    assert predicted.low < predicted.kept <= predicted.high == 1.0


def test_a_reading_does_not_depend_on_scale_nor_on_what_is_added_to_an_image_s_logits():
    student_NK = TEACHER_NK + NOISE_NK
    shifted_NK = 7 * student_NK + np.arange(256, dtype=np.float32)[:, None]
    assert reading(shifted_NK, TEACHER_NK) == pytest.approx(reading(student_NK, TEACHER_NK), abs=1e-4)


def test_more_noise_predicts_less_down_to_chance():
    kept = [predict(TEACHER_NK + noise * NOISE_NK, TEACHER_NK).kept for noise in (0, 0.3, 1, 3, 100)]
    assert kept == sorted(kept, reverse=True)
    assert 0.1 <= kept[-1] < 0.2


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_image_without_finite_logits_counts_against_the_student(wrong):
    broken_NK = TEACHER_NK.copy()
    broken_NK[:64, 3] = wrong
    assert 0 < reading(broken_NK, TEACHER_NK) < reading(TEACHER_NK, TEACHER_NK)
    assert predict(np.full_like(TEACHER_NK, wrong), TEACHER_NK).kept < 0.2


def test_an_image_without_finite_logits_of_the_teacher_counts_for_nobody():
    broken_NK = TEACHER_NK.copy()
    broken_NK[:64, 3] = np.nan
    student_NK = TEACHER_NK + NOISE_NK
    assert reading(student_NK, broken_NK) == reading(student_NK[64:], TEACHER_NK[64:])
    assert reading(student_NK, np.full_like(TEACHER_NK, np.nan)) == 0


def test_a_student_that_says_the_same_of_everything_or_the_opposite_reads_nothing():
    assert reading(np.zeros_like(TEACHER_NK), TEACHER_NK) == 0
    assert reading(-TEACHER_NK, TEACHER_NK) == 0


@given(READINGS, READINGS, st.integers(2, 1000))
def test_a_higher_reading_never_predicts_less_and_all_lie_between_chance_and_1(a, b, num_classes):
    low, high = (CURVE.kept(value, num_classes) for value in sorted((a, b)))
    assert 1 / num_classes <= low <= high <= 1


def test_the_shipped_curve_rises_and_states_errors_that_were_measured():
    assert CURVE.slope > 0
    assert 0 < CURVE.error_little_lost < 0.1
    assert 0 < CURVE.error_much_lost < 0.3
    assert len(CURVE.networks) > 1
    assert CURVE.num_students > 20


def test_the_error_is_that_of_predictions_alike():
    curve = Calibration(
        "", -1.0, 2.0, error_little_lost=0.02, error_much_lost=0.07, num_students=9, networks=("a", "b")
    )
    assert curve.expected_error(0.8) == 0.02
    assert curve.expected_error(0.79) == 0.07


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="expected"):
        predict(TEACHER_NK, TEACHER_NK[:5])
