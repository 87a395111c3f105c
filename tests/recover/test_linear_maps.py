import copy

import pytest
import torch
import torchvision
from torch import nn

from edgerecover.recover.linear_maps import linear_maps_of, run_until
from tests.conftest import vit


def swin():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.SwinTransformer([4, 4], 8, [2, 1], [2, 2], [2, 2], num_classes=4)
    return network.eval().requires_grad_(False)


IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def map_of(network, weight):
    return next(found for found in linear_maps_of(network, IMAGES[:1]) if found.weight == weight)


def test_a_transformers_maps_come_in_the_order_of_the_forward():
    names = [found.weight for found in linear_maps_of(vit(), IMAGES[:1])]
    block = "encoder.layers.encoder_layer_{}."
    inside = ("self_attention.in_proj_weight", "self_attention.out_proj.weight", "mlp.0.weight", "mlp.3.weight")
    expected = [block.format(number) + name for number in range(2) for name in inside]
    assert names == ["conv_proj.weight", *expected, "heads.head.weight"]


def test_every_weight_matrix_of_swin_is_a_map():
    network = swin()
    matrices = {name for name, value in network.named_parameters() if value.dim() > 1 and "table" not in name}
    assert {found.weight for found in linear_maps_of(network, IMAGES[:1])} == matrices


@pytest.mark.parametrize("network", [vit(), swin()], ids=["vit", "swin"])
def test_what_leaves_a_map_is_its_weight_times_what_enters(network):
    for found in linear_maps_of(network, IMAGES[:1]):
        inputs, outputs = run_until(network, found, IMAGES)
        weight = network.get_parameter(found.weight)
        if weight.dim() == 2:
            expected = inputs @ weight.T + network.get_parameter(found.bias) if found.bias else inputs @ weight.T
            torch.testing.assert_close(outputs, expected)


def test_the_last_projection_sees_the_heads_outputs():
    network = vit()
    name = "encoder.layers.encoder_layer_0.self_attention"
    inputs, outputs = run_until(network, map_of(network, f"{name}.out_proj.weight"), IMAGES)
    seen = []
    network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    network(IMAGES)
    torch.testing.assert_close(outputs, seen[0])
    assert not torch.allclose(inputs, outputs)


@pytest.mark.parametrize("network", [vit(), swin()], ids=["vit", "swin"])
def test_the_network_is_as_before(network):
    before = copy.deepcopy(network.state_dict())
    for found in linear_maps_of(network, IMAGES[:1]):
        run_until(network, found, IMAGES)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_network_is_as_before_when_its_forward_fails():
    network = vit()
    found = map_of(network, "encoder.layers.encoder_layer_0.self_attention.out_proj.weight")
    before = network.get_parameter(found.weight).clone()
    with pytest.raises(AssertionError):
        run_until(network, found, torch.zeros(1, 3, 5, 5))
    assert torch.equal(network.get_parameter(found.weight), before)


def test_attention_between_two_tensors_and_a_layer_that_runs_twice_are_left_out():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.twice = nn.Linear(16, 8), nn.Linear(8, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images):
            x = self.stem(images.flatten(1, 2))
            y = self.twice(self.twice(x))
            return self.attention(query=x, key=y, value=y)[0].mean(1)

    assert [found.weight for found in linear_maps_of(Crossed().eval(), IMAGES[:1])] == ["stem.weight"]


def test_attention_that_is_called_by_keyword():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True, bias=False)

        def forward(self, images):
            x = images.flatten(1, 2)
            return self.attention(query=x, key=x, value=x)[0].mean(1)

    network = Named().eval().requires_grad_(False)
    first, last = linear_maps_of(network, IMAGES[:1])
    assert (first.bias, last.bias) == (None, None)
    inputs, outputs = run_until(network, first, IMAGES)
    assert torch.equal(inputs, IMAGES.flatten(1, 2))
    assert outputs.shape == (5, 48, 48)
    assert run_until(network, last, IMAGES)[0].shape == inputs.shape
