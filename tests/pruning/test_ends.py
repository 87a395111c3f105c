"""Convolutions after which a network has no weights; for torchvision's, see models/network/test_detectors."""

import pytest
import torch
from torch import nn

from edgerecover.pruning.ends import last_convolutions


@pytest.mark.parametrize("after", [nn.Linear(6, 6), nn.PReLU()])
def test_there_are_no_last_convolutions_where_other_weights_come_after_them(after):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten(2)).requires_grad_(False)
    assert last_convolutions(network, torch.rand(1, 3, 2, 3)) == ("1",)
    assert not any(weight.requires_grad for weight in network.parameters())
    assert last_convolutions(network.append(after), torch.rand(1, 3, 2, 3)) == ()
