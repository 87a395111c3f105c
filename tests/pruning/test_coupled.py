"""Channels that go together are found in networks of every shape, once each, and the rest still computes."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.macs import count_macs
from edgerecover.models.pair.channels import match_channels
from edgerecover.pruning import coupled, prune_channels
from edgerecover.pruning.channels import MACS_TOLERANCE, ragged_layers

INPUT = InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3)


def normalised(conv):
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


class Bottleneck(nn.Module):
    """With a grouped convolution in the middle, as ResNeXt has it."""

    def __init__(self):
        super().__init__()
        self.stem = normalised(nn.Conv2d(3, 8, 3, padding=1))
        self.widen = normalised(nn.Conv2d(8, 128, 1))
        self.grouped = normalised(nn.Conv2d(128, 128, 3, padding=1, groups=4))
        self.project = normalised(nn.Conv2d(128, 64, 1))
        self.fc = nn.Linear(64, 5)

    def forward(self, x):
        x = F.relu(self.widen(F.relu(self.stem(x))))
        return self.fc(F.relu(self.project(F.relu(self.grouped(x)))).mean((2, 3)))


class Gated(nn.Module):
    """What one half says is multiplied by the other: channel 5 lives and dies with channel 5 + 32."""

    def __init__(self):
        super().__init__()
        self.both = nn.Conv2d(3, 64, 3)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        value, gate = self.both(x).chunk(2, 1)
        return self.fc((value * F.relu(gate)).mean((2, 3)))


class PartialAdd(nn.Module):
    """Blocks that grow, each adding its input to its first channels in place, as ReXNet does."""

    def __init__(self, num_blocks=12):
        super().__init__()
        widths = [16 + 8 * number for number in range(num_blocks + 1)]
        self.stem = normalised(nn.Conv2d(3, 16, 3, padding=1))
        self.blocks = nn.ModuleList(
            nn.Sequential(normalised(nn.Conv2d(before, 64, 1)), nn.ReLU(), normalised(nn.Conv2d(64, after, 1)))
            for before, after in itertools.pairwise(widths)
        )
        self.fc = nn.Linear(widths[-1], 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            grown = block(x)
            grown[:, : x.shape[1]] += x
            x = grown
        return self.fc(x.mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(32 + 32 * number, 32, 3, padding=1) for number in range(3))
        self.fc = nn.Linear(128, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return self.fc(x.mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = normalised(nn.Conv2d(3, 8, 3, padding=1))
        self.widen = normalised(nn.Conv2d(8, 96, 1))
        self.depthwise = normalised(nn.Conv2d(96, 96, 3, padding=1, groups=96))
        self.project = normalised(nn.Conv2d(96, 48, 1))
        self.fc = nn.Linear(48, 5)

    def forward(self, x):
        x = F.relu6(self.widen(F.relu6(self.stem(x))))
        return self.fc(self.project(F.relu6(self.depthwise(x))).mean((2, 3)))


def built(kind):
    torch.manual_seed(0)
    network = kind().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    return network


@pytest.mark.parametrize("kind", [Bottleneck, Gated, PartialAdd, Dense, Depthwise])
def test_half_of_the_macs_go_in_widths_of_eight(kind):
    network = built(kind)
    narrower = prune_channels(network, INPUT, 0.5)
    kept = count_macs(narrower, INPUT.shape) / count_macs(network, INPUT.shape)
    assert kept == pytest.approx(0.5, abs=MACS_TOLERANCE)
    assert ragged_layers(network, narrower) == {}


def test_each_group_of_a_convolution_loses_as_much():
    narrower = prune_channels(built(Bottleneck), INPUT, 0.5)
    assert narrower.grouped[0].groups == 4
    assert narrower.grouped[0].in_channels % 32 == narrower.grouped[0].out_channels % 32 == 0
    assert narrower.grouped[0].out_channels < 128
    assert narrower.stem[0].out_channels == 8  # narrower than two multiples


def test_which_channels_of_a_group_are_left_is_told_from_the_weights():
    network = built(Bottleneck)
    narrower = prune_channels(network, INPUT, 0.5)
    kept = match_channels(network, narrower, INPUT.shape).kept["grouped.0"]
    assert torch.equal(narrower.grouped[1].running_mean, network.grouped[1].running_mean[kept])
    assert all((kept // 32 == group).sum() == len(kept) // 4 for group in range(4))


def test_channels_are_followed_in_one_visit_each():
    """The walk of Torch-Pruning doubles with every block that adds its input to a part of its output."""
    torch.manual_seed(0)
    network = PartialAdd(num_blocks=24).eval()
    groups = coupled.find_groups(network, torch.rand(2, *INPUT.shape), {"fc"})
    assert sum(group.num_units for group in groups) > 24 * 64


def test_a_walk_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(coupled, "MAX_VISITS", 100)
    with pytest.raises(BadInputError, match="cannot be followed"):
        prune_channels(built(PartialAdd), INPUT, 0.5)


def test_the_weakest_units_go_first():
    network = built(Gated)
    with torch.no_grad():
        network.both.weight[8:32] *= 1e-3
        network.both.weight[40:] *= 1e-3
    narrower = prune_channels(network, INPUT, 0.75)
    assert torch.equal(narrower.both.weight, network.both.weight[[*range(8), *range(32, 40)]])
