"""Channel pruning makes the layers narrower by the MACs asked for, and never breaks a network silently."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.config import load_target
from edgerecover.demo.network import digits_net
from edgerecover.errors import BadInputError, MissingError
from edgerecover.models.network.macs import count_macs
from edgerecover.pruning import Pruning, multiple_for, prune, prune_channels, pruning_from_flags
from edgerecover.pruning.channels import MACS_TOLERANCE

INPUT = InputSpec((1, 8, 8), (0.0,), (1.0,))


class PaddedShortcut(nn.Module):
    """A shortcut without weights, as CIFAR ResNets have it: stride, and zeros for the channels that are missing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 32, 3, 2, padding=1)
        self.conv2 = nn.Conv2d(32, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.conv2(F.relu(self.conv1(x)))
        return self.fc(F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))).mean((2, 3)))


class Rigid(nn.Module):
    """Every width is written into the forward pass."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.conv(x).view(len(x), 8, 36).mean(2))


class AnchorHead(nn.Module):
    """Two scales; of each, a head splits its channels into anchors, which move among the places."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, 2, padding=1)
        self.fine, self.coarse = nn.Conv2d(16, 2 * 7, 1), nn.Conv2d(32, 2 * 7, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        maps = self.fine(x), self.coarse(F.relu(self.down(x)))
        split = (one.view(len(one), 2, 7, *one.shape[2:]).permute(0, 1, 3, 4, 2) for one in maps)
        return torch.cat([one.reshape(len(one), -1, 7) for one in split], 1)


class TwoHeads(nn.Module):
    """It returns a tuple; the layer that was made last is one of two that give outputs."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, padding=1)
        self.kind, self.age = nn.Linear(32, 5), nn.Linear(32, 1)

    def forward(self, x):
        pooled = F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3))
        return self.kind(pooled), self.age(pooled)


def built(kind):
    torch.manual_seed(0)
    return kind().eval()


def test_heads_that_mix_channels_with_places_keep_their_outputs_and_the_rest_is_pruned():
    network = built(AnchorHead)
    narrower = prune_channels(network, INPUT, 0.5)
    removed = 1 - count_macs(narrower, INPUT.shape) / count_macs(network, INPUT.shape)
    assert removed == pytest.approx(0.5, abs=MACS_TOLERANCE)
    assert narrower.fine.out_channels == narrower.coarse.out_channels == 14
    assert narrower.stem.out_channels < 16
    assert narrower.down.out_channels < 32
    assert narrower(torch.rand(3, *INPUT.shape)).shape == (3, 80 * 2, 7)


@pytest.mark.parametrize("roughly", [False, True])
def test_every_head_of_several_outputs_keeps_its_numbers(roughly):
    network = built(TwoHeads)
    narrower = prune_channels(network, INPUT, 0.7, roughly=roughly)
    assert [tuple(output.shape) for output in narrower(torch.rand(3, *INPUT.shape))] == [(3, 5), (3, 1)]
    assert narrower.conv2.out_channels < 32


@pytest.mark.parametrize("macs_removed", [0.3, 0.5, 0.7])
def test_the_fraction_of_macs_asked_for(macs_removed):
    network = built(digits_net)
    before = copy.deepcopy(network.state_dict())
    narrower = prune_channels(network, INPUT, macs_removed)
    removed = 1 - count_macs(narrower, INPUT.shape) / count_macs(network, INPUT.shape)
    assert removed == pytest.approx(macs_removed, abs=MACS_TOLERANCE)
    assert narrower.fc.out_features == 10
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_widths_are_multiples_and_what_is_not_is_named():
    network = nn.Sequential(
        nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 5)
    ).eval()
    eights = prune(network, Pruning("channel", 0.5), INPUT)
    assert [eights.network[0].out_channels % 8, eights.network[2].out_channels % 8] == [0, 0]
    assert eights.notes == ()
    ragged = prune(built(digits_net), Pruning("channel", 0.5), INPUT, 32)
    assert "not a multiple of 32" in ragged.notes[0]


@pytest.mark.parametrize(("target", "multiple"), [("onnx-generic", 8), ("x86-avx512-vnni", 16), ("jetson-nano", 8)])
def test_a_target_says_how_many_channels_its_kernels_take(target, multiple):
    assert multiple_for(load_target(target)) == multiple


def test_behind_a_padded_shortcut_only_inner_widths_shrink():
    network = built(PaddedShortcut)
    narrower = prune_channels(network, INPUT, 0.5)
    assert (narrower.stem.out_channels, narrower.conv2.out_channels) == (8, 16)
    assert narrower.conv1.out_channels == narrower.conv2.in_channels < 32


def test_a_network_that_cannot_lose_channels_is_refused():
    with pytest.raises(BadInputError, match="without breaking it"):
        prune_channels(built(Rigid), INPUT, 0.5)


@pytest.mark.parametrize(
    ("network", "culprit"),
    [
        (torchvision.models.SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=3), "LayerNorm"),
        (nn.TransformerEncoderLayer(8, 2, 16), "MultiheadAttention"),
    ],
    ids=["swin", "attention"],
)
def test_a_network_whose_channels_cannot_be_followed_is_refused_at_once(network, culprit, monkeypatch):
    """Following the windows of a Swin transformer took 24 GB."""
    monkeypatch.setattr("edgerecover.pruning.channels.find_groups", lambda *_: pytest.fail("it was tried"))
    with pytest.raises(BadInputError, match=culprit):
        prune_channels(network, INPUT, 0.5, roughly=True)


def test_a_fraction_out_of_reach_names_what_can_be_reached():
    with pytest.raises(BadInputError, match="cannot be reached"):
        prune_channels(built(PaddedShortcut), INPUT, 0.99)


def test_without_torch_pruning_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingError) as caught:
        prune_channels(built(digits_net), INPUT, 0.5)
    assert "pip install" in caught.value.hint


def test_what_flags_ask():
    assert pruning_from_flags(None, None) is None
    assert pruning_from_flags(None, 0.75) == Pruning("unstructured", 0.75)
    assert pruning_from_flags("2:4", None) == Pruning("2:4", 0.5)
    for pattern, sparsity in (("channel", None), ("layerwise", 1.0), ("2:4", 0.75)):
        with pytest.raises(BadInputError, match="sparsity"):
            pruning_from_flags(pattern, sparsity)


def test_channels_need_the_input():
    with pytest.raises(BadInputError, match="input"):
        prune(built(digits_net), Pruning("channel", 0.5), None)
