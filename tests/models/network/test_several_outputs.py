"""Networks that return several things in eval mode give their logits where it is clear which these are."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from edgerecover.models.network.several_outputs import return_logits, warning_of

IMAGES_NCHW = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


Outputs = namedtuple("Outputs", "aux logits")


@dataclass
class Returned:
    features: torch.Tensor
    logits: torch.Tensor


class Returning(nn.Module):
    def __init__(self, pack):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 5)
        self.pack = pack

    def logits(self, images_NCHW):
        return self.head(images_NCHW.mean((2, 3)))

    def forward(self, images_NCHW):
        logits_NK = self.logits(images_NCHW)
        return logits_NK if self.training else self.pack(logits_NK, images_NCHW)


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits, images: (logits, images),
        lambda logits, images: [images, logits],
        lambda logits, images: (logits.softmax(1), logits),
        lambda logits, images: (logits, logits.softmax(1)),
        lambda logits, images: {"features": images.mean(3).mean(2), "logits": logits},
        lambda logits, images: Outputs(logits + 1, logits),
        lambda logits, images: Returned(logits + 1, logits),
        lambda logits, images: logits[:, :, None, None],
        lambda logits, images: logits,
    ],
)
def test_the_logits_are_found(pack):
    network = Returning(pack).eval()
    keys = list(network.state_dict())
    return_logits(network, IMAGES_NCHW)
    assert torch.equal(network(IMAGES_NCHW), network.logits(IMAGES_NCHW))
    assert torch.equal(network.train()(IMAGES_NCHW), network.logits(IMAGES_NCHW))
    assert list(network.state_dict()) == keys
    assert type(network).__name__ == "Returning"


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits, images: (logits, logits + 1),
        lambda logits, images: (images, images),
        lambda logits, images: {"a": logits, "b": logits},
        lambda logits, images: 3,
        lambda logits, images: Returned,
    ],
)
def test_what_is_not_clear_stays(pack):
    network = Returning(pack).eval()
    return_logits(network, IMAGES_NCHW)
    assert not isinstance(network(IMAGES_NCHW), torch.Tensor)


@pytest.mark.parametrize(
    ("pack", "left_out"),
    [
        (lambda logits, images: {"mask": images, "digit": logits}, "mask [2, 3, 4, 4]"),
        (lambda logits, images: Outputs(logits + 1, logits), None),
        (lambda logits, images: (logits.softmax(1), logits), None),
        (lambda logits, images: logits[:, :, None, None], None),
    ],
)
def test_outputs_that_are_left_out_are_named(pack, left_out):
    network = Returning(pack).eval()
    return_logits(network, IMAGES_NCHW)
    warning = warning_of(network)
    assert (f"left out: {left_out}." in warning) if left_out else warning is None
