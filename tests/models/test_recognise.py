"""torchvision's classifiers are told from keys and shapes, whatever their number of classes."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from edgerecover.models.recognise import num_torchvision_classes, recognise

SCRIPT = Path(__file__).parents[2] / "scripts" / "fingerprint_torchvision.py"


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
    installed = models.list_models(module=models)
    assert set(installed) <= set(known)
    assert script.table_of([name for name in known if name in installed]) == table
