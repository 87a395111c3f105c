"""Networks that return several things in eval mode give their logits where it is clear which these are."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from edgerecover.errors import BadInputError
from edgerecover.models.network.several_outputs import names_of_outputs, return_task_outputs, warning_of

IMAGES_NCHW = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


Outputs = namedtuple("Outputs", "aux logits")


@dataclass
class Returned:
    features: torch.Tensor
    logits: torch.Tensor


Heads = namedtuple("Heads", "digit colour")


@dataclass
class Both:
    digit: torch.Tensor
    colour: torch.Tensor


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
    return_task_outputs(network, IMAGES_NCHW)
    assert torch.equal(network(IMAGES_NCHW), network.logits(IMAGES_NCHW))
    assert torch.equal(network.train()(IMAGES_NCHW), network.logits(IMAGES_NCHW))
    assert list(network.state_dict()) == keys
    assert type(network).__name__ == "Returning"


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits, images: (images, images),
        lambda logits, images: ([images, images], [images]),
        lambda logits, images: [{"boxes": images[0, 0, :2], "scores": images[0, 0, 0]} for _ in images],
        lambda logits, images: 3,
        lambda logits, images: Returned,
    ],
)
def test_what_is_not_clear_stays(pack):
    network = Returning(pack).eval()
    return_task_outputs(network, IMAGES_NCHW)
    assert not isinstance(network(IMAGES_NCHW), torch.Tensor)


@pytest.mark.parametrize(
    ("pack", "left_out"),
    [
        (lambda logits, images: {"mask": images, "digit": logits}, "mask [2, 3, 4, 4]"),
        (lambda logits, images: Outputs(logits + 1, logits), None),
        (
            lambda logits, images: {"digit": logits, "levels": [images, {"p 4": images[:, :, ::2]}]},
            "levels_0 [2, 3, 4, 4], levels_1_p_4 [2, 3, 2, 4]",
        ),
        (lambda logits, images: (logits, [logits + 1, logits.softmax(1)]), "output_1_0 [2, 5]"),
        (lambda logits, images: {"digit": logits, "aux": [logits + 1]}, None),
        (
            lambda logits, images: (logits, [images] * 8),
            ", ".join(f"output_1_{place} [2, 3, 4, 4]" for place in range(6)) + " and 2 more",
        ),
        (lambda logits, images: (logits.softmax(1), logits), None),
        (lambda logits, images: logits[:, :, None, None], None),
    ],
)
def test_outputs_that_are_left_out_are_named(pack, left_out):
    network = Returning(pack).eval()
    return_task_outputs(network, IMAGES_NCHW)
    warning = warning_of(network)
    assert (f"left out: {left_out}." in warning) if left_out else warning is None


@pytest.mark.parametrize(
    ("pack", "names"),
    [
        (lambda logits, images: (logits, logits + 1), ("output_0", "output_1")),
        (lambda logits, images: [images, logits[:, :1], logits[:, 0]], ("output_1", "output_2")),
        (lambda logits, images: {"digit": logits, "age": logits[:, 0]}, ("digit", "age")),
        (lambda logits, images: Heads(logits, logits * 2), ("digit", "colour")),
        (lambda logits, images: Both(logits, logits * 2), ("digit", "colour")),
        (lambda logits, images: {"digit": logits, "mask": images[:, :1]}, ("digit", "mask")),
        (lambda logits, images: {"aux": logits, "a b": logits, "input": logits + 1}, ("a_b", "output_input")),
        (lambda logits, images: {"p": logits.sigmoid(), "a": logits, "b": logits + 1}, ("a", "b")),
        (lambda logits, images: {"digit": logits, "top": logits.argmax(1), "b": logits + 1}, ("digit", "b")),
        (lambda logits, images: {"exits": [logits, logits + 1]}, ("exits_0", "exits_1")),
        (lambda logits, images: ([logits, logits + 1], [images, images]), ("output_0_0", "output_0_1")),
    ],
)
def test_all_outputs_that_carry_a_task_are_taken(pack, names):
    network = Returning(pack).eval()
    expected = network(IMAGES_NCHW)
    return_task_outputs(network, IMAGES_NCHW)
    found = network(IMAGES_NCHW)
    assert isinstance(found, tuple)
    assert names_of_outputs(network) == names
    assert len(found) == len(names)
    if isinstance(expected, dict) and set(names) <= set(expected):
        assert all(torch.equal(found[i], expected[name]) for i, name in enumerate(names))
    assert torch.equal(network.train()(IMAGES_NCHW), network.logits(IMAGES_NCHW))


def pack_three(logits, images):
    return {"digit": logits, "age": logits[:, 0], "maps": images[:, :, ::2, ::2], "top": logits.argmax(1)}


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({}, ("digit", "age")),
        ({"age": 0.0}, ("digit",)),
        ({"maps": 2.0}, ("digit", "age", "maps")),
        ({"exits_0": 0.5}, ("digit", "age", "exits_0")),
    ],
)
def test_a_user_takes_outputs_and_leaves_them_out(weights, names):
    network = Returning(lambda logits, images: {**pack_three(logits, images), "exits": [logits + 1, 3]}).eval()
    return_task_outputs(network, IMAGES_NCHW, weights)
    assert names_of_outputs(network) == names
    assert ("maps [2, 3, 2, 2]" in warning_of(network)) == ("maps" not in names)


def test_an_output_that_cannot_be_taken_is_not_offered():
    network = Returning(lambda logits, images: {"top": logits.argmax(1), "digit": logits}).eval()
    return_task_outputs(network, IMAGES_NCHW)
    assert warning_of(network).endswith("left out: top [2]")
    network = Returning(lambda logits, images: {"top": logits.argmax(1), "digit": logits, "mask": images}).eval()
    return_task_outputs(network, IMAGES_NCHW)
    assert "or --task mask=TASK" in warning_of(network)


def test_maps_beside_candidates_are_named_and_not_offered():
    network = Returning(lambda logits, images: (images.flatten(2), [images, images])).eval()
    return_task_outputs(network, IMAGES_NCHW)
    assert warning_of(network).endswith("left out: output_1_0 [2, 3, 4, 4], output_1_1 [2, 3, 4, 4]")


def test_what_a_user_leaves_out_is_no_news():
    network = Returning(lambda logits, images: {"digit": logits, "age": logits[:, 0]}).eval()
    return_task_outputs(network, IMAGES_NCHW, {"age": 0.0})
    assert (names_of_outputs(network), warning_of(network)) == (("digit",), None)


def test_one_output_at_least_is_left():
    with pytest.raises(BadInputError, match=r"every output that carries a task has weight 0; .* maps float32"):
        return_task_outputs(Returning(pack_three).eval(), IMAGES_NCHW, {"digit": 0.0, "age": 0.0})


@pytest.mark.parametrize("name", ["height", "top"])
def test_an_output_that_is_not_there_is_told(name):
    with pytest.raises(BadInputError, match=rf"output '{name}' is named, .* top int64 \[2\]"):
        return_task_outputs(Returning(pack_three).eval(), IMAGES_NCHW, {name: 1.0})
