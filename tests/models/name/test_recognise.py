"""torchvision's classifiers are told from keys and shapes, whatever their number of classes."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from edgerecover.artifacts import InputSpec
from edgerecover.models.name import recognise as recognise_module
from edgerecover.models.name.libraries import torchvision_names
from edgerecover.models.name.recognise import (
    num_torchvision_classes,
    recognise,
    recognise_narrower,
    shapes_of,
    without_auxiliary_heads,
)
from edgerecover.pruning import prune_channels

SCRIPT = Path(__file__).parents[3] / "scripts" / "fingerprint_torchvision.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fingerprint_torchvision", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_classifier_of_any_class_count_is_recognised(name, num_classes):
    state = models.get_model(name, num_classes=num_classes).state_dict()
    assert recognise(state) == f"torchvision:{name}"
    assert num_torchvision_classes(state, name) == num_classes


@pytest.mark.parametrize("aux_logits", [True, False])
def test_googlenet_is_recognised_with_and_without_auxiliary_heads(aux_logits):
    with torch.device("meta"):
        network = models.googlenet(aux_logits=aux_logits, init_weights=False, num_classes=5)
    assert recognise(network.state_dict()) == "torchvision:googlenet"
    assert num_torchvision_classes(network.state_dict(), "googlenet") == 5


@pytest.mark.parametrize("aux_loss", [True, False])
def test_segmentation_networks_are_recognised_with_and_without_auxiliary_heads(aux_loss):
    with torch.device("meta"):
        network = models.segmentation.fcn_resnet50(weights_backbone=None, aux_loss=aux_loss, num_classes=5)
    assert recognise(network.state_dict()) == "torchvision:fcn_resnet50"
    assert num_torchvision_classes(network.state_dict(), "fcn_resnet50") == 5
    kept = without_auxiliary_heads(network.state_dict())
    assert set(kept) == set(shapes_of("fcn_resnet50", 5))


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large"])
def test_detectors_are_recognised_with_any_number_of_classes(name):
    with torch.device("meta"):
        state = models.get_model(name, weights_backbone=None, num_classes=5).state_dict()
    assert recognise(state) == f"torchvision:{name}"
    assert num_torchvision_classes(state, name) == 5
    frozen = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert recognise(frozen) == f"torchvision:{name}"


def test_batch_counters_may_be_missing():
    state = {k: v for k, v in models.resnet18().state_dict().items() if "num_batches" not in k}
    assert recognise(state) == "torchvision:resnet18"


def test_others_are_not_recognised(network):
    assert recognise(network.state_dict()) is None
    resnet = models.resnet18()
    resnet.fc = nn.Sequential(nn.Linear(512, 4))
    assert recognise(resnet.state_dict()) is None
    assert recognise({}) is None


@pytest.mark.slow
def test_the_table_is_what_the_script_makes_of_the_installed_torchvision(script):
    table = json.loads(script.TABLE.read_text(encoding="utf-8"))
    known = [name for family in table for name in family["architectures"]]
    installed = torchvision_names()
    assert set(installed) <= set(known)
    assert script.table_of([name for name in known if name in installed]) == table


# --- fewer channels -------------------------------------------------------------------------------------


def state_of(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def narrowed(shapes, fraction, head):
    """As pruning leaves them: image channels, classes, groups of depthwise convolutions and kernels stay."""

    def less(size):
        return max(1, int(size * fraction))

    def shape_of(key, shape):
        if len(shape) == 0:
            return shape
        outputs = shape[0] if key in head else less(shape[0])
        inputs = [size if len(shape) == 4 and size in (1, 3) else less(size) for size in shape[1:2]]
        return (outputs, *inputs, *shape[2:])

    return {key: shape_of(key, shape) for key, shape in shapes.items()}


def head_of(name):
    table = json.loads((Path(recognise_module.__file__).with_name("torchvision_fingerprints.json")).read_text("utf-8"))
    return next(family["head"] for family in table if name in family["architectures"])


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "wide_resnet50_2",
        "resnext50_32x4d",
        "vgg11_bn",
        "mobilenet_v2",
        "mnasnet0_5",
        "squeezenet1_1",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_a_channel_pruned_classifier_is_recognised_and_a_full_one_is_no_narrower_other(name):
    shapes = shapes_of(name, 7)
    assert recognise(state_of(shapes)) == f"torchvision:{name}"
    assert recognise_narrower(state_of(shapes)) == f"torchvision:{name}"
    pruned = state_of(narrowed(shapes, 0.75, head_of(name)))
    assert recognise(pruned) is None
    assert recognise_narrower(pruned) == f"torchvision:{name}"


@pytest.mark.slow
def test_no_classifier_of_full_width_is_read_as_a_narrower_other():
    for name in torchvision_names():
        shapes = shapes_of(name, 7)
        assert recognise(state_of(shapes)) == f"torchvision:{name}"
        assert recognise_narrower(state_of(shapes)) == f"torchvision:{name}", name


def test_what_torch_pruning_leaves_is_recognised():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = models.resnet18(num_classes=5).eval()
    pruned = prune_channels(dense, InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3), 0.5)
    assert recognise(pruned.state_dict()) is None
    assert recognise_narrower(pruned.state_dict()) == "torchvision:resnet18"


def test_wider_layers_and_other_kernels_are_no_narrower_network():
    shapes = shapes_of("resnet18", 7)
    for key, shape in (("conv1.weight", (65, 3, 7, 7)), ("conv1.weight", (32, 3, 5, 5)), ("extra", (1,))):
        assert recognise_narrower(state_of(shapes | {key: shape})) is None
