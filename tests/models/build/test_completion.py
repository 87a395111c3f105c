"""What a checkpoint adds to what was said about it."""

from pathlib import Path

import torch
import torchvision

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
