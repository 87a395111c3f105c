import json
import math

import numpy as np
import pytest

from edgerecover.artifacts import OutputPart, OutputSpec, Parity, TaskKind, from_json, to_json
from edgerecover.report.words import parity as parity_words
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.parity import compare
from tests.pairs import measure_of_classes

LOGITS = np.random.default_rng(0).standard_normal((50, 10)).astype(np.float32)
MEASURE = measure_of_classes(LOGITS.shape[1])


def test_differences_are_measured_on_the_scale_of_the_logits():
    shifted = LOGITS.copy()
    shifted[3, 4] += 0.5
    parity = compare(LOGITS, shifted, MEASURE)
    assert parity.num_images == 50
    assert parity.max_abs == pytest.approx(0.5, abs=1e-6)
    assert parity.mean_abs == pytest.approx(0.5 / 500, rel=1e-5)
    assert parity.logit_scale == pytest.approx(LOGITS.std(), rel=1e-5)
    assert parity.relative == pytest.approx(0.5 / LOGITS.std(), rel=1e-5)


def test_equal_files_agree_wholly():
    parity = compare(LOGITS, LOGITS, MEASURE)
    assert (parity.max_abs, parity.mean_abs, parity.top1_agreement) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sides", ["torch", "onnx", "both"])
def test_what_is_not_finite_is_a_huge_difference_that_json_holds(value, sides):
    broken = LOGITS.copy()
    broken[0, 0] = value
    parity = compare(broken if sides != "onnx" else LOGITS, broken if sides != "torch" else LOGITS, MEASURE)
    assert parity.max_abs > 1e38
    assert parity.relative > 1e30
    json.dumps(to_json(parity), allow_nan=False)


def test_constant_logits_leave_no_scale():
    assert compare(np.zeros((2, 3)), np.ones((2, 3)), measure_of_classes(3)).relative == math.inf


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        compare(LOGITS[:0], LOGITS[:0], MEASURE)


def test_boxes_and_scores_of_a_detector_have_units_of_their_own():
    """A score that is off by two is nothing beside pixels, and much beside other scores."""
    output = OutputSpec(TaskKind.DETECTION, (30, 7), input_sides=(64, 64))
    rng = np.random.default_rng(0)
    torch_NAV = np.concatenate([rng.uniform(1, 64, (4, 30, 4)), rng.normal(size=(4, 30, 3))], 2).astype(np.float32)
    onnx_NAV = torch_NAV.copy()
    onnx_NAV[0, 0, 1] += 0.25
    onnx_NAV[1, 2, 5] += 2
    parity = compare(torch_NAV.reshape(4, -1), onnx_NAV.reshape(4, -1), measure_of(output))
    boxes, scores = parity.by_quantity["boxes"], parity.by_quantity["scores"]
    assert (boxes.max_abs, scores.max_abs) == pytest.approx((0.25, 2), rel=1e-5)
    assert (boxes.deviation, scores.deviation) == pytest.approx((torch_NAV[..., :4].std(), torch_NAV[..., 4:].std()))
    assert parity.relative < 0.2 < 1 < scores.relative
    assert from_json(Parity, to_json(parity)) == parity
    assert compare(LOGITS, LOGITS, MEASURE).by_quantity == {}
    told = parity_words(parity, measure_of(output).words)
    assert "boxes differ by at most 2.5e-01 px (standard deviation" in told
    assert "; scores differ by at most 2.0e+00 (standard deviation 0." in told


def test_of_several_outputs_the_worst_counts():
    age = OutputSpec(TaskKind.REGRESSION, (1,))
    digit = OutputSpec(TaskKind.ONE_LABEL, (10,))
    measure = measure_of(OutputSpec.several((OutputPart("digit", digit), OutputPart("age", age, 0.01))))
    torch_ND = np.concatenate([LOGITS, 1000 + 10 * LOGITS[:, :1]], 1)
    onnx_ND = torch_ND.copy()
    onnx_ND[0, :10] += 0.1
    onnx_ND[1, 10] += 5
    parity = compare(torch_ND, onnx_ND, measure)
    assert set(parity.by_output) == {"digit", "age"}
    assert parity.relative == parity.by_output["age"].relative == pytest.approx(0.5 / LOGITS[:, 0].std(), rel=1e-2)
    assert parity.by_output["digit"].relative == pytest.approx(0.1 / LOGITS.std(), rel=1e-2)
    assert parity.top1_agreement == parity.by_output["age"].top1_agreement < 1
    assert from_json(Parity, to_json(parity)) == parity
