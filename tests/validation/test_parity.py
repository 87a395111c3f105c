import json
import math

import numpy as np
import pytest

from edgerecover.artifacts import to_json
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
