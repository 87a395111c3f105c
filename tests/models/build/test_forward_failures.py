"""The hint fits why a forward fails on two images."""

import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.models.build.forward_failures import failure_of
from edgerecover.models.network.examples import example_images

INPUT = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)


class Net(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first, self.conv, self.fc = first, nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.first(self.conv(x.to(self.conv.weight.dtype)).mean((2, 3))))


class ByName(Net):
    def forward(self, *, x):
        return super().forward(x)


class ChannelsLast(Net):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("network", "message", "hint"),
    [
        (Net(lambda x: x.reshape(1, 6)), "works on one image, but fails on two", "x.shape[0]"),
        (Net(lambda x: x.view(32, -1)), "the forward pass failed", "it works on 32 images: that batch size is written"),
        (ByName(nn.Identity()), "the forward pass failed", "forward(self, x)"),
        (ChannelsLast(nn.Identity()), "the forward pass failed", "it takes images (N, H, W, C)"),
        (Net(lambda x: x.double()), "the forward pass failed", "weights and images are float32"),
        (Net(lambda x: x[:, :4]), "the forward pass failed", "check the input's shape"),
    ],
)
def test_the_hint_fits_the_cause(network, message, hint):
    with torch.no_grad(), pytest.raises(Exception) as caught:  # noqa: PT011 - whatever torch raises
        network(example_images(INPUT, 2))
    error = failure_of(caught.value, network, INPUT, "net.py:net")
    assert message in str(error)
    assert hint in error.hint
