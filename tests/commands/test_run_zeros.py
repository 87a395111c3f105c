"""From a pruned checkpoint to the gate: every zero is held, whatever it is a zero of, and counted in the file."""

import copy

import pytest
import torch

from edgerecover.artifacts import Descent, GateStatus, InputSpec
from edgerecover.commands.run import run
from edgerecover.config import load_profile, load_target
from edgerecover.models.build.architectures import build
from edgerecover.models.name.flags import ModelFlags
from edgerecover.stages.request import Request

NETWORKS = """
import torch
import torch.nn.functional as F
from torch import nn


class OwnConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3) / 8)

    def forward(self, x):
        return F.conv2d(x, self.kernel, padding=1)


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


def network(layer):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), layer, nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )


def own():
    return network(OwnConv())


def plain():
    return network(nn.Conv2d(8, 8, 3, padding=1))


def standardised():
    return network(Standardised(8, 8, 3))
"""


@pytest.fixture
def recover_pruned(tmp_path):
    """Recovers a network of NETWORKS after `prune` has been at it; gives the report, the student and its recovery."""
    (tmp_path / "nets.py").write_text(NETWORKS)
    profile = load_profile("smoke")
    sizes = {"num_train": 16, "num_calibration": 16, "num_held_back": 16, "batch_size": 16, "num_steps": 2}
    recovery = {"num_steps": 4, "batch_size": 16, "layerwise": True, "weight_decay": 1e-2, "fine_tuned": "recover"}
    quick = {"num_warmup": 1, "min_queries": 2, "min_duration_s": 0.0}
    profile = profile.model_copy(
        update={
            "synthesis": profile.synthesis.model_copy(update=sizes),
            "recovery": profile.recovery.model_copy(update=recovery),
            "latency": profile.latency.model_copy(update=quick),
        }
    )
    input = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)

    def recover_pruned(name, prune):
        torch.manual_seed(0)
        dense = build("nets.py:" + name, tmp_path, None, input).train()
        for _ in range(4):  # statistics of its own
            dense(torch.rand(32, 3, 8, 8) * 4 - 2)
        student = copy.deepcopy(dense)
        with torch.no_grad():
            prune(student)
        torch.save(dense.state_dict(), tmp_path / "dense.pt")
        torch.save(student.state_dict(), tmp_path / "pruned.pt")
        report = run(
            Request(
                tmp_path / "pruned.pt",
                load_target("onnx-generic"),
                profile,
                tmp_path / "out.bundle",
                tmp_path / "work",
                flags=ModelFlags(arch=f"{tmp_path / 'nets.py'}:{name}", input=input),
                teacher=tmp_path / "dense.pt",
            )
        )
        (kept,) = (gate for gate in report.gates if gate.name == "mask_kept")
        return report, kept

    return recover_pruned


def smallest_to_zero(weight):
    weight[weight.abs() <= weight.abs().median()] = 0


def test_zeros_of_a_layer_of_peoples_own_are_held(recover_pruned):
    report, kept = recover_pruned("own", lambda network: smallest_to_zero(network[3].kernel))
    assert (kept.status, kept.measured) == (GateStatus.PASS, 0)
    (own,) = (layer for layer in report.recovered_sparsity.layers if layer.name == "3.kernel")
    assert own.num_zeros == 288
    assert report.exported.num_weights - report.exported.num_nonzero >= 288


def test_channels_that_network_slimming_took_are_held(recover_pruned):
    def slim(network):
        for norm in (network[1], network[4]):
            norm.weight[:4] = 0
            norm.bias[:4] = 0

    report, kept = recover_pruned("plain", slim)
    assert kept.status is GateStatus.PASS
    assert report.recovered_sparsity.zero_channels == "8 of 16 batch norm channels are zero"
    assert report.student.pruned_to == "0.0 % zeros, 8 of 16 batch norm channels are zero"
    assert report.lineage.descent is Descent.COPIED
    assert not any("nothing was pruned" in warning for warning in report.warnings)


def test_zeros_that_do_not_reach_the_file_fail_with_the_cause(recover_pruned):
    report, kept = recover_pruned("standardised", lambda network: smallest_to_zero(network[3].weight))
    assert kept.status is GateStatus.FAIL
    assert kept.message.startswith("288 pruned weights of 3.weight are not zero in the exported file")
    assert "weight standardisation" in kept.message
    assert any("288 pruned weights of 3.weight are not zero where" in warning for warning in report.warnings)
