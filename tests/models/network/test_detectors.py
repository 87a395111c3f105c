"""torchvision's detectors give the candidates that torchvision itself suppresses boxes among."""

import copy
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, clip_boxes_to_image

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.models.build.outputs import find_output
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.detectors import (
    check_detector,
    gives_candidates,
    own_input,
    return_candidates,
    warning_of,
)
from edgerecover.models.network.outputs import own_network, read_as_logits
from edgerecover.models.pair.networks import open_models, open_network
from edgerecover.pruning import prune_channels
from edgerecover.pruning.ends import known_ends
from tests.detectors import INPUT, MAKERS, MEAN, SIDES, STD, draw, make_fcos, make_ssd


def images(num_images=2, sides=SIDES):
    """Pixels from 0 to 1."""
    return torch.rand(num_images, 3, *sides, generator=torch.Generator().manual_seed(1))


def normalised(pixels_NCHW):
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (MEAN, STD))
    return (pixels_NCHW - mean) / std


def made(name):
    """A detector that keeps every box."""
    network = draw(MAKERS[name]())
    network.score_thresh, network.nms_thresh = -1, 2
    network.topk_candidates = network.detections_per_img = 100_000
    return network


def check_same(values_AV, expected, sides, first_label):
    """Candidates hold the boxes and scores that torchvision returns, in whatever order equal scores are."""
    boxes_A4 = clip_boxes_to_image(box_convert(values_AV[:, :4], "cxcywh", "xyxy"), sides)
    for number, scores_A in enumerate(values_AV[:, 4:].sigmoid().T):
        chosen = expected["labels"] == number + first_label
        scores, boxes = expected["scores"][chosen], expected["boxes"][chosen]
        assert len(scores) == len(scores_A)
        torch.testing.assert_close(scores_A.sort().values, scores.sort().values, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(boxes_A4.sort(0).values, boxes.sort(0).values, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(scores_A @ boxes_A4, scores @ boxes, atol=1e-2, rtol=1e-4)  # which belongs to which
    assert len(expected["labels"].unique()) == values_AV.shape[1] - 4


@pytest.mark.parametrize("name", MAKERS)
def test_candidates_are_what_torchvision_suppresses_boxes_among(name):
    network = made(name)
    pixels = images()
    with torch.no_grad():
        expected = network(list(pixels))
        return_candidates(network, name)
        found = network(normalised(pixels))
    for one, values_AV in zip(expected, found, strict=True):
        check_same(values_AV, one, SIDES, first_label=int(name == "ssd"))


def test_sides_that_the_network_cannot_divide_are_filled_up_as_torchvision_does():
    network = made("fcos")
    network.transform.min_size, network.transform.max_size = (40,), 41
    pixels = images(1, (40, 41))
    with torch.no_grad():
        expected = network(list(pixels))[0]
        return_candidates(network, "fcos")
        check_same(network(normalised(pixels))[0], expected, (40, 41), first_label=0)


def test_weights_of_frozen_batch_norm_open_with_batch_norm_and_load_back(tmp_path):
    frozen = draw(MAKERS["frozen"]())
    torch.save(frozen.state_dict(), tmp_path / "model.pt")
    flags = ModelFlags(arch="tests.detectors:make_retinanet", input=INPUT)
    opened, _ = open_network(tmp_path / "model.pt", flags)
    assert isinstance(opened.backbone.near[1], nn.BatchNorm2d)
    again = MAKERS["frozen"]()
    again.load_state_dict(own_network(opened).state_dict())
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in frozen.state_dict().items())


def test_scores_of_any_size_have_finite_logits_and_gradients():
    network = draw(make_ssd())
    return_candidates(network, "ssd")
    with torch.no_grad():
        for layer in network.head.classification_head.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= 1e4
    outputs = network(normalised(images()))
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "factor"), [("ssd", 4), ("fcos", 30)])
def test_the_exported_file_gives_the_same_logits_however_low_they_are(name, factor, tmp_path):
    network = made(name)
    return_candidates(network, name)
    with torch.no_grad():
        for layer in known_ends(network, images(1)):
            network.get_submodule(layer).weight.mul_(factor if "classification" in layer else 1)
        expected = network(normalised(images(1)))
    assert expected[..., 4:].min() < -30
    export(network, INPUT, tmp_path / "model.onnx", opset=18)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"input": normalised(images(1)).numpy()})[0])
    torch.testing.assert_close(found[..., :4], expected[..., :4], atol=1e-2, rtol=1e-3)
    # Of what is nearly sure, float32 rounds 1 - p.
    torch.testing.assert_close(found[..., 4:].clamp(max=8), expected[..., 4:].clamp(max=8), atol=1e-2, rtol=1e-3)


def test_names_of_weights_stay_and_the_network_is_its_makers_again():
    network = make_fcos()
    expected = copy.deepcopy(network).eval()
    return_candidates(network, "fcos")
    assert network.state_dict().keys() == expected.state_dict().keys()
    itself = own_network(network)
    assert type(itself) is type(expected)
    with torch.no_grad():
        assert itself([images()[0]])[0].keys() == {"boxes", "scores", "labels"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "ssd",
            {f"{kind}_head.module_list.{number}" for kind in ("classification", "regression") for number in (0, 1)},
        ),
        ("fcos", {"classification_head.cls_logits", "regression_head.bbox_reg", "regression_head.bbox_ctrness"}),
        ("retinanet", {"classification_head.cls_logits", "regression_head.bbox_reg"}),
    ],
)
def test_the_last_layers_are_found(name, expected):
    network = made(name)
    assert known_ends(network, images()) == ()
    return_candidates(network, name)
    assert set(known_ends(network, images())) == {f"head.{layer}" for layer in expected}


@pytest.mark.parametrize("name", ["ssd", "retinanet"])
def test_channels_are_followed_to_the_known_ends(name):
    network = made(name)
    return_candidates(network, name)
    with torch.no_grad():
        shape = tuple(network(images()).shape[1:])
    read_as_logits(network, OutputSpec(TaskKind.DETECTION, shape, input_sides=SIDES))
    narrower = prune_channels(network, INPUT, 0.3)
    assert narrower(images()).shape == network(images()).shape
    assert len(narrower.backbone.near[0].weight) < 8
    last = {f"{layer}.weight" for layer in known_ends(network, images())}
    kept = {key: len(weight) for key, weight in narrower.named_parameters() if key in last}
    assert kept == {key: len(weight) for key, weight in network.named_parameters() if key in last}


def test_other_networks_stay_as_they_are():
    class Own(SSD):
        def forward(self, images_NCHW):
            return self.backbone(images_NCHW)["0"]

    own = make_ssd()
    own.__class__ = Own
    for network in (own, nn.Conv2d(3, 4, 1)):
        kind = type(network)
        return_candidates(network, "nets.py:net")
        assert type(network) is kind
        assert not gives_candidates(network)
        assert warning_of(network) is None
        check_detector(network, InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3), "nets.py:net")


def test_two_stages_are_refused_with_what_would_do():
    backbone = nn.Conv2d(3, 8, 4, 4)
    backbone.out_channels = 8
    network = FasterRCNN(backbone, 3, rpn_anchor_generator=AnchorGenerator(((8,),), ((1.0,),)))
    with pytest.raises(BadInputError) as told:
        return_candidates(network, "nets.py:faster")
    assert "nets.py:faster: a detector of two stages" in told.value.message
    assert "ssdlite320_mobilenet_v3_large" in told.value.hint
    assert "candidates of its first stage" in told.value.hint


def test_the_transform_says_what_inputs_are():
    ssd, fcos = make_ssd(), make_fcos()
    assert own_input(ssd) == INPUT
    assert own_input(fcos) == InputSpec((3, 32, 32), MEAN, STD)


def test_another_scale_and_too_small_an_input_are_refused():
    network = make_ssd().eval()
    return_candidates(network, "ssd")
    check_detector(network, INPUT, "model.pt (nets.py:ssd)")
    with pytest.raises(BadInputError, match="own transform makes inputs from -2 to 3, and") as told:
        check_detector(network, InputSpec(INPUT.shape, (0.0,) * 3, (1.0,) * 3), "model.pt (nets.py:ssd)")
    assert "--mean 0.4,0.5,0.6 --std 0.2,0.25,0.3" in told.value.hint
    many = make_fcos(200).eval()
    return_candidates(many, "fcos")
    with pytest.raises(BadInputError, match="too few to distinguish the two axes") as told:
        check_detector(many, INPUT, "model.pt (nets.py:fcos)")
    assert "larger input" in told.value.hint


def test_the_background_has_no_name():
    network = draw(make_ssd())
    return_candidates(network, "ssd")
    names = ("background", "disc", "square", "star")
    said = ModelSpec("nets.py:ssd", "--arch", Path(), None, INPUT, "model.toml", names, classes_source="model.toml")
    with pytest.raises(BadInputError, match="gives 3 classes, but model\\.toml names 4") as told:
        find_output(network, INPUT, said)
    assert "that of the background, leave it out" in told.value.hint
    with pytest.raises(BadInputError, match="does not fit segmentation"):
        find_output(network, INPUT, replace(said, classes=None, task=TaskKind.SEGMENTATION))


def test_task_and_scores_are_known(tmp_path):
    dense = draw(make_ssd())
    torch.save(dense.state_dict(), tmp_path / "dense.pt")
    for layer in dense.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data[:, ::2] = 0
    torch.save(dense.state_dict(), tmp_path / "model.pt")
    flags = ModelFlags(arch="tests.detectors:make_ssd", input=INPUT)
    models = open_models(tmp_path / "model.pt", flags, teacher=tmp_path / "dense.pt", will_prune=False)
    assert models.output.task is TaskKind.DETECTION
    assert models.output.num_classes == 3
    assert models.output.activation is Activation.NONE
    assert models.output.has_candidates_first
    assert "backbone.near.3.weight" in models.masks
    assert any("without what surrounds it" in warning for warning in models.warnings)
    assert models.student_facts.num_batch_norms == 2
