"""Multiply-accumulates are counted where they are done, whatever module asks for them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.models.network.macs import count_macs
from edgerecover.models.pair.facts import macs_kept


class Own(nn.Module):
    """One kernel, used by a function of one's own."""

    def __init__(self, shape, forward):
        super().__init__()
        self.kernel, self.run = nn.Parameter(torch.ones(shape)), forward

    def forward(self, images):
        return self.run(images, self.kernel)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), 8 * 8 * 4 * 27),
        (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), 4 * 4 * 6 * 9),
        (nn.ConvTranspose2d(3, 5, 2, stride=2), 8 * 8 * 3 * 5 * 4),
        (nn.Linear(8, 2), 3 * 8 * 2 * 8),
        (nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), 24 * (4 * 64 + 256)),
        (Own((4, 3, 3, 3), lambda x, kernel: F.conv2d(weight=kernel, input=x)), 6 * 6 * 4 * 27),
        (Own((4, 3, 3, 3), lambda x, kernel: F.conv2d(F.conv2d(x, kernel[:3]), kernel)), 36 * 81 + 16 * 108),
    ],
    ids=["convolution", "groups", "transposed", "linear over rows", "attention", "by keyword", "used twice"],
)
def test_each_use_is_counted(network, expected):
    assert count_macs(network.eval(), (3, 8, 8)) == expected


def test_of_a_network_that_has_none_no_fraction_is_kept():
    plain = Own((8, 2), lambda x, kernel: x @ kernel)
    assert macs_kept(plain, plain, InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)) is None
