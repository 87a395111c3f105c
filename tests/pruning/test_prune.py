"""Networks that compute what they multiply by: pruned where zeros stay zero, refused by name where they do not."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.pruning import Pruning, prune

INPUT = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(change=lambda layer: layer):
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")  # the old ones are deprecated, but people have them
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), change(nn.Conv2d(8, 8, 3)), nn.Flatten(), nn.Linear(128, 4)
        return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.mark.parametrize("pattern", ["unstructured", "layerwise", "2:4"])
@pytest.mark.parametrize(
    "normalise",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
    ],
    ids=["weight_norm", "spectral_norm", "old weight_norm", "old spectral_norm"],
)
def test_zeros_reach_what_a_normalisation_makes_of_a_weight(normalise, pattern):
    pruned = prune(network(normalise), Pruning(pattern, 0.5), INPUT)
    (name,) = [name for name in pruned.masks if name.startswith("2.")]
    kept = pruned.masks[name]
    assert 0.3 < float(kept.float().mean()) < 0.7
    pruned.network(IMAGES)
    assert torch.equal(pruned.network[2].weight != 0, kept)


@pytest.mark.parametrize("normalise", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_normalised_weight_is_ranked_by_what_is_multiplied(normalise):
    """Its direction is thirty times as long here, and says nothing."""

    def longer(layer):
        normalise(layer)
        direction = next(p for name, p in layer.named_parameters() if name.endswith(("_v", "original1")))
        direction.data *= 30
        return layer

    plain, normal = (prune(network(change), Pruning("unstructured", 0.5), INPUT) for change in (lambda x: x, longer))
    (name,) = [name for name in normal.masks if name.startswith("2.")]
    assert (normal.masks[name] == plain.masks["2.weight"]).float().mean() > 0.99


@pytest.mark.parametrize("normalise", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_normalised_weight_without_a_row_is_refused(normalise):
    """It would be divided by its length, and the network would answer NaN."""

    def with_a_weak_row(layer):
        layer.weight.data[5] *= 1e-3
        return normalise(layer)

    with pytest.raises(BadInputError, match=r"^2\.\S* cannot be pruned") as error:
        prune(network(with_a_weak_row), Pruning("unstructured", 0.5), INPUT)
    assert "weight_norm" in error.value.hint


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize(
    "change",
    [nn.utils.parametrizations.orthogonal, lambda _: Standardised(8, 8, 3)],
    ids=["orthogonal", "standardised"],
)
def test_what_would_not_be_zero_is_refused_by_name(change):
    with pytest.raises(BadInputError, match=r"^2\.\S*(weight|original) cannot be pruned"):
        prune(network(change), Pruning("unstructured", 0.5), INPUT)


def test_a_layer_of_ones_own_is_pruned():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.kernel)

    pruned = prune(network(lambda _: Own()), Pruning("layerwise", 0.5), INPUT)
    assert int((pruned.network[2].kernel == 0).sum()) == 288
