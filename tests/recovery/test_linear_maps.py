import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from edgerecover.recovery.linear_maps import (
    COMPUTED,
    NO_LINEAR_MAP,
    can_be_set,
    layer_of,
    linear_maps_of,
    run_until,
    set_weight,
)
from edgerecover.recovery.patches import Places, rows_of, weight_of
from tests.conftest import vit


def swin():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.SwinTransformer([4, 4], 8, [2, 1], [2, 2], [2, 2], num_classes=4)
    return network.eval().requires_grad_(False)


IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def map_of(network, weight):
    return next(found for found in linear_maps_of(network, IMAGES[:2]).found if found.weight == weight)


def test_a_transformers_maps_come_in_the_order_of_the_forward():
    names = [found.weight for found in linear_maps_of(vit(), IMAGES[:2]).found]
    block = "encoder.layers.encoder_layer_{}."
    inside = ("self_attention.in_proj_weight", "self_attention.out_proj.weight", "mlp.0.weight", "mlp.3.weight")
    expected = [block.format(number) + name for number in range(2) for name in inside]
    assert names == ["conv_proj.weight", *expected, "heads.head.weight"]


def test_every_weight_matrix_of_swin_is_a_map():
    network = swin()
    matrices = {name for name, value in network.named_parameters() if value.dim() > 1 and "table" not in name}
    assert {found.weight for found in linear_maps_of(network, IMAGES[:2]).found} == matrices


@pytest.mark.parametrize("network", [vit(), swin()], ids=["vit", "swin"])
def test_what_leaves_a_map_is_its_weight_times_what_enters(network):
    for found in linear_maps_of(network, IMAGES[:2]).found:
        call, outputs = run_until(network, found, IMAGES)
        weight = network.get_parameter(found.weight)
        if weight.dim() == 2:
            expected = call.inputs @ weight.T + (network.get_parameter(found.bias) if found.bias else 0)
            torch.testing.assert_close(outputs, expected)


def test_the_last_projection_sees_the_heads_outputs():
    network = vit()
    name = "encoder.layers.encoder_layer_0.self_attention"
    call, outputs = run_until(network, map_of(network, f"{name}.out_proj.weight"), IMAGES)
    seen = []
    network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    network(IMAGES)
    assert not torch.equal(outputs, call.inputs)
    torch.testing.assert_close(outputs.reshape(17, 5, 16).transpose(0, 1), seen[0])  # the sequence comes first inside


@pytest.mark.parametrize("network", [vit(), swin()], ids=["vit", "swin"])
def test_the_network_is_as_before(network):
    before = copy.deepcopy(network.state_dict())
    for found in linear_maps_of(network, IMAGES[:2]).found:
        run_until(network, found, IMAGES)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


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

    maps = linear_maps_of(Crossed().eval(), IMAGES[:2])
    assert [found.weight for found in maps.found] == ["stem.weight", "attention.out_proj.weight"]
    assert maps.left_out == {"twice.weight": "used 2 times", "attention.in_proj_weight": COMPUTED}


def test_attention_that_is_called_by_keyword():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True, bias=False)

        def forward(self, images):
            x = images.flatten(1, 2)
            return self.attention(query=x, key=x, value=x)[0].mean(1)

    network = Named().eval().requires_grad_(False)
    first, last = linear_maps_of(network, IMAGES[:2]).found
    assert (first.bias, last.bias) == (None, None)
    call, outputs = run_until(network, first, IMAGES)
    assert torch.equal(call.inputs, IMAGES.flatten(1, 2).transpose(0, 1))  # attention puts the sequence first
    assert outputs.shape == (48, 5, 48)


def test_an_encoder_whose_fused_forward_hides_its_layers():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    network = nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoder(layer, 1)).eval().requires_grad_(False)
    ends = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    assert [found.weight for found in linear_maps_of(network, IMAGES[:2]).found] == [
        f"1.layers.0.{end}" for end in ends
    ]


# --- networks of people's own ------------------------------------------------------------------------------------


class Own(nn.Module):
    """Runs a function of a network that has one kernel or matrix."""

    def __init__(self, shape, forward, **modules):
        super().__init__()
        self.kernel = nn.Parameter(0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        self.offset = nn.Parameter(torch.randn(shape[0], generator=torch.Generator().manual_seed(2)))
        self.register_buffer("ones", torch.ones(shape))
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)
        self.eval().requires_grad_(False)

    def forward(self, images):
        return self.run(self, images)


def conv(net, x, weight=None):
    return F.conv2d(x, net.kernel if weight is None else weight, net.offset, padding=1)


FOUND = {
    "by keyword": lambda net, x: F.conv2d(input=x, bias=net.offset, weight=net.kernel, stride=(2, 1)),
    "padded in the forward": lambda net, x: F.conv2d(F.pad(x, (0, 1, 2, 0)), net.kernel, net.offset, stride=2),
    "padded by reflection": lambda net, x: F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), net.kernel, net.offset),
    "same": lambda net, x: F.conv2d(x, net.kernel, net.offset, padding="same", dilation=2),
    "valid": lambda net, x: F.conv2d(x, net.kernel, net.offset, padding="valid"),
    "dilated": lambda net, x: F.conv2d(x, net.kernel, net.offset, 1, (3, 2), (2, 3)),
    "one image at a time": lambda net, x: F.conv2d(x[0], net.kernel, net.offset),
    "masked in place": lambda net, x: (net.kernel.data.mul_(net.ones), conv(net, x))[1],
    "cast to what it is": lambda net, x: conv(net, x, net.kernel.to(x.dtype)),
}
OF_OTHER_SHAPES = {
    "linear over an image's rows": ((5, 16), lambda net, x: F.linear(x, net.kernel, net.offset)),
    "sequences": ((6, 16, 3), lambda net, x: F.conv1d(x.flatten(1, 2)[:, :16], net.kernel, net.offset, 2, 1)),
    "volumes": ((4, 1, 3, 3, 2), lambda net, x: F.conv3d(x[:, None], net.kernel, net.offset, (1, 2, 1), (1, 0, 1))),
    "groups": ((6, 1, 3, 3), lambda net, x: F.conv2d(x, net.kernel, net.offset, padding=1, groups=3)),
    "transposed": ((3, 3, 3, 2), lambda net, x: F.conv_transpose2d(x, net.kernel, net.offset, (2, 3), (1, 0), (1, 2))),
    "transposed, dilated, in groups": (
        (3, 1, 3, 3),
        lambda net, x: F.conv_transpose2d(x, net.kernel, net.offset, 2, (3, 1), 1, 3, (2, 1)),
    ),
    "transposed sequences": ((3, 3, 4), lambda net, x: F.conv_transpose1d(x.flatten(2), net.kernel, net.offset, 2, 1)),
}


@pytest.mark.parametrize(
    ("shape", "forward"),
    [*(((4, 3, 3, 3), forward) for forward in FOUND.values()), *OF_OTHER_SHAPES.values()],
    ids=[*FOUND, *OF_OTHER_SHAPES],
)
def test_a_call_is_what_rows_times_samples_make(shape, forward):
    network = Own(shape, forward)
    maps = linear_maps_of(network, IMAGES[:2])
    assert maps.left_out == {}
    (found,) = maps.found
    assert (found.weight, found.bias, found.form) == ("kernel", "offset", "parameter")
    call, outputs = run_until(network, found, IMAGES)
    places = Places.of(call, outputs, len(IMAGES), torch.Generator().manual_seed(5))
    x_GMI, y_GMO = places.inputs_of(call).flatten(1, 2), places.outputs_of(call, outputs).flatten(1, 2)
    rows_GOI = rows_of(network.kernel, call)
    expected = x_GMI @ rows_GOI.transpose(1, 2) + network.offset.reshape(call.groups, 1, -1)
    torch.testing.assert_close(y_GMO, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(weight_of(rows_GOI, call), network.kernel)
    assert outputs.shape[call.channel_dim] == found.num_outputs


LEFT_OUT = {
    "used twice": (lambda net, x: conv(net, x) + conv(net, x.flip(2)), "used 2 times"),
    "standardised": (lambda net, x: conv(net, x, (net.kernel - net.kernel.mean()) / net.kernel.std()), COMPUTED),
    "rounded": (lambda net, x: conv(net, x, (8 * net.kernel).round() / 8), COMPUTED),
    "a part of it": (lambda net, x: F.conv2d(x, net.kernel[:2]), COMPUTED),
    "its norm is added": (lambda net, x: conv(net, x) + net.kernel.norm(), "also used in another way"),
    "its bias is computed": (
        lambda net, x: F.conv2d(x, net.kernel, 2 * net.offset),
        "its bias is computed in the forward pass",
    ),
    "its bias is shared": (
        lambda net, x: conv(net, x) + F.conv2d(x, net.ones, net.offset, padding=1),
        "its bias is used 2 times",
    ),
    "multiplied otherwise": (lambda net, x: x.flatten(1)[:, :9] @ net.kernel.flatten(1)[:, :9].T, NO_LINEAR_MAP),
    "not reached": (lambda net, x: x, "inference does not use it"),
}


@pytest.mark.parametrize(("forward", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_weight_that_is_left_out_has_a_reason(forward, reason):
    maps = linear_maps_of(Own((4, 3, 3, 3), forward), IMAGES[:2])
    assert maps.found == ()
    assert maps.left_out == {"kernel": reason}


def test_calls_in_torchscript_are_not_seen():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but people have it
        network = torch.jit.script(nn.Conv2d(3, 4, 3).eval().requires_grad_(False))
    assert linear_maps_of(network, IMAGES[:2]).left_out == {"weight": "inference does not use it"}


def test_a_forward_that_catches_everything_ends_all_the_same():
    def forward(net, x):
        try:
            return conv(net, x)
        except Exception:
            return x

    network = Own((4, 3, 3, 3), forward)
    (found,) = linear_maps_of(network, IMAGES[:2]).found
    assert run_until(network, found, IMAGES)[1].shape == (5, 4, 16, 16)


# --- weights that the forward computes ----------------------------------------------------------------------------


def test_a_mask_in_the_forward_is_the_parameter_under_it():
    network = Own((4, 3, 3, 3), lambda net, x: conv(net, x, net.kernel * net.ones))
    network.ones[1:3] = 0
    (found,) = linear_maps_of(network, IMAGES[:2]).found
    assert (found.weight, found.form) == ("kernel", "masked")
    assert can_be_set(network, found, IMAGES)
    assert set_weight(network, found, network.ones.clone(), IMAGES)
    assert torch.equal(network.kernel, network.ones)


def test_a_weight_that_is_clamped_is_not_what_it_is_set_to():
    network = Own((4, 3, 3, 3), lambda net, x: conv(net, x, net.kernel.clamp(-1.5, 1.5)))
    before = network.kernel.clone()
    (found,) = linear_maps_of(network, IMAGES[:2]).found
    assert not can_be_set(network, found, IMAGES)
    assert torch.equal(network.kernel, before)


def parametrised(normalise):
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")  # the old ones are deprecated, but people have them
        return nn.Sequential(normalise(nn.Conv2d(3, 4, 3, padding=1))).eval().requires_grad_(False)


def test_a_normalised_weight_can_be_set():
    network = parametrised(nn.utils.parametrizations.weight_norm)
    (found,) = linear_maps_of(network, IMAGES[:2]).found
    assert (layer_of(found.weight), found.weight, found.bias) == ("0", "0.parametrizations.weight.original1", "0.bias")
    before = network(IMAGES)
    assert can_be_set(network, found, IMAGES)
    torch.testing.assert_close(network(IMAGES), before)
    wanted = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)).relu()
    assert set_weight(network, found, wanted, IMAGES)
    torch.testing.assert_close(network[0].weight, wanted)
    assert torch.equal(network[0].parametrizations.weight.original1 == 0, wanted == 0)


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize(
    "normalise",
    [
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
        lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Twice()),
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
    ],
    ids=["spectral_norm", "orthogonal", "of one's own", "old weight_norm", "old spectral_norm"],
)
def test_a_normalised_weight_that_cannot_be_set_is_as_before(normalise):
    network = parametrised(normalise)
    before = copy.deepcopy(network.state_dict())
    maps = linear_maps_of(network, IMAGES[:2])
    assert all(not can_be_set(network, found, IMAGES) for found in maps.found)
    assert maps.found or COMPUTED in maps.left_out.values()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
