"""What a checkpoint adds to what was said about it."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torchvision

from edgerecover.artifacts import InputSpec
from edgerecover.models.build import completion
from edgerecover.models.build.completion import complete, no_architecture
from edgerecover.models.name.flags import NO_FLAGS
from edgerecover.models.name.spec import UNKNOWN, ModelSpec
from edgerecover.models.read.load import read_checkpoint

NOTHING_SAID = ModelSpec(None, UNKNOWN, Path(), None, None, UNKNOWN, None)


def checkpoint_of(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return read_checkpoint(tmp_path / "model.pt")


def test_the_name_in_the_file_is_used_when_the_keys_are_its(tmp_path):
    state = torchvision.models.squeezenet1_1(num_classes=10).state_dict()
    state["features.0.weight"] = state["features.0.weight"][:32]
    spec = complete(NOTHING_SAID, checkpoint_of(tmp_path, {"arch": "squeezenet1_1", "state_dict": state}), NO_FLAGS)
    assert (spec.architecture, spec.architecture_source) == ("torchvision:squeezenet1_1", "named in the file")
    other = checkpoint_of(tmp_path, {"arch": "squeezenet1_1", "state_dict": {"fc.weight": torch.ones(2, 2)}})
    assert complete(NOTHING_SAID, other, NO_FLAGS).architecture is None
    assert "squeezenet1_1" in no_architecture(other).message


CFG = "data_preprocessor = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=True)"


@pytest.mark.parametrize(
    ("shape", "assumes_scale", "pixels", "mean"),
    [
        ((3, 8, 8), True, (0.0, 1.0), (100.0, 110.0, 120.0)),
        ((3, 8, 8), False, (0.0, 1.0), (0.5, 0.5, 0.5)),  # the user said what they are
        ((3, 8, 8), True, (0.0, 255.0), (0.5, 0.5, 0.5)),  # and here, what pixels are
        ((2, 8, 8), True, (0.0, 1.0), (0.5, 0.5)),  # the file's are of another image
    ],
)
def test_mean_and_std_in_the_file_are_used_where_the_shape_alone_was_given(
    tmp_path, shape, assumes_scale, pixels, mean
):
    half = (0.5,) * shape[0]
    spec = dataclasses.replace(
        NOTHING_SAID,
        architecture="nets.py:net",
        input=InputSpec(shape, half, half, pixels),
        input_source="--input-shape",
        assumes_scale=assumes_scale,
    )
    checkpoint = checkpoint_of(tmp_path, {"meta": {"cfg": CFG}, "state_dict": {"fc.weight": torch.ones(2, 2)}})
    completed = complete(spec, checkpoint, NO_FLAGS)
    assert (completed.input.shape, completed.input.mean) == (shape, mean)
    if mean[0] == 100:
        assert completed.input.range == (0.0, 255.0)
        assert completed.input_source == "--input-shape; mean and std of cfg in the file"
        assert not completed.assumes_scale


def test_a_name_that_is_none_changes_nothing(tmp_path):
    for arch in ("resnet9000", "__init__", "models"):
        checkpoint = checkpoint_of(tmp_path, {"arch": arch, "state_dict": {"fc.weight": torch.ones(2, 2)}})
        assert complete(NOTHING_SAID, checkpoint, NO_FLAGS).architecture is None


def test_a_small_file_that_names_a_large_network_takes_no_memory_for_it(tmp_path, monkeypatch):
    checkpoint = checkpoint_of(tmp_path, {"arch": "vgg19", "state_dict": {"fc.weight": torch.ones(2, 2)}})
    devices = []
    build = completion.build

    def watched(*described):
        network = build(*described)
        devices.extend(parameter.device.type for parameter in network.parameters())
        return network

    monkeypatch.setattr(completion, "build", watched)
    complete(NOTHING_SAID, checkpoint, NO_FLAGS)
    assert set(devices) == {"meta"}
