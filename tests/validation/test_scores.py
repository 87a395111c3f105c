from dataclasses import astuple

import numpy as np
import pytest

from edgerecover.validation.parity import compare
from edgerecover.validation.prediction import reading
from edgerecover.validation.scores import Scale, as_logits, on_scale, scale_of
from tests.pairs import measure_of_classes

LOGITS = np.random.default_rng(0).standard_normal((16, 10)).astype(np.float32) * 3


@pytest.mark.parametrize("scale", list(Scale))
def test_scales_are_told_apart(scale):
    assert scale_of(on_scale(LOGITS, scale)) is scale
    assert scale_of(on_scale(LOGITS, scale).astype(np.float16)) is scale


@pytest.mark.parametrize("scale", list(Scale))
def test_margins_and_decisions_survive(scale):
    student = LOGITS + np.random.default_rng(1).standard_normal(LOGITS.shape).astype(np.float32)
    scores = on_scale(student, scale)
    assert (scores.argmax(1) == student.argmax(1)).all()
    assert reading(as_logits(scores), LOGITS).value == pytest.approx(reading(student, LOGITS).value, rel=1e-3)


def test_what_is_not_finite_is_left_alone():
    broken = on_scale(LOGITS, Scale.PROBABILITIES)
    broken[0, 0] = np.nan
    assert scale_of(broken) is Scale.LOGITS


def test_a_probability_of_zero_has_a_finite_logarithm():
    scores = np.eye(3, dtype=np.float32)
    assert np.isfinite(as_logits(scores)).all()


@pytest.mark.parametrize("num_rows", [1, 5, 16])
def test_it_makes_no_difference_how_many_images_are_taken_at_a_time(monkeypatch, num_rows):
    student = LOGITS + np.random.default_rng(1).standard_normal(LOGITS.shape).astype(np.float32)
    broken = on_scale(LOGITS, Scale.PROBABILITIES)
    broken[-1] *= 2
    whole = compare(LOGITS, student, measure_of_classes(LOGITS.shape[1])), reading(student, LOGITS).value
    assert whole[0].logit_scale == pytest.approx(LOGITS.std())
    assert whole[0].mean_abs == pytest.approx(np.abs(LOGITS - student).mean())
    monkeypatch.setattr("edgerecover.validation.scores._BLOCK_ROWS", num_rows)
    parity = compare(LOGITS, student, measure_of_classes(LOGITS.shape[1]))
    assert astuple(parity)[:5] == pytest.approx(astuple(whole[0])[:5])  # the others are of several outputs
    assert reading(student, LOGITS).value == pytest.approx(whole[1])
    assert scale_of(broken) is Scale.LOGITS
    assert [scale_of(on_scale(LOGITS, scale)) for scale in Scale] == list(Scale)
