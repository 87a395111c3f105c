"""2:4 masks keep the two largest of every four input channels, on every layer that can be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgerecover.artifacts import Pattern
from edgerecover.errors import BadInputError
from edgerecover.models.network.sparsity import measure
from edgerecover.pruning import apply_masks, two_four_masks


@given(
    outputs=st.integers(1, 5),
    groups_of_four=st.integers(1, 3),
    kernel=st.sampled_from([None, 1, 3]),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_two_largest_of_four_stay(outputs, groups_of_four, kernel, transposed, seed):
    torch.manual_seed(seed)
    inputs = 4 * groups_of_four
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = nn.Linear(inputs, outputs) if kernel is None else kind(inputs, outputs, kernel)
    dim = 0 if transposed and kernel is not None else 1
    masks, left_dense = two_four_masks(layer)
    mask_G4, size_G4 = (t.movedim(dim, -1).reshape(-1, 4) for t in (masks["weight"], layer.weight.detach().abs()))
    assert left_dense == ()
    assert bool((mask_G4.sum(1) == 2).all())
    kept, gone = size_G4[mask_G4].view(-1, 2), size_G4[~mask_G4].view(-1, 2)
    assert bool((gone.max(1).values <= kept.min(1).values).all())
    apply_masks(layer, masks)
    assert measure(layer).pattern is Pattern.TWO_FOUR


def test_layers_that_cannot_be_are_named():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    masks, left_dense = two_four_masks(module)
    assert list(masks) == ["2.weight"]
    assert left_dense == ("0.weight", "1.weight")


def test_equal_weights_give_the_same_mask_every_time():
    layer = nn.Linear(4, 1)
    nn.init.ones_(layer.weight)
    assert two_four_masks(layer)[0]["weight"].tolist() == [[False, False, True, True]]


def test_no_layer_can_be():
    with pytest.raises(BadInputError, match="multiple of four"):
        two_four_masks(nn.Conv2d(3, 8, 3))
