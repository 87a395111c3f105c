"""Networks by name from torchvision and timm: for any number of classes and input, and never from the network."""

import socket
import sys

import pytest
import torch

from edgerecover.artifacts import InputSpec, Pattern
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)
from edgerecover.models.build.completion import complete
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.name.libraries import (
    as_library_name,
    build_from_library,
    classifier_key,
    default_input,
    default_num_classes,
    library_of,
)
from edgerecover.models.name.spec import resolve
from edgerecover.models.pair.networks import inspect, open_models
from edgerecover.models.read.load import read_checkpoint
from edgerecover.pruning import Pruning, prune
from edgerecover.recovery.blocks import block_names, capture_outputs

GRAY = InputSpec((1, 32, 48), (0.5,), (0.25,))
TIMM = ("timm:test_resnet", "timm:test_vit", "timm:test_convnext", "timm:test_byobnet")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("something was looked up on the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def built(architecture, num_classes=None, input=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_from_library(architecture, num_classes, input).eval()


def test_whose_an_architecture_is():
    assert library_of("timm:resnet18") == "timm"
    assert library_of("torchvision:resnet18") == "torchvision"
    assert library_of("timm.py:resnet18") is None
    assert library_of("timm") is None
    assert library_of("nets.py:tiny") is None


def test_default_input_of_torchvision():
    spec = default_input("torchvision:inception_v3")
    assert spec.shape == (3, 299, 299)
    assert spec.mean == (0.485, 0.456, 0.406)
    assert default_input("torchvision:lraspp_mobilenet_v3_large").shape == (3, 520, 520)
    assert default_input("torchvision:no_such") is None
    assert default_input("nets.py:tiny") is None


def test_segmentation_networks_of_torchvision_are_built_and_have_their_own_number_of_classes():
    network = built("torchvision:lraspp_mobilenet_v3_large", 5)
    assert network(torch.zeros(2, 3, 32, 32))["out"].shape == (2, 5, 32, 32)
    assert default_num_classes("torchvision:fcn_resnet50") == 21
    assert default_num_classes("torchvision:resnet18") == 1000


@pytest.mark.parametrize(
    ("name", "side", "std"),
    [("ssdlite320_mobilenet_v3_large", 320, 0.5), ("ssd300_vgg16", 300, 1 / 255), ("fcos_resnet50_fpn", 800, 0.229)],
)
def test_a_detector_of_torchvision_has_the_input_of_its_own_transform(name, side, std):
    own = default_input(f"torchvision:{name}")
    assert own.shape == (3, side, side)
    assert own.std[0] == pytest.approx(std)
    assert default_num_classes(f"torchvision:{name}") is None


def test_detectors_are_built_without_a_backbone_from_the_network():
    network = built("torchvision:ssdlite320_mobilenet_v3_large", 3)
    assert network.state_dict()["head.classification_head.module_list.0.1.weight"].shape[0] == 6 * 3


@pytest.mark.parametrize("spelling", ["torchvision.models.detection:{}", "torchvision.models.detection.{}"])
def test_factories_that_download_are_read_as_names(spelling):
    name = "fcos_resnet50_fpn"
    assert as_library_name(spelling.format(name)) == f"torchvision:{name}"
    assert as_library_name("torchvision.models.segmentation:lraspp") == "torchvision:lraspp"
    for other in ("torchvision.models.quantization:resnet18", "nets.py:net", None):
        assert as_library_name(other) == other


def test_a_detector_of_two_stages_is_refused_by_name(tmp_path):
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "m.pt")
    with pytest.raises(BadInputError, match="maskrcnn_resnet50_fpn: a detector of two stages"):
        inspect(tmp_path / "m.pt", ModelFlags(arch="torchvision.models.detection:maskrcnn_resnet50_fpn"))


def test_a_detector_is_recognised_and_its_scale_is_its_own(tmp_path):
    torch.save(built("torchvision:ssdlite320_mobilenet_v3_large", 3).state_dict(), tmp_path / "m.pt")
    given = InputSpec((3, 64, 64), (0.0,) * 3, (1.0,) * 3)
    facts = inspect(tmp_path / "m.pt", ModelFlags(input=given, assumes_scale=True))
    assert facts.architecture == "torchvision:ssdlite320_mobilenet_v3_large"
    assert facts.architecture_source == "recognised from keys and shapes"
    assert (facts.num_classes, facts.output.shape) == (2, (144, 6))
    assert facts.input == InputSpec((3, 64, 64), (0.5,) * 3, (0.5,) * 3)
    assert facts.input_source == "--input-shape; mean and std of the network's own transform"
    silent = complete(resolve(tmp_path / "m.pt", NO_FLAGS, teacher=None), read_checkpoint(tmp_path / "m.pt"), NO_FLAGS)
    assert silent.input == InputSpec((3, 320, 320), (0.5,) * 3, (0.5,) * 3)
    assert silent.input_source == "the network's own transform"


def test_default_input_of_timm():
    assert default_input("timm:test_vit") == InputSpec((3, 160, 160), (0.5,) * 3, (0.5,) * 3)
    assert default_input("timm:resnet18.a1_in1k").mean == (0.485, 0.456, 0.406)
    assert default_input("timm:no_such") is None
    assert default_input("timm:hf-hub:anyone/anything") is None


@pytest.mark.parametrize("architecture", TIMM)
def test_timm_builds_for_classes_channels_and_size(architecture):
    network = built(architecture, 5, GRAY)
    assert network(torch.zeros(2, *GRAY.shape)).shape == (2, 5)
    assert network.state_dict()[classifier_key(architecture)].shape[0] == 5


def test_the_classifier_of_a_distilled_network_is_its_first():
    assert classifier_key("timm:deit_tiny_distilled_patch16_224") == "head.weight"
    assert classifier_key("timm:no_such") is None
    assert classifier_key("torchvision:resnet18") is None


def test_names_that_timm_would_look_up_are_refused():
    for name in ("hf-hub:anyone/anything", "local-dir:/tmp", "anyone/anything"):
        with pytest.raises(BadInputError, match="has no network"):
            built(f"timm:{name}")


def test_a_size_that_a_network_cannot_take_is_explained():
    with pytest.raises(BadInputError, match="building the network failed") as caught:
        built("timm:nest_tiny", None, InputSpec((3, 40, 24), (0.0,) * 3, (1.0,) * 3))
    assert "--input-shape" in caught.value.hint


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for ask in (built, default_input, classifier_key):
        with pytest.raises(MissingError) as caught:
            ask("timm:resnet18")
        assert caught.value.hint == pip_line("install 'edgerecover[timm]'")


@pytest.mark.parametrize("architecture", TIMM)
def test_a_checkpoint_of_timm_is_opened_and_pruned(architecture, tmp_path):
    torch.save({"arch": "x", "state_dict": built(architecture, 5).state_dict()}, tmp_path / "m.pt")
    facts = inspect(tmp_path / "m.pt", ModelFlags(arch=architecture))
    assert facts.num_classes == 5
    assert facts.input.shape == (3, 160, 160)
    assert facts.input_source == "assumed: timm's own weights"
    models = open_models(tmp_path / "m.pt", ModelFlags(arch=architecture, assume=True), will_prune=True)
    pruned = prune(models.student, Pruning("unstructured", 0.75), models.input)
    assert sum(int((~mask).sum()) for mask in pruned.masks.values()) == pytest.approx(
        0.75 * sum(mask.numel() for mask in pruned.masks.values()), abs=1
    )
    names = block_names(models.teacher)
    with capture_outputs(models.teacher, names) as features:
        models.teacher(torch.zeros(1, 3, 160, 160))
    assert set(features) == set(names)
    assert len(names) >= 3


def test_a_checkpoint_for_another_size_and_gray_images_is_opened(tmp_path):
    torch.save(built("timm:test_vit", 5, GRAY).state_dict(), tmp_path / "m.pt")
    (tmp_path / "model.toml").write_text('architecture = "timm:test_vit"\n[input]\nshape = [1, 32, 48]\n')
    facts = inspect(tmp_path / "m.pt", NO_FLAGS)
    assert (facts.num_classes, facts.sparsity.pattern) == (5, Pattern.DENSE)
    assert facts.input.shape == (1, 32, 48)
