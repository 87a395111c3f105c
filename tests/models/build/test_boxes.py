"""What a detector gives is read where it is candidates of boxes; anything else is named."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgerecover.artifacts import Activation, InputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.boxes import fits_candidates
from edgerecover.models.build.outputs import find_output
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.outputs import as_it_is, read_as_logits

RGB = InputSpec((3, 24, 32), (0.0,) * 3, (1.0,) * 3)
SAID_NOTHING = ModelSpec("nets.py:net", "--arch", Path(), None, RGB, "--input-shape", None)


class Grid(nn.Module):
    """One candidate for each cell of 4 × 4 pixels, (N, 4 + K, 48); `change` makes something else of it."""

    def __init__(self, change=lambda values: values, num_scores=3):
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Conv2d(3, num_scores, 4, 4)
        self.change = change

    def forward(self, images_NCHW):
        scores = self.scores(images_NCHW).flatten(2) - 2
        y, x = torch.meshgrid(4 * torch.arange(6) + 2.0, 4 * torch.arange(8) + 2.0, indexing="ij")
        boxes = torch.stack([x.flatten(), y.flatten(), torch.full((48,), 7.0), torch.full((48,), 5.0)])
        return self.change(torch.cat([boxes.expand(len(images_NCHW), 4, 48), scores], 1))


def with_scores(change):
    return lambda values: torch.cat([values[:, :4], change(values[:, 4:])], 1)


def with_boxes(change):
    return lambda values: torch.cat([change(values[:, :4]), values[:, 4:]], 1)


def corners(boxes):
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def refused(network, **said):
    with pytest.raises(BadInputError) as caught:
        find_output(network.eval(), RGB, replace(SAID_NOTHING, **said))
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize(
    ("change", "shape", "activation"),
    [
        (lambda values: values, (7, 48), Activation.NONE),
        (lambda values: values.transpose(1, 2), (48, 7), Activation.NONE),
        (with_scores(torch.sigmoid), (7, 48), Activation.SIGMOID),
        (with_scores(lambda scores: scores.sigmoid() * 0.5), (7, 48), Activation.SIGMOID),
    ],
)
@pytest.mark.parametrize("task", [None, TaskKind.DETECTION])
def test_candidates_are_recognised(change, shape, activation, task):
    output = find_output(Grid(change).eval(), RGB, replace(SAID_NOTHING, task=task))
    assert (output.task, output.shape, output.activation) == (TaskKind.DETECTION, shape, activation)
    assert output.input_sides == (24, 32)
    assert output.num_classes == 3
    assert output.description == "object detection, 3 classes"


@pytest.mark.parametrize(
    ("change", "found", "hint"),
    [
        (with_boxes(corners), "corners", "x2 - x1"),
        (with_boxes(lambda boxes: boxes / 32), r"lie between 0 and 0\.\d\d, which are not pixels", "in pixels"),
        (with_boxes(lambda boxes: boxes - 6), "should be a width and a height, found 1 and -1", "centre x, y"),
        (with_boxes(lambda boxes: boxes + 100), "corners, or all boxes begin|outside the image", "return"),
        (with_scores(lambda scores: torch.cat([scores.sigmoid(), scores], 1)), "3 of 6 numbers after", "coefficients"),
    ],
)
@pytest.mark.parametrize("task", [None, TaskKind.DETECTION])
def test_what_is_no_candidates_is_named(change, found, hint, task):
    message, said = refused(Grid(change), task=task)
    assert re.search(found, message)
    assert hint in said


def test_tokens_are_no_boxes():
    message, hint = refused(Grid(lambda values: torch.randn(len(values), 20, 48)))
    assert "it gives [20, 48] for each image, which are no candidates of boxes" in message
    assert "any other network returns one row of logits for each image" in hint


def test_as_many_candidates_as_numbers_of_each_cannot_be_told_apart():
    assert not fits_candidates((7, 7))
    message, _ = refused(Grid(lambda values: values[..., :7]))
    assert "it gives [7, 7] for each image" in message


def test_suppressed_boxes_are_refused_with_what_to_return():
    found = [{"boxes": torch.zeros(1, 4), "scores": torch.zeros(1), "labels": torch.zeros(1)}] * 2
    message, hint = refused(Grid(lambda values: found))
    assert "found list of dict (boxes [1, 4], scores [1], labels [1]), dict (" in message
    assert "suppresses boxes itself" in hint
    assert "centre x, y, width and height in pixels" in hint


def test_a_score_too_many_may_say_whether_there_is_an_object():
    message, hint = refused(Grid(num_scores=4), classes=("disc", "square", "star"), classes_source="model.toml")
    assert "gives 4 classes, but model.toml names 3" in message
    assert "objectness * scores" in hint


@pytest.mark.parametrize("turned", [False, True])
def test_only_scores_become_logits(turned):
    plain, sigmoids = Grid(), Grid(with_scores(torch.sigmoid))
    if turned:
        plain.change = lambda values: values.transpose(1, 2)
        sigmoids.change = lambda values: with_scores(torch.sigmoid)(values).transpose(1, 2)
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    own = sigmoids(images)
    read_as_logits(sigmoids, find_output(sigmoids.eval(), RGB, SAID_NOTHING))
    torch.testing.assert_close(sigmoids(images), plain(images).flatten(1), atol=1e-4, rtol=1e-4)
    assert torch.equal(as_it_is(sigmoids)(images), own)
