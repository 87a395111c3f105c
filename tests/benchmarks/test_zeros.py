"""Where the benchmark puts its zeros, and how it judges; its races take minutes."""

import pytest
import torch
import zeros
from torch import nn

from edgerecover.artifacts import Host, InputSpec
from edgerecover.artifacts.latency import Latency

INPUT = InputSpec((3, 6, 6), (0.5,) * 3, (0.25,) * 3)


def latency(median_ms):
    samples_ms = (median_ms,) * 60
    return Latency("one", "ort", "CPU", {}, 1, 1, Host("x86_64", "EPYC", 2, "Linux"), False, (), samples_ms,
                   1.0, 0, 1, (10,) * 6)  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    def build(name):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Flatten(), nn.Linear(64, 8)
        return nn.Sequential(*layers).requires_grad_(False)

    monkeypatch.setattr(zeros, "built", build)


def test_the_same_share_of_zeros_stands_in_other_places(small):
    found = {
        pattern: [round(1 - float(layer.weight.count_nonzero()) / layer.weight.numel(), 2) for layer in network
                  if hasattr(layer, "weight")]
        for pattern, network in zeros.networks("small", 0.75, INPUT).items()
    }  # fmt: skip
    assert found == {
        "dense": [0, 0, 0, 0],
        "everywhere": [0.75, 0.75, 0.75, 0.75],
        "1x1": [0, 0, 0.75, 0.75],
        "1x1 in blocks": [0, 0, 0.75, 0.75],
        "2:4": [0, 0, 0.5, 0.5],
        "half the MACs": [0, 0, 0, 0],
    }


def test_blocks_are_of_four_output_channels(small):
    layer = zeros.networks("small", 0.75, INPUT)["1x1 in blocks"][2]
    blocks = (layer.weight == 0).flatten(1).view(4, 4, 8)
    assert torch.equal(blocks.all(1), blocks.any(1))


def test_the_goal_is_judged_against_the_fastest_dense_file(capsys):
    latencies = {
        "dense, onnxruntime": latency(10.0), "dense, mnn": latency(12.0), "1x1, mnn": latency(9.0),
        "1x1 in blocks, mnn": latency(6.0),
    }  # fmt: skip
    sizes = {"dense, onnxruntime": 100, "dense, mnn": 100, "1x1, mnn": 40, "1x1 in blocks, mnn": 30}
    zeros.show("net", 0.8, latencies, sizes)
    said = capsys.readouterr().out
    assert "fastest dense float32: dense, onnxruntime" in said
    assert "| 1x1, mnn | 0.90 (0.90–0.90) | 0.75 (0.75–0.75) | 0.40 |" in said
    assert "1x1, mnn: latency 0.90, goal 0.7: missed; size 0.40, goal 0.35: missed" in said
    assert "1x1 in blocks, mnn: latency 0.60, goal 0.7: met; size 0.30, goal 0.35: met" in said
