"""What the tests of the Python API share: a tiny dense network, pruned in memory, and one run on them."""

import copy

import pytest

import edgerecover

PROFILE = """
name = "tiny"
description = "As little as a run can do"
extends = "smoke"
[latency]
num_warmup = 1
min_queries = 5
min_duration_s = 0.01
"""
INPUT = {"input_shape": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}


def make_dense():
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip
        network.train()(torch.randn(64, 1, 8, 8))
    return network


def make_pruned(dense):
    import torch

    network = copy.deepcopy(dense)
    with torch.no_grad():
        for layer in (network[3], network[7]):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
    return network


def state_of(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def dense():
    return make_dense()


@pytest.fixture
def pruned(dense):
    return make_pruned(dense)


@pytest.fixture(scope="session")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "tiny.toml"
    path.write_text(PROFILE)
    return path


@pytest.fixture(scope="session")
def run(profile):
    """Student and teacher in training mode, their weights before, and the report of their run."""
    import numpy as np
    import torch

    teacher = make_dense()
    student = make_pruned(teacher)
    before = state_of(student), state_of(teacher)
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), np.uint8)
    report = edgerecover.recover(
        student, teacher, target="onnx-generic", profile=profile, precision="fp32", **INPUT,
        eval_data=(torch.from_numpy(images), [0, 1, 2, 0, 1, 2]), classes=("a", "b", "c"), progress=False,
    )  # fmt: skip
    return student, teacher, before, report
