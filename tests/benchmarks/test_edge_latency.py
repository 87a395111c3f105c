"""What the benchmark makes of its measurements; the measurements themselves take minutes."""

import edge_latency
import pytest

from edgerecover.artifacts import Host, to_json
from edgerecover.artifacts.latency import Latency


def latency(median_ms):
    samples_ms = (median_ms,) * 60
    return to_json(Latency("one", "ort", "CPU", {}, 1, 1, Host("x86_64", "EPYC", 2, "Linux"), False, (), samples_ms,
                           1.0, 0, 1, (10,) * 6))  # fmt: skip


def agreed(hits):
    return {"agreement": {"hits": hits, "total": 200}, "real_hits": 90, "real_images": 100}


def found(decisions):
    medians = {"dense fp32 onnxruntime": 8.0, "half fp32 onnxruntime": 4.0, "half int8 onnxruntime": 1.0,
               "half fp32 torch eager": 0.5}  # fmt: skip
    return {
        "macs_kept": 0.5,
        "variants": {},
        "latency": {name: latency(median_ms) for name, median_ms in medians.items()},
        "decisions": decisions,
        "engines": {},
    }


def test_random_weights_have_nothing_to_lose_and_pytorch_is_no_file():
    table = edge_latency._table("resnet18", found({}))
    assert "Fastest passing: half int8 onnxruntime, 8.00× (8.00–8.00); goal 5.5×: met." in table


@pytest.mark.parametrize(
    ("hits", "best", "met"),
    [(158, "half int8 onnxruntime, 8.00×", "met"), (157, "half fp32 onnxruntime, 2.00×", "NOT met")],
)
def test_what_loses_more_than_a_point_of_agreement_does_not_pass(hits, best, met):
    kinds = {"dense fp32 onnxruntime": 200, "half fp32 onnxruntime": 160, "half int8 onnxruntime": hits}
    table = edge_latency._table("resnet56", found({kind: agreed(hits) for kind, hits in kinds.items()}))
    assert f"Fastest passing: {best}" in table
    assert f"goal 3×: {met}." in table
