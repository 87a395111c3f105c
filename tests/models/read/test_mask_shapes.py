"""A mask is taken where its shape, its values or its place in a list can mean one thing only."""

import pytest
import torch

from edgerecover.models.read.mask_shapes import binaries_beside_weights, fit, keep_the_smallest, places_of

WEIGHT = torch.ones(4, 2, 3, 3)


@pytest.mark.parametrize(
    ("shape", "kept_dim"),
    [((4,), 0), ((4, 1, 1, 1), 0), ((1, 2, 1, 1), 1), ((2,), 1), ((4, 1, 1), 0)],
)
def test_channels_are_told_by_their_number(shape, kept_dim):
    mask = torch.ones(shape)
    mask.view(-1)[0] = 0
    fitted = fit(mask, WEIGHT)
    assert fitted.shape == WEIGHT.shape
    expected = torch.ones_like(WEIGHT)
    expected.select(kept_dim, 0)[:] = 0
    assert torch.equal(fitted, expected)
    assert fit(mask, WEIGHT, whole_channels=False) is None


def test_kernels_and_flat_masks():
    kernels = torch.eye(4)[:, :2].reshape(4, 2, 1, 1)
    assert torch.equal(fit(kernels, WEIGHT), kernels.expand(4, 2, 3, 3))
    assert torch.equal(fit(kernels.view(4, 2), WEIGHT), kernels.expand(4, 2, 3, 3))
    assert fit(torch.eye(3), torch.ones(3, 3, 3, 3)) is None  # kernels, or places in each kernel
    flat = torch.arange(72) % 2
    assert torch.equal(fit(flat, WEIGHT), flat.view(4, 2, 3, 3))


@pytest.mark.parametrize(
    ("mask", "weight"),
    [
        (torch.ones(4), torch.ones(4, 4)),  # rows or columns
        (torch.ones(1, 4, 1, 1), torch.ones(4, 4, 3, 3)),  # input channels, or the images that come out
        (torch.ones(3), WEIGHT),
        (torch.full((4,), 0.5), WEIGHT),
        (torch.tensor(1.0), WEIGHT),
        (torch.ones(1, 1, 1, 1), WEIGHT),
        (torch.ones(4), torch.ones(2)),
    ],
)
def test_what_fits_nowhere_or_twice_is_none(mask, weight):
    assert fit(mask, weight) is None


def test_the_outputs_of_a_square_weight_can_be_meant_clearly():
    assert fit(torch.ones(4, 1), torch.ones(4, 4)) is not None


def test_masks_that_keep_the_smallest_weights_of_all_layers():
    weight = torch.arange(100.0)
    assert keep_the_smallest([(weight < 40, weight), (torch.zeros(100, dtype=torch.bool), weight)])
    assert not keep_the_smallest([(weight < 40, weight), (weight > 40, weight)])
    assert not keep_the_smallest([(weight < 40, weight), (weight > -1, weight)])  # an ordinary one keeps a whole layer
    assert not keep_the_smallest([(weight[:8] < 4, weight[:8])])
    assert not keep_the_smallest([])


def test_places_of_shapes_in_a_list():
    a, b, c = (2, 3), (4, 2), (5, 4)
    assert places_of([a, b, c], [a, b, c]) == [0, 1, 2]
    assert places_of([a, c], [a, b, c]) == [0, 2]
    assert places_of([a, a], [a, b, a]) == [0, 2]
    assert places_of([a], [a, a]) is None
    assert places_of([c, a], [a, b, c]) is None
    assert places_of([], [a]) is None
    assert places_of([a, b], [a, a, b]) is None


def test_matrices_of_0_and_1_beside_a_weight_of_their_shape():
    weight, zeros = torch.arange(12.0).view(3, 4), (torch.arange(12.0) % 2).view(3, 4)
    state = {"a.weight": weight, "a.weight.zeros": zeros, "b.weight": weight, "b.m": zeros.bool(), "b.bias": zeros[0]}
    assert binaries_beside_weights(state) == ["a.weight.zeros", "b.m"]
    assert not binaries_beside_weights({"a.weight": zeros, "b.weight": weight})
    assert not binaries_beside_weights({"a.weight": zeros, "a.other": zeros})
    assert not binaries_beside_weights({"a.weight": weight, "a.ones": torch.ones(3, 4), "a.t": zeros.t()})
