"""Of outputs of one shape that may be several things, nothing is guessed."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec, OutputPart, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import build
from edgerecover.models.build.outputs import find_output
from edgerecover.models.build.task import doubts_of_objectness, is_another_image
from tests.models.build.test_boxes import SAID_NOTHING

INPUT = InputSpec((3, 8, 16), (0.5,) * 3, (0.25,) * 3)


class Ending(nn.Module):
    """A convolution, pooled or not, and what comes last."""

    def __init__(self, last, num_outputs=40, *, pooled=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, num_outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(num_outputs)
        self.last, self.pooled = last, pooled

    def forward(self, images_NCHW):
        maps_NCHW = self.conv(images_NCHW)
        return self.last(maps_NCHW.mean((2, 3)) if self.pooled else maps_NCHW)


def found(network, **said):
    return find_output(network.eval(), INPUT, replace(SAID_NOTHING, **said))


def features(network):
    return lambda maps_NCHW: network.norm(maps_NCHW).relu().mean((2, 3))


@pytest.mark.parametrize(
    ("last", "num_outputs", "message"),
    [
        (torch.tanh, 48, "a tanh comes last"),
        (torch.tanh, 8, "a tanh comes last"),
        (lambda x_ND: F.layer_norm(x_ND, (40,)), 40, "but LayerNorm"),
        (F.hardswish, 64, "no layer of scores comes last, but Hardswish"),
        (lambda x_ND: torch.cat([x_ND[:, :6], x_ND[:, 6:]], 1), 10, "several parts are put together last"),
        (lambda x_ND: F.softplus(x_ND).cumsum(1), 3, "sums of steps come last, as for quantiles"),
        (lambda x_N1: x_N1 - torch.linspace(-2, 2, 7), 1, "in order for every image"),
    ],
)
def test_rows_that_are_hardly_classes_are_asked_about(last, num_outputs, message):
    network = Ending(last, num_outputs)
    with pytest.raises(BadInputError, match=message) as caught:
        found(network)
    assert "--task embedding" in caught.value.hint
    assert found(network, task=TaskKind.ONE_LABEL).task is TaskKind.ONE_LABEL


def test_a_row_of_sigmoids_is_asked_about_whatever_its_classes_are_called():
    network = Ending(torch.sigmoid, 8)
    for said in ({}, {"classes": tuple("abcdefgh")}):
        with pytest.raises(BadInputError, match="each through a sigmoid, as where each decides for itself") as caught:
            found(network, **said)
        assert "--task multi-label if each decides" in caught.value.hint
    for task in (TaskKind.ONE_LABEL, TaskKind.MULTI_LABEL, TaskKind.REGRESSION):
        assert found(network, task=task).task is task


def test_features_are_known_before_they_are_pooled():
    network = Ending(None, pooled=False)
    network.last = features(network)
    with pytest.raises(BadInputError, match="but Relu, as in networks that give features"):
        found(network)
    assert found(network, task=TaskKind.EMBEDDING) == OutputSpec(TaskKind.EMBEDDING, (40,))


NETS = """
import torch
from torch import nn

class Pooled(nn.Sequential):
    def __init__(self, num_maps, *last):
        super().__init__(nn.Conv2d(3, num_maps, 1), *last, nn.AdaptiveAvgPool2d(1), nn.Flatten())

def squeeze(num_classes=1000):
    return Pooled(num_classes, nn.ReLU())

def normed(num_classes=1000):
    return Pooled(num_classes, nn.BatchNorm2d(num_classes))

def features(num_classes=1000):
    return Pooled(40, nn.ReLU())

def fixed():
    return Pooled(40, nn.ReLU())

def broken(num_classes=40):
    if num_classes != 40:
        raise ValueError("no")
    return squeeze(40)

def hashed(num_classes=1000):
    return nn.Sequential(squeeze(num_classes), nn.Tanh())

def two(num_classes=1000):
    class Two(Pooled):
        def forward(self, images_NCHW):
            logits_NK = super().forward(images_NCHW)
            return logits_NK, logits_NK + 1
    return Two(num_classes, nn.ReLU())
"""


@pytest.mark.parametrize(
    ("factory", "is_one_label"),
    [
        ("squeeze", True),
        ("normed", False),
        ("features", False),
        ("fixed", False),
        ("broken", False),
        ("hashed", False),
        ("two", False),
    ],
)
def test_a_map_for_each_of_the_factorys_classes_is_a_score(tmp_path, factory, is_one_label):
    """What SqueezeNet gives looks as features do; a factory that has a class more and gives an output more tells."""
    (tmp_path / "counting.py").write_text(NETS)
    said = {"architecture": f"counting.py:{factory}", "base_dir": tmp_path}
    network = build(said["architecture"], tmp_path, 40)
    before = torch.get_rng_state()
    if factory == "two":
        network = nn.Sequential(network, First())
    if is_one_label:
        assert found(network, **said) == OutputSpec.one_label(40)
    else:
        with pytest.raises(BadInputError, match="last"):
            found(network, **said)
    assert torch.equal(torch.get_rng_state(), before)


class First(nn.Module):
    def forward(self, outputs):
        return outputs[0]


def test_few_numbers_and_named_ones_are_classes():
    assert found(Ending(F.relu, 10)).task is TaskKind.ONE_LABEL
    named = tuple(f"c{i}" for i in range(40))
    assert found(Ending(F.relu), classes=named).task is TaskKind.ONE_LABEL
    assert found(Ending(F.relu), architecture="torchvision:squeezenet1_1").task is TaskKind.ONE_LABEL


@pytest.mark.parametrize(
    ("last", "num_outputs", "message"),
    [
        (lambda maps: maps, 1, "one mask, or another image"),
        (lambda maps: maps, 3, "one mask, or another image"),
        (lambda maps: F.interpolate(maps, scale_factor=2), 4, "one mask, or another image"),
        (torch.sigmoid, 17, "a sigmoid comes last, as for heat maps"),
        (F.softplus, 5, "Softplus comes last"),
        (lambda maps: torch.cat([maps[:, :3].sigmoid(), maps[:, 3:]], 1), 7, "several parts are put together"),
    ],
)
def test_maps_that_may_be_values_are_asked_about(last, num_outputs, message):
    network = Ending(last, num_outputs, pooled=False)
    with pytest.raises(BadInputError, match=message) as caught:
        found(network)
    assert "--task regression for values: depth" in caught.value.hint
    assert found(network, task=TaskKind.SEGMENTATION).num_classes == num_outputs
    assert found(network, task=TaskKind.REGRESSION).task is TaskKind.REGRESSION


@pytest.mark.parametrize("last", [lambda maps: maps, lambda maps: maps.softmax(1), lambda maps: maps.log_softmax(1)])
def test_maps_of_scores_are_segmentation(last):
    assert found(Ending(last, 5, pooled=False)).task is TaskKind.SEGMENTATION


def test_values_have_any_shape():
    points = Ending(lambda x_ND: x_ND.reshape(-1, 17, 2), 34)
    with pytest.raises(BadInputError, match="points") as caught:
        found(points)
    assert "--task regression" in caught.value.hint
    output = found(points, task=TaskKind.REGRESSION)
    assert (output.shape, output.description) == ((17, 2), "image regression, 17 × 2 values")
    squeezed = Ending(lambda maps_N1HW: maps_N1HW[:, 0], 1, pooled=False)
    assert found(squeezed, task=TaskKind.REGRESSION).shape == (1, 8, 16)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 4, 8), True),
        ((3, 8, 16), True),
        ((3, 16, 32), True),
        ((9, 16, 32), True),
        ((3, 2, 4), False),
        ((2, 8, 16), False),
    ],
)
def test_maps_as_large_as_the_image_may_be_one(shape, expected):
    assert is_another_image(shape, INPUT.shape) is expected


@pytest.mark.parametrize(
    ("shape", "has_classes", "says"),
    [((90, 6), False, True), ((90, 6), True, False), ((90, 5), False, False), ((6, 90), False, False)],
)
def test_a_first_score_that_may_say_whether_there_is_an_object_is_doubted(shape, has_classes, says):
    doubts = doubts_of_objectness(OutputSpec(TaskKind.DETECTION, shape), has_classes=has_classes)
    assert len(doubts) == says
    assert all(doubt.startswith("the first of the 2 scores of a candidate is taken for a class") for doubt in doubts)


def test_such_a_score_of_one_of_several_outputs_is_doubted():
    boxes = OutputPart("boxes", OutputSpec(TaskKind.DETECTION, (90, 6)))
    one_label = OutputPart("digit", OutputSpec.one_label(3))
    (doubt,) = doubts_of_objectness(OutputSpec.several((boxes, one_label)), has_classes=False)
    assert doubt.startswith("boxes: the first of the 2 scores")
    named = OutputSpec.several((replace(boxes, classes=("a", "b")), one_label))
    assert doubts_of_objectness(named, has_classes=False) == ()
