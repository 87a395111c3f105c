"""What a network gives is found from a few images; what fits no task, or two, is named."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.outputs import find_output
from edgerecover.models.name.spec import ModelSpec

INPUT = InputSpec((3, 8, 16), (0.5,) * 3, (0.25,) * 3)


class Ending(nn.Module):
    """A convolution, pooled or not, and what comes last."""

    def __init__(self, last, num_outputs=8, *, pooled=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, num_outputs, 3, padding=1)
        self.last, self.pooled = last, pooled

    def forward(self, images_NCHW):
        maps_NCHW = self.conv(images_NCHW)
        return self.last(maps_NCHW.mean((2, 3)) if self.pooled else maps_NCHW)


def found(network, task=None):
    spec = ModelSpec(
        "nets.py:make",
        "model.toml",
        base_dir=Path(),
        teacher_path=None,
        input=INPUT,
        input_source="model.toml",
        classes=None,
        task=task,
    )
    return find_output(network.eval(), INPUT, spec)


def test_one_mask_may_lack_the_axis_of_its_classes():
    squeezed = Ending(lambda maps_N1HW: maps_N1HW.squeeze(1).sigmoid(), 1, pooled=False)
    expected = OutputSpec(TaskKind.SEGMENTATION, (1, 8, 16), Activation.SIGMOID)
    assert found(squeezed, TaskKind.SEGMENTATION) == expected
    with pytest.raises(BadInputError, match="one mask, points, or a sequence of vectors"):
        found(squeezed)


def test_vectors_of_length_one_are_embeddings():
    assert found(Ending(F.normalize)).task is TaskKind.EMBEDDING
    assert found(Ending(lambda logits_NK: logits_NK)).task is TaskKind.ONE_LABEL
    sure = Ending(lambda logits_NK: (1000 * logits_NK).softmax(1))
    assert found(sure).task is TaskKind.ONE_LABEL


def test_interpolated_sigmoids_are_sigmoids():
    mask = Ending(lambda maps_N1HW: F.interpolate(maps_N1HW.sigmoid(), scale_factor=2.0), 1, pooled=False)
    assert found(mask, TaskKind.SEGMENTATION).activation is Activation.SIGMOID


@pytest.mark.parametrize(
    ("last", "num_outputs", "message"),
    [
        (F.logsigmoid, 8, "LogSigmoid comes last, after which no score is above 0, so that every answer would be no"),
        (F.relu, 8, "Relu comes last, after which no score is below 0"),
        (lambda logits_NK: logits_NK.softmax(1), 8, "Softmax comes last"),
        (lambda logits_NK: logits_NK.softmax(1)[:, 1:], 8, "Softmax comes last"),
        (lambda logits_NK: 0.2 + 0.5 * logits_NK.sigmoid(), 8, "as probabilities do, but no sigmoid comes last"),
    ],
)
def test_scores_on_one_side_of_the_threshold_are_refused(last, num_outputs, message):
    with pytest.raises(BadInputError, match=message):
        found(Ending(last, num_outputs), TaskKind.MULTI_LABEL)


def test_scores_that_come_last_are_refused():
    with pytest.raises(BadInputError, match="height and width before the scores") as caught:
        found(Ending(lambda maps_NCHW: maps_NCHW.permute(0, 2, 3, 1), pooled=False))
    assert "permute(0, 3, 1, 2)" in caught.value.hint


def test_answers_are_told_from_scores():
    with pytest.raises(BadInputError, match=r"found int64 \[2, 8, 16\]") as caught:
        found(Ending(lambda maps_NCHW: maps_NCHW.argmax(1), pooled=False), TaskKind.SEGMENTATION)
    assert "before argmax" in caught.value.hint


def test_several_outputs_are_named():
    heads = Ending(lambda logits_NK: {"digit": logits_NK[:, :5], "colour": logits_NK[:, 5:]})
    with pytest.raises(BadInputError, match=r"found dict of digit \[2, 5\], colour \[2, 3\]") as caught:
        found(heads)
    assert "output['digit'] or output['colour'], which have the shape of logits" in caught.value.hint
