"""What checkpoints of other tools say of their own classes and images."""

import argparse
import sys
import types

import pytest
import torch
import torchvision
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.models.name.flags import NO_FLAGS
from edgerecover.models.pair.networks import inspect
from edgerecover.models.read.cards import PartialInput
from edgerecover.models.read.load import read_checkpoint

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CONFIG = """
data_preprocessor = dict(num_classes=2, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
work_dir = __import__('os').getcwd()
"""


def saved(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return read_checkpoint(tmp_path / "model.pt")


# --- MMEngine ----------------------------------------------------------------------------------------------------


def mmengine(network, **meta):
    return {"meta": meta, "state_dict": network.state_dict(), "message_hub": {}}


def test_classes_and_preprocessing_of_mmengine(tmp_path, network):
    content = mmengine(network, dataset_meta={"classes": ("cat", "dog")}, cfg=CONFIG)
    card = saved(tmp_path, content).card
    assert card.classes == ("cat", "dog")
    assert card.input == PartialInput(mean=tuple(MEAN), std=tuple(STD), range=(0.0, 255.0))
    assert card.input_source == "cfg in the file"


def test_an_older_configuration_and_one_without_a_flip(tmp_path, network):
    text = "img_norm_cfg = {'mean': [1.0, 2.0, 3.0], 'std': [4.0, 5.0, 6.0], 'to_rgb': False}"
    card = saved(tmp_path, mmengine(network, cfg=text, CLASSES=["a", "b"])).card
    assert (card.classes, card.input.mean) == (("a", "b"), (1.0, 2.0, 3.0))
    assert card.input_source == "cfg in the file, channels blue, green, red"


@pytest.mark.parametrize("text", ["data_preprocessor = dict(mean=get(), std=[1.0])", "def (", "", "x" * 10, None, 3])
def test_a_configuration_that_says_nothing(tmp_path, network, text):
    assert saved(tmp_path, mmengine(network, cfg=text)).card is None


def test_emahook_swaps_what_it_saves(tmp_path, network):
    """MMEngine's EMAHook writes the average as `state_dict`, and the plain weights as `ema_state_dict`."""
    plain = {f"module.{key}": tensor + 1 for key, tensor in network.state_dict().items()}
    content = mmengine(network) | {"ema_state_dict": plain | {"steps": torch.tensor(7)}}
    checkpoint = saved(tmp_path, content)
    assert torch.equal(checkpoint.tensors["4.bias"], network.state_dict()["4.bias"])
    assert "the running average (EMA) of the weights beside the plain ones under 'ema_state_dict'" in checkpoint.format


# --- arguments of training scripts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"input_size": [1, 28, 24], "mean": [0.5], "std": [0.25]}, PartialInput((1, 28, 24), (0.5,), (0.25,))),
        ({"img_size": 96, "mean": [0.5] * 3, "std": [0.25] * 3}, PartialInput((3, 96, 96), (0.5,) * 3, (0.25,) * 3)),
        ({"val_crop_size": 200, "mean": None, "std": None}, PartialInput((3, 200, 200))),
        ({"mean": [0.5] * 3, "std": None, "img_size": None}, None),
        ({"input_size": 784}, None),
    ],
)
def test_arguments_of_a_script(tmp_path, network, told, said):
    for content in ({"args": argparse.Namespace(**told)}, {"args": told}, {"hyper_parameters": told}):
        card = saved(tmp_path, content | {"state_dict": network.state_dict()}).card
        assert (card.input if card else None) == said


def test_a_size_of_torchvisions_script_goes_with_its_mean(tmp_path):
    state = torchvision.models.squeezenet1_1(num_classes=3).state_dict()
    saved(tmp_path, {"model": state, "args": argparse.Namespace(model="squeezenet1_1", val_crop_size=96)})
    facts = inspect(tmp_path / "model.pt", NO_FLAGS)
    assert facts.input == InputSpec((3, 96, 96), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert facts.input_source == "args in the file, and torchvision's own weights"


# --- ultralytics and fastai, whose own files benchmarks/tool_files.py makes ---------------------------------------


def class_of(monkeypatch, full_name, base=object):
    """A class of another library's name, which pickles find there while the test lasts."""
    module, _, name = full_name.rpartition(".")
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        package = ".".join(parts[:end])
        if not isinstance(sys.modules.get(package), types.ModuleType):
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    made = type(name, (base,), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], name, made, raising=False)
    return made


def test_names_and_transforms_of_ultralytics(tmp_path, network, monkeypatch):
    whole = network.half()
    whole.__class__ = class_of(monkeypatch, "ultralytics.nn.tasks.ClassificationModel", nn.Sequential)
    whole.names = {0: "cat", 1: "dog", 2: "emu"}
    whole.transforms = torchvision.transforms.Compose([torchvision.transforms.Normalize((0.0,) * 3, (1.0,) * 3)])
    card = saved(tmp_path, {"model": whole, "ema": None, "train_args": {"imgsz": 64}}).card
    assert card.classes == ("cat", "dog", "emu")
    assert card.input == PartialInput((3, 64, 64), (0.0,) * 3, (1.0,) * 3)


def test_the_network_in_a_learner_of_fastai(tmp_path, network, monkeypatch):
    learner = class_of(monkeypatch, "fastai.learner.Learner")()
    vocabulary = class_of(monkeypatch, "fastai.data.transforms.CategoryMap")()
    vocabulary.items = ["ant", "bee", "cat"]
    learner.model, learner.dls, learner.loss_func = network, [vocabulary], nn.CrossEntropyLoss()
    checkpoint = saved(tmp_path, learner)
    assert checkpoint.tensors.keys() == network.state_dict().keys()
    assert checkpoint.card.classes == ("ant", "bee", "cat")
