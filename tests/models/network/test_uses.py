"""Whether zeros reach what multiplies is seen in a forward, not told by classes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from edgerecover.models.network.uses import Use, uses_of, warning_of
from edgerecover.models.pair.masks import masks_of

KEPT = Use(is_used=True, num_lost=0)


class StandardisedConv(nn.Conv2d):
    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, self.weight - mean, self.bias)


class MaskedConv(nn.Conv2d):
    """Applies a mask of its own: a weight that is computed, with its zeros kept."""

    def forward(self, x):
        return F.conv2d(x, self.weight * (self.weight.abs() > 0), self.bias)


def uses(layer):
    parameter = next(p for p in layer.parameters() if p.dim() >= 2 and p.shape[1] > 1)
    with torch.no_grad():
        parameter[:, 0] = 0
    network = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 6)).eval()
    nn.init.zeros_(network[3].weight[0])
    return uses_of(network, masks_of(network, {}), (3, 6, 6))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3),
        MaskedConv(3, 6, 3),
        parametrizations.weight_norm(nn.Conv2d(3, 6, 3)),
        parametrizations.spectral_norm(nn.Conv2d(3, 6, 3)),
    ],
)
def test_zeros_that_arrive(layer):
    found = uses(layer)
    assert list(found.values()) == [KEPT, KEPT]
    assert warning_of(found) is None


def test_weight_standardisation_loses_zeros():
    found = uses(StandardisedConv(3, 6, 3))
    assert found == {"0.weight": Use(is_used=True, num_lost=54), "3.weight": KEPT}
    assert "54 pruned weights of 0.weight are not zero" in warning_of(found)


def test_a_layer_that_no_forward_reaches_is_not_used():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network[0].head = nn.Linear(2, 2)
    with torch.no_grad():
        network[0].head.weight[0] = 0
    assert uses_of(network.eval(), masks_of(network, {}), (1, 2, 2)) == {"0.head.weight": Use(False, 0)}


def test_attentions_projections_arrive():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            x = x.flatten(2).transpose(1, 2)
            return self.attention(x, x, x)[0].mean(1)

    network = Attending().eval()
    with torch.no_grad():
        network.attention.in_proj_weight[::2] = 0
    assert uses_of(network, masks_of(network, {}), (4, 3, 3)) == {"attention.in_proj_weight": KEPT}


class TwoHeads(nn.Module):
    """Two convolutions, of which one is written into a part of the output; what the second head gives is left out."""

    def __init__(self):
        super().__init__()
        self.body, self.scores, self.aux = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        maps = self.body(x).relu_()
        both = torch.zeros(len(x), 3, *x.shape[2:])
        both[:, 1:] = self.scores(maps)
        return {"out": both.flatten(2), "aux": self.aux(maps)}["out"]


def test_a_head_whose_output_is_left_out_is_not_used():
    network = TwoHeads().eval()
    with torch.no_grad():
        for layer in (network.body, network.scores, network.aux):
            layer.weight[:, 0] = 0
    found = uses_of(network, masks_of(network, {}), (3, 5, 5))
    assert found == {"body.weight": KEPT, "scores.weight": KEPT, "aux.weight": Use(is_used=False, num_lost=0)}
