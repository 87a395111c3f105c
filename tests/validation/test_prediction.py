import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerecover.validation.prediction import (
    LARGEST_READING,
    NOTHING_IN_COMMON,
    SMALLEST_READING,
    Calibration,
    Reading,
    predict,
    reading,
    shipped_calibration,
)

TEACHER_NK = np.random.default_rng(0).normal(0, 3, (256, 10)).astype(np.float32)
NOISE_NK = np.random.default_rng(1).normal(0, 3, (256, 10)).astype(np.float32)
READINGS = st.floats(SMALLEST_READING, LARGEST_READING)
SHIPPED = shipped_calibration()
CURVE = Calibration(
    "", intercept=0.0, slope=0.25, below=1.0, above=2.0, margin=0.01, coverage=0.9, num_students=9,
    networks=("a", "b"), most_classes=100, fewest_images=64,
)  # fmt: skip


def test_the_teacher_itself_keeps_everything():
    assert reading(TEACHER_NK, TEACHER_NK).value == LARGEST_READING
    predicted = predict(TEACHER_NK, TEACHER_NK)
    assert predicted.kept > 0.99
    assert 0.9 < predicted.low < predicted.kept <= predicted.high == 1.0


@pytest.mark.parametrize("relative", [0.1, 0.5, 1.0])
def test_a_reading_is_the_ratio_of_signal_to_disturbance_in_decibels(relative):
    # Noise as large as the logits also hides the scale: 1 + its square at infinitely many images.
    found = reading(TEACHER_NK + relative * NOISE_NK, TEACHER_NK)
    assert found.value == pytest.approx(-20 * math.log10(relative), abs=0.5)


def test_what_is_the_same_for_every_image_is_no_signal():
    profile_K = np.linspace(0, 30, 10, dtype=np.float32)
    teacher_NK = TEACHER_NK + profile_K
    plain = reading(TEACHER_NK + NOISE_NK, TEACHER_NK).value
    assert reading(teacher_NK + NOISE_NK, teacher_NK).value == pytest.approx(plain, abs=0.5)
    assert reading(np.broadcast_to(profile_K, teacher_NK.shape), teacher_NK) == NOTHING_IN_COMMON


def test_a_class_that_the_student_prefers_on_every_image_disturbs():
    biased_NK = TEACHER_NK + np.eye(10, dtype=np.float32)[3] * 20
    assert reading(biased_NK, TEACHER_NK).value < 0


def test_a_reading_does_not_depend_on_scale_nor_on_what_is_added_to_an_image_s_logits():
    student_NK = TEACHER_NK + NOISE_NK
    shifted_NK = 7 * student_NK + np.arange(256, dtype=np.float32)[:, None]
    assert reading(shifted_NK, TEACHER_NK).value == pytest.approx(reading(student_NK, TEACHER_NK).value, abs=1e-3)


def test_the_standard_error_is_that_of_samples():
    samples = np.random.default_rng(2).integers(0, 256, (200, 64))
    student_NK = TEACHER_NK + 0.3 * NOISE_NK
    found = [reading(student_NK[chosen], TEACHER_NK[chosen]) for chosen in samples]
    told = np.mean([each.standard_error for each in found])
    assert told == pytest.approx(np.std([each.value for each in found]), rel=0.25)


def test_more_noise_predicts_less_down_to_chance():
    kept = [predict(TEACHER_NK + noise * NOISE_NK, TEACHER_NK).kept for noise in (0, 0.3, 1, 3, 100)]
    assert kept == sorted(kept, reverse=True)
    assert 0.1 <= kept[-1] < 0.2


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_image_without_finite_logits_counts_against_the_student(wrong):
    broken_NK = TEACHER_NK.copy()
    broken_NK[:64, 3] = wrong
    assert NOTHING_IN_COMMON.value < reading(broken_NK, TEACHER_NK).value < LARGEST_READING
    assert predict(np.full_like(TEACHER_NK, wrong), TEACHER_NK).kept < 0.2


def test_an_image_without_finite_logits_of_the_teacher_counts_for_nobody():
    broken_NK = TEACHER_NK.copy()
    broken_NK[:64, 3] = np.nan
    student_NK = TEACHER_NK + NOISE_NK
    assert reading(student_NK, broken_NK) == reading(student_NK[64:], TEACHER_NK[64:])
    assert reading(student_NK, np.full_like(TEACHER_NK, np.nan)) == NOTHING_IN_COMMON


def test_a_student_that_says_the_same_of_everything_or_the_opposite_reads_nothing():
    assert reading(np.zeros_like(TEACHER_NK), TEACHER_NK) == NOTHING_IN_COMMON
    assert reading(-TEACHER_NK, TEACHER_NK) == NOTHING_IN_COMMON
    assert reading(TEACHER_NK[:1], TEACHER_NK[:1]) == NOTHING_IN_COMMON


@given(READINGS, READINGS, st.integers(2, 1000))
def test_a_higher_reading_never_predicts_less_and_all_lie_between_chance_and_1(a, b, num_classes):
    low, high = (SHIPPED.kept(value, num_classes) for value in sorted((a, b)))
    assert 1 / num_classes <= low <= high <= 1


@given(READINGS, st.floats(0, 5), st.integers(2, 1000))
def test_an_interval_holds_what_is_predicted_and_is_wider_for_fewer_images(value, standard_error, num_classes):
    low, high = SHIPPED.interval(Reading(value, 0.0), num_classes)
    assert 0 <= low <= SHIPPED.kept(value, num_classes) <= high <= 1
    wider_low, wider_high = SHIPPED.interval(Reading(value, standard_error), num_classes)
    assert wider_low <= low
    assert wider_high >= high


def test_an_interval_reaches_as_far_down_and_up_as_was_measured():
    low, high = CURVE.interval(Reading(4.0, 0.0), 100)
    share = [0.01 + 0.99 / (1 + math.exp(-log_odds)) for log_odds in (0.0, 3.0)]
    assert (low, high) == pytest.approx((share[0] - 0.01, share[1] + 0.01))
    assert CURVE.interval(Reading(-20.0, 0.0), 100)[0] == 0.0


def test_networks_unlike_those_measured_are_doubted():
    assert CURVE.doubt(64, 100) is None
    assert "101 classes" in CURVE.doubt(64, 101)
    assert "63 images" in CURVE.doubt(63, 10)
    assert predict(TEACHER_NK[:8], TEACHER_NK[:8]).doubt is not None


def test_the_shipped_interval_held_on_networks_that_it_was_not_made_from():
    assert SHIPPED.slope > 0
    assert SHIPPED.coverage >= 0.9
    assert len(SHIPPED.networks) > 5
    assert SHIPPED.num_students > 100


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="expected"):
        predict(TEACHER_NK, TEACHER_NK[:5])
