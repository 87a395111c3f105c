"""Zeros are counted per layer and their pattern told as TensorRT sees it."""

import pytest
import torch
from torch import nn

from edgerecover.artifacts import Pattern
from edgerecover.models.network.sparsity import measure, prunable_weights


def two_four_along(weight, dim):
    """Zero the first two of every four weights along a dimension."""
    with torch.no_grad():
        keep = torch.arange(weight.shape[dim]) % 4 >= 2
        shape = [1] * weight.dim()
        shape[dim] = -1
        weight.mul_(keep.view(shape))


def test_names_shapes_and_counts(network):
    with torch.no_grad():
        network[4].weight[0] = 0
    sparsity = measure(network)
    assert [layer.name for layer in sparsity.layers] == ["0.weight", "4.weight"]
    assert sparsity.layers[1].shape == (3, 144)
    assert (sparsity.num_weights, sparsity.num_zeros) == (36 + 3 * 144, 144)
    assert [layer.pattern for layer in sparsity.layers] == [Pattern.DENSE, Pattern.UNSTRUCTURED]
    assert sparsity.pattern is Pattern.UNSTRUCTURED


@pytest.mark.parametrize(
    ("layer", "input_dim"),
    [
        (nn.Conv2d(8, 6, 3), 1),
        (nn.Conv1d(8, 6, 3), 1),
        (nn.Linear(8, 6), 1),
        (nn.ConvTranspose2d(8, 6, 3), 0),
        (nn.Conv2d(16, 6, 3, groups=2), 1),
    ],
)
def test_two_four_is_along_input_channels(layer, input_dim):
    two_four_along(layer.weight, input_dim)
    assert measure(layer).pattern is Pattern.TWO_FOUR
    other = type(layer)(8, 8, 4) if not isinstance(layer, nn.Linear) else nn.Linear(8, 8)
    two_four_along(other.weight, 1 - input_dim)
    assert measure(other).pattern is Pattern.UNSTRUCTURED


def test_a_layer_that_cannot_be_two_four_does_not_spoil_the_network():
    stem, body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    two_four_along(body.weight, 1)
    assert measure(nn.Sequential(stem, body)).pattern is Pattern.TWO_FOUR
    dense = nn.Conv2d(8, 8, 3)
    assert measure(nn.Sequential(stem, body, dense)).pattern is Pattern.UNSTRUCTURED


def test_two_four_with_a_few_damaged_groups_is_named():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 8), nn.Conv2d(8, 8, 1))
    two_four_along(layers[1].weight, 1)
    two_four_along(layers[2].weight, 1)
    with torch.no_grad():
        layers[1].weight[0, :4, 0, 0] = 1
        layers[2].weight[0, 4:7] = 1
    sparsity = measure(layers)
    assert sparsity.pattern is Pattern.UNSTRUCTURED
    assert sparsity.pattern_words == "unstructured: 2:4 except in 2 of 160 groups"


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7, 0.9, 0.97])
def test_zeros_in_random_places_are_not_nearly_two_four(rate):
    layer = nn.Linear(512, 64)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(64, 512, generator=torch.Generator().manual_seed(0)) > rate)
    assert measure(layer).pattern_words == "unstructured"


def test_a_few_zeros_are_dense():
    layer = nn.Linear(100, 10)
    with torch.no_grad():
        layer.weight.view(-1)[:10] = 0
    assert measure(layer).pattern is Pattern.DENSE
    with torch.no_grad():
        layer.weight.view(-1)[:11] = 0
    assert measure(layer).pattern is Pattern.UNSTRUCTURED


def test_one_small_layer_of_zeros_does_not_make_a_network_sparse():
    head = nn.Linear(4, 4)
    nn.init.zeros_(head.weight)
    sparsity = measure(nn.Sequential(nn.Linear(100, 100), head))
    assert sparsity.layers[1].pattern is Pattern.TWO_FOUR
    assert sparsity.pattern is Pattern.DENSE


def test_a_shared_weight_counts_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert list(prunable_weights(nn.Sequential(first, second))) == ["0.weight"]


def test_without_an_architecture_tensors_are_measured():
    weight = torch.ones(4, 8)
    two_four_along(weight, 1)
    sparsity = measure({"fc.weight": weight})
    assert sparsity.pattern is Pattern.TWO_FOUR
    assert sparsity.layers[0].name == "fc.weight"


def test_no_layers_at_all():
    assert measure(nn.ReLU()).pattern is Pattern.DENSE
    assert measure(nn.ReLU()).sparsity == 0.0


def test_attentions_projections_are_weights_too():
    """One matrix for query, key and value, or three where their widths differ; not its biases."""
    same, differ = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert list(prunable_weights(same)) == ["in_proj_weight", "out_proj.weight"]
    assert list(prunable_weights(nn.Sequential(differ))) == [
        "0.q_proj_weight", "0.k_proj_weight", "0.v_proj_weight", "0.out_proj.weight"
    ]  # fmt: skip
    two_four_along(same.in_proj_weight, 1)
    two_four_along(same.out_proj.weight, 1)
    assert measure(same).pattern is Pattern.TWO_FOUR
    assert measure(same).num_zeros == 4 * 8 * 8 // 2


class Odd(nn.Module):
    """Weights of people's own beside what is no weight."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.scale_of_layer = nn.Parameter(torch.ones(4, 1, 1))
        self.pos_embed = nn.Parameter(torch.ones(1, 5, 4))
        self.rel_pos_h = nn.Parameter(torch.ones(5, 4))
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))
        self.attention_biases = nn.Parameter(torch.ones(2, 9))
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm((4, 4))
        self.row = nn.Linear(4, 1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 3))


def test_weights_are_what_multiplies_whatever_its_class():
    network = Odd()
    assert list(prunable_weights(network)) == ["kernel", "row.weight", "normed.parametrizations.weight.original1"]
    two_four_along(network.get_parameter("normed.parametrizations.weight.original1"), 0)
    assert measure(network.normed).pattern is Pattern.TWO_FOUR


def test_without_an_architecture_what_is_no_weight_is_left_out_by_its_name():
    tensors = dict(Odd().state_dict()) | {"steps": torch.ones(2, 2, dtype=torch.int64)}
    names = [layer.name for layer in measure(tensors).layers]
    assert not {"pos_embed", "relative_position_bias_table", "steps"} & set(names)
    assert {"kernel", "row.weight"} <= set(names)


def test_zero_channels_of_batch_norm_stand_beside_the_weights():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(4), nn.BatchNorm2d(4, affine=False))
    with torch.no_grad():
        network[1].weight[:3] = 0
    for weights in (network, network.state_dict()):
        sparsity = measure(weights)
        assert (sparsity.num_zeros, sparsity.pattern) == (0, Pattern.DENSE)
        assert sparsity.zero_channels == "3 of 4 batch norm channels are zero"
    assert measure(nn.BatchNorm2d(4)).zero_channels == ""
