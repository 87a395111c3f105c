"""Convolutions after which a network has no weights; for torchvision's, see models/network/test_detectors."""

import pytest
import torch
from torch import nn

from edgerecover.pruning.ends import last_convolutions, layers_of_outputs


@pytest.mark.parametrize("after", [nn.Linear(6, 6), nn.PReLU()])
def test_there_are_no_last_convolutions_where_other_weights_come_after_them(after):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten(2)).requires_grad_(False)
    assert last_convolutions(network, torch.rand(1, 3, 2, 3)) == ("1",)
    assert not any(weight.requires_grad for weight in network.parameters())
    assert last_convolutions(network.append(after), torch.rand(1, 3, 2, 3)) == ()


class Heads(nn.Module):
    """Two heads on what a normalised convolution gives, one of them first among the layers."""

    def __init__(self):
        super().__init__()
        self.kind = nn.Linear(6, 3)
        self.conv, self.norm, self.age = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Linear(6, 1, bias=False)

    def forward(self, images_NCHW):
        pooled_NC = self.norm(self.conv(images_NCHW)).relu().mean((2, 3))
        return self.kind(pooled_NC).softmax(1), self.age(pooled_NC)


def test_the_layers_of_all_outputs_are_found_whatever_follows_without_a_matrix():
    images_NCHW = torch.rand(2, 3, 4, 4)
    assert layers_of_outputs(Heads().eval(), images_NCHW) == {"kind", "age"}
    normalised = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)).eval()
    assert layers_of_outputs(normalised.requires_grad_(False), images_NCHW) == {"2"}
