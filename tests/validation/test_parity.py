import json
import math

import numpy as np
import pytest

from edgerecover.artifacts import OutputPart, OutputSpec, Parity, TaskKind, from_json, to_json
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
