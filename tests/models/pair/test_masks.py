"""Every zero of a student is found, under the name that its parameter has."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from edgerecover.models.pair.masks import masks_of


class OwnConv(nn.Module):
    """A convolution that is no nn.Conv2d."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.experts = nn.Parameter(torch.randn(2, 6, 3, 3, 3))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 6))


def prune_rows(parameter):
    with torch.no_grad():
        parameter[::2] = 0


def num_pruned(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_zeros_of_layers_that_people_write_are_masks():
    network = OwnConv()
    prune_rows(network.weight)
    prune_rows(network.experts)
    assert num_pruned(masks_of(network, {})) == {"weight": 81, "experts": 162}


def test_zeros_of_embeddings_are_masks_where_the_teacher_has_none():
    network = OwnConv()
    dense = copy.deepcopy(network)
    with torch.no_grad():
        network.pos_embed[..., :2] = 0
        dense.pos_embed[..., 0] = 0
    assert num_pruned(masks_of(network, {}, dense)) == {"pos_embed": 5}
    assert num_pruned(masks_of(network, {})) == {"pos_embed": 10}


@pytest.mark.parametrize(
    ("norm", "parameter"),
    [
        (nn.utils.weight_norm, "weight_v"),
        (nn.utils.spectral_norm, "weight_orig"),
        (parametrizations.weight_norm, "parametrizations.weight.original1"),
        (parametrizations.spectral_norm, "parametrizations.weight.original"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_zeros_of_what_a_weight_is_computed_from_are_masks(norm, parameter):
    network = norm(nn.Conv2d(3, 4, 3))
    prune_rows(network.get_parameter(parameter))
    masks = masks_of(network, {})
    assert num_pruned(masks) == {parameter: 54}
    mask = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    mask[:, 1] = False
    explicit = masks_of(network, {"weight": mask})
    assert num_pruned(explicit) == {parameter: 54 + 36 - 18}  # rows, columns, and both at once
    assert not bool(network.get_parameter(parameter)[:, 1].any())


def test_zero_channels_of_batch_norm_are_masks_with_their_shift():
    """β alone is no pruned channel; γ alone is a pruned weight."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    dense = copy.deepcopy(network)
    with torch.no_grad():
        for each in (network, dense):
            each[1].bias.fill_(0.5)
        network[1].weight[:2] = 0
        network[1].bias[1:3] = 0
    masks = masks_of(network, {}, dense)
    assert masks["1.weight"].tolist() == [False, False, True, True]
    assert masks["1.bias"].tolist() == [True, False, True, True]
    assert set(masks) == {"1.weight", "1.bias"}


def test_gains_that_the_teacher_started_at_zero_are_not_pruned():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    nn.init.zeros_(network[1].weight)
    assert masks_of(network, {}, copy.deepcopy(network)) == {}
    assert num_pruned(masks_of(network, {})) == {"1.weight": 4, "1.bias": 4}


def test_a_parameter_with_two_names_has_one_mask():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.second = self.first

    network = Shared()
    one, other = torch.tensor([[1, 0], [1, 1]]).bool(), torch.tensor([[1, 1], [0, 1]]).bool()
    masks = masks_of(network, {"first.weight": one, "second.weight": other})
    assert list(masks) == ["first.weight"]
    assert torch.equal(masks["first.weight"], one & other)
    assert torch.equal(network.first.weight != 0, one & other)


def test_an_explicit_mask_may_be_of_any_parameter_and_zeros_that_it_keeps_are_held_too():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    prune_rows(network[0].weight)
    explicit = {"0.weight": torch.tensor([[1, 0], [0, 1]]).bool(), "1.bias": torch.tensor([0, 1]).bool()}
    masks = masks_of(network, explicit)
    assert {name: mask.int().tolist() for name, mask in masks.items()} == {
        "0.weight": [[0, 0], [0, 1]], "1.bias": [0, 1],
    }  # fmt: skip


def test_a_mask_of_a_buffer_holds_nothing():
    network = nn.Sequential(nn.BatchNorm1d(2, affine=False))
    assert masks_of(network, {"0.running_mean": torch.tensor([0, 1]).bool()}) == {}
