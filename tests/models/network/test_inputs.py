"""Networks that write into their images leave those of others alone."""

import copy

import pytest
import torch
from torch import nn

from edgerecover.models.network.inputs import keep_images

IMAGES_NCHW = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Centred(nn.Module):
    def forward(self, x):
        x -= 0.5
        return x.mean((2, 3))


@pytest.mark.parametrize("network", [Centred(), nn.Sequential(nn.ReLU6(inplace=True), Centred())])
def test_images_stay_as_they_were(network):
    own_NC = network(IMAGES_NCHW.clone())
    before_NCHW = IMAGES_NCHW.clone()
    keep_images(network, IMAGES_NCHW)
    for one in (network, copy.deepcopy(network)):
        assert torch.equal(one(IMAGES_NCHW), own_NC)
        assert torch.equal(IMAGES_NCHW, before_NCHW)


def test_other_networks_are_left_alone():
    for network in (nn.Flatten(), nn.Linear(7, 2)):
        keep_images(network, IMAGES_NCHW)
        assert not network._forward_pre_hooks
