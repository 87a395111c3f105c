"""Magnitude masks remove exactly the smallest weights, the same ones every time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgerecover.errors import BadInputError
from edgerecover.models.network.sparsity import measure
from edgerecover.pruning import (
    apply_masks,
    block_magnitude_masks,
    global_magnitude_masks,
    layerwise_magnitude_masks,
    prune,
    pruning_from_flags,
)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def magnitudes(module):
    return torch.cat([layer.weight.detach().abs().flatten() for layer in (module[0], module[3])])


@settings(max_examples=40, deadline=None)
@given(sparsity=st.floats(0.01, 0.99), seed=st.integers(0, 9), levels=st.sampled_from([None, 1, 3]))
def test_exactly_the_smallest_are_pruned(sparsity, seed, levels):
    module = network(seed)
    if levels:  # ties
        with torch.no_grad():
            for layer in (module[0], module[3]):
                layer.weight.copy_(layer.weight.sign() * (1 + (layer.weight.abs() * 50).floor() % levels))
    masks = global_magnitude_masks(module, sparsity)
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    num_pruned = int((~kept).sum())
    assert num_pruned == round(sparsity * 120)
    if 0 < num_pruned < 120:
        assert magnitudes(module)[~kept].max() <= magnitudes(module)[kept].min()


def test_masks_carry_names_and_shapes_and_are_applied_in_place():
    module = network()
    masks = global_magnitude_masks(module, 0.75)
    assert {name: mask.shape for name, mask in masks.items()} == {
        "0.weight": (4, 2, 3, 3),
        "3.weight": (3, 16),
    }
    before = module[0].weight.detach().clone()
    apply_masks(module, masks)
    assert measure(module).num_zeros == 90
    assert torch.equal(module[0].weight, before * masks["0.weight"])


def test_of_equal_magnitudes_the_first_go():
    module = nn.Linear(4, 2, bias=False)
    nn.init.ones_(module.weight)
    assert global_magnitude_masks(module, 0.5)["weight"].tolist() == [[False] * 4, [True] * 4]


def test_zeros_that_are_there_count_first():
    module = network()
    apply_masks(module, global_magnitude_masks(module, 0.5))
    zeros = {name: parameter == 0 for name, parameter in module.named_parameters()}
    masks = global_magnitude_masks(module, 0.75)
    assert all(bool((~mask)[zeros[name]].all()) for name, mask in masks.items())
    apply_masks(module, masks)
    assert measure(module).num_zeros == 90


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.5, 75.0, float("nan")])
def test_out_of_range(sparsity):
    with pytest.raises(BadInputError, match="out of range"):
        global_magnitude_masks(network(), sparsity)


def test_less_than_there_is_already():
    module = network()
    apply_masks(module, global_magnitude_masks(module, 0.75))
    with pytest.raises(BadInputError, match=r"0\.7500 of the weights are zero"):
        global_magnitude_masks(module, 0.5)


def test_nothing_to_prune():
    with pytest.raises(BadInputError, match="no Conv or Linear weights"):
        global_magnitude_masks(nn.ReLU(), 0.5)
    with pytest.raises(BadInputError, match="prunes none"):
        global_magnitude_masks(network(), 0.001)


@settings(max_examples=40)
@given(sparsity=st.floats(0.02, 0.98), seed=st.integers(0, 9))
def test_layerwise_takes_the_same_fraction_of_the_smallest_from_every_layer(sparsity, seed):
    module = network(seed)
    for name, mask in layerwise_magnitude_masks(module, sparsity).items():
        weight = module.get_parameter(name).detach().abs()
        assert int((~mask).sum()) == round(sparsity * weight.numel())
        if 0 < int(mask.sum()) < mask.numel():
            assert weight[~mask].max() <= weight[mask].min()


def test_layerwise_keeps_the_zeros_of_a_layer_that_has_more():
    module = network()
    with torch.no_grad():
        module[3].weight[:2] = 0
    masks = layerwise_magnitude_masks(module, 0.5)
    assert (int((~masks["0.weight"]).sum()), int((~masks["3.weight"]).sum())) == (36, 32)


# --- for MNN --------------------------------------------------------------------------------------------------


def mobile(num_classes=10):
    """A 3×3, a depthwise and a 1×1 convolution, and a linear layer of which two rows fill no block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 32, 1), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(32, num_classes),
        )  # fmt: skip
        return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.mark.parametrize("layerwise", [False, True])
def test_blocks_stand_in_1x1_and_linear_layers_alone(layerwise):
    masks, left_dense = block_magnitude_masks(mobile(), 0.8, layerwise=layerwise)
    assert left_dense == ("0.weight", "1.weight")
    assert all(masks[name].all() for name in left_dense)
    assert {name: mask.shape for name, mask in masks.items()} == {
        name: parameter.shape for name, parameter in mobile().named_parameters() if name.endswith("weight")
    }
    for name in ("2.weight", "5.weight"):
        rows_OI = masks[name].flatten(1)
        blocks = rows_OI[: len(rows_OI) // 4 * 4].unflatten(0, (-1, 4))
        assert torch.equal(blocks.all(1), blocks.any(1))
        assert rows_OI[len(rows_OI) // 4 * 4 :].all(), "what fills no block stays"


def test_the_share_is_that_of_those_layers():
    masks, _ = block_magnitude_masks(mobile(12), 0.75)
    pruned = [masks[name] for name in ("2.weight", "5.weight")]
    assert sum(int((~mask).sum()) for mask in pruned) == 0.75 * sum(mask.numel() for mask in pruned)
    masks, _ = block_magnitude_masks(mobile(12), 0.75, layerwise=True)
    assert all(int((~masks[name]).sum()) == 0.75 * masks[name].numel() for name in ("2.weight", "5.weight"))


def test_the_weakest_blocks_go():
    network = nn.Sequential(nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].weight[:, 2] = torch.tensor([0.0, 0.0, 0.0, 1.9])
        network[0].weight[:, 0] = 1.2
    masks, _ = block_magnitude_masks(network, 0.25)
    assert masks["0.weight"].all(0).tolist() == [True, True, False, True]


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(BadInputError, match="no 1×1 convolution or linear layer") as caught:
        block_magnitude_masks(nn.Sequential(nn.Conv2d(3, 8, 3)), 0.8)
    assert "--pattern channel" in caught.value.hint


def test_how_the_share_is_counted_is_said():
    pruned = prune(mobile(12), pruning_from_flags(None, 0.75, "mnn"), None)
    assert pruned.notes == (
        "for mnn: 75.0 % of the weights of 2 1×1 and linear layers, in blocks of four output channels; "
        "they hold 60.9 % of all weights, and 2 other layers stay dense",
    )
    assert measure(pruned.network).sparsity == pytest.approx(0.75 * 0.609, abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (("unstructured", 0.8, "openvino"), "--for openvino: it multiplies by zeros", "--for mnn"),
        (("unstructured", 0.8, "tensorrt"), "gains by no zeros but 2:4", "--pattern 2:4"),
        (("unstructured", 0.8, "abacus"), "--for abacus: unknown runtime", "--for mnn"),
        (("channel", 0.8, "mnn"), "--for mnn does not fit --pattern channel", "layerwise"),
        ((None, None, "mnn"), "needs --sparsity", "--sparsity 0.75"),
    ],
)
def test_runtimes_that_gain_by_no_zeros_are_refused(flags, message, hint):
    with pytest.raises(BadInputError, match=message) as caught:
        pruning_from_flags(*flags)
    assert hint in caught.value.hint
