from pathlib import Path

import pytest

from edgerecover.config import Profile, ProfileGates, Target, parse
from edgerecover.validation.limits import limits_of

GATES = ProfileGates(min_agreement=0.8, min_parity_top1=0.99, max_parity_relative=0.01, max_accuracy_drop_points=3.0)
FACTS = {
    "machine": "aarch64",
    "runtime": "onnxruntime",
    "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "opset": 18,
    "precisions": ["fp32"],
    "sparse": "none",
}


def limits(**target_limits):
    facts = {key: {"value": value, "source": "for this test"} for key, value in (FACTS | target_limits).items()}
    target = parse(Target, {"name": "board", "description": "a board", **facts}, Path("board.toml"))
    return limits_of(Profile.model_construct(name="tiny", gates=GATES), target)


def test_limits_are_those_of_both_files():
    found = limits(max_p99_ms=33.3, max_file_mb=20.0)
    assert (found.profile, found.min_agreement, found.max_accuracy_drop_points) == ("tiny", 0.8, 3.0)
    assert (found.target, found.provider) == ("board", "CUDAExecutionProvider")
    assert (found.max_p99_ms, found.max_file_mb, found.max_memory_mb) == (33.3, 20.0, None)


@pytest.mark.parametrize("name", ["max_p99_ms", "max_file_mb", "max_memory_mb"])
def test_a_limit_that_the_target_does_not_state_is_none(name):
    assert getattr(limits(), name) is None
