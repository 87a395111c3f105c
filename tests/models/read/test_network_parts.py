"""Parts of one network, or several networks in one file."""

import pytest
import torch

from edgerecover.models.read.network_parts import join, parts_of
from edgerecover.models.read.torch_files import NoWeightsError
from edgerecover.models.read.wrappings import find_weights

CONV = {"conv.weight": torch.ones(2, 1, 2, 2)}
LINEAR = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}


@pytest.mark.parametrize("names", [("backbone", "head"), ("encoder", "fc"), ("features", "arcface"), ("net_top", "x")])
def test_parts_have_the_names_of_parts(names):
    assert parts_of(dict(zip(names, (CONV, LINEAR), strict=True)), (), {}) == list(names)


@pytest.mark.parametrize(
    "names",
    [
        ("netG", "netD"), ("net_G", "net_D"), ("G_A", "D_A"), ("generator", "discriminator"), ("gen", "dis"),
        ("actor", "critic"), ("student", "teacher"), ("model_a", "model_b"), ("resnet18", "mobilenet"), ("rgb", "flow"),
        ("encoder", "student"),
    ],
)  # fmt: skip
def test_networks_of_different_layers_are_not_joined(names):
    networks = dict(zip(names, (CONV, LINEAR), strict=True))
    assert parts_of(networks, (), {}) == []
    with pytest.raises(NoWeightsError, match="several sets of weights") as error:
        find_weights(networks)
    assert "save the one you mean" in error.value.hint


def test_a_discriminator_beside_parts_is_left_out_and_named():
    found = find_weights({"encoder": CONV, "decoder": LINEAR, "discriminator": CONV | LINEAR})
    assert found.plain.state.keys() == {"encoder.conv.weight", "decoder.weight", "decoder.bias"}
    assert found.unused == ("'discriminator' beside them not used (3 tensors)",)


def test_the_hint_names_the_likeliest_network():
    files = {"dino_loss": {"center": torch.ones(1, 4)}, "student": CONV, "teacher": CONV}
    with pytest.raises(NoWeightsError) as error:
        find_weights(files)
    assert 'checkpoint["student"]' in error.value.hint


def test_parts_may_hold_whole_names():
    named = {"backbone": {"trunk.weight": torch.ones(2, 2)}, "head": {"fc.weight": torch.ones(3, 2)}}
    state, whole = join(named, ("backbone", "head"))
    assert state.keys() == {"backbone.trunk.weight", "head.fc.weight"}
    assert whole == {"backbone.trunk.weight": "trunk.weight", "head.fc.weight": "fc.weight"}
    same = {"backbone": {"weight": torch.ones(2, 2)}, "head": {"weight": torch.ones(3, 2)}}
    assert join(same, ("backbone", "head"))[1] == {}
