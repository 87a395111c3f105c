"""Which of the things in a checkpoint are the weights."""

import pytest
import torch

from edgerecover.models.read.torch_files import NoWeightsError
from edgerecover.models.read.wrappings import EMA_KEYS, find_weights, plain_names

WEIGHTS = {"conv.weight": torch.ones(2, 1, 2, 2), "fc.weight": torch.ones(3, 2)}


def prefixed(prefix, weights=WEIGHTS):
    return {prefix + key: tensor for key, tensor in weights.items()}


@pytest.mark.parametrize("key", EMA_KEYS)
def test_an_average_beside_the_weights_is_told_apart(key):
    found = find_weights({"state_dict": WEIGHTS, key: prefixed("module."), "epoch": 3})
    assert found.plain.under == ("state_dict",)
    assert found.average.under == (key,)
    assert found.average.state.keys() == prefixed("module.").keys()


def test_an_average_inside_another_dictionary():
    found = find_weights({"checkpoint": {"model": WEIGHTS, "ema": {"state_dict": WEIGHTS}}})
    assert found.plain.under == ("checkpoint", "model")
    assert found.average.under == ("checkpoint", "ema", "state_dict")


def test_an_average_alone_beside_loose_tensors():
    found = find_weights({"model_ema": WEIGHTS, "best": torch.tensor(0.9)})
    assert found.plain is None
    assert found.average.state.keys() == WEIGHTS.keys()


def test_averaged_model_is_an_average():
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 3))
    found = find_weights(averaged.state_dict())
    assert found.plain is None
    assert set(plain_names(found.average.state)[0].values()) == {"weight", "bias", "n_averaged"}


def test_an_average_as_a_submodule_is_told_apart():
    found = find_weights({"state_dict": prefixed("model.") | prefixed("ema_model.module.")})
    assert found.plain.state.keys() == prefixed("model.").keys()
    assert found.average.state.keys() == prefixed("module.").keys()
    other = find_weights({"state_dict": prefixed("model.") | {"ema.other": torch.ones(1)}})
    assert other.average is None
    assert len(other.plain.state) == 3


def test_lightning_loses_what_only_training_uses():
    state = prefixed("model.") | {"criterion.weight": torch.ones(3)}
    found = find_weights({"state_dict": state, "pytorch-lightning_version": "2.4", "loops": {}})
    assert found.plain.state.keys() == prefixed("model.").keys()
    assert found.plain.kind == "Lightning checkpoint"
    assert len(find_weights({"state_dict": state}).plain.state) == 3


@pytest.mark.parametrize(
    ("beside", "arch"),
    [
        ({"arch": "resnet50"}, "resnet50"),
        ({"args": {"model": "resnet18"}}, "resnet18"),
        ({"arch": 7}, None),
        ({"arch": "\x1b[2J"}, None),
        ({}, None),
    ],
)
def test_the_architecture_a_script_left(beside, arch):
    assert find_weights({"state_dict": WEIGHTS} | beside).arch == arch


def test_wrappers_inside_keys_go():
    weights = {"module.layer1._orig_mod.0.weight": 1, "module.layer2._fsdp_wrapped_module.bias": 2}
    names, prefixes = plain_names(weights)
    assert (set(names.values()), prefixes) == ({"layer1.0.weight", "layer2.bias"}, ("module.",))


def test_dictionaries_that_hold_themselves_or_each_other_many_times_end():
    circle = {}
    circle["state_dict"] = circle
    with pytest.raises(NoWeightsError):
        find_weights(circle)
    deep = {}
    for _ in range(100):
        deep = dict.fromkeys(("state_dict", "model", "net", "module"), deep)
    with pytest.raises(NoWeightsError):
        find_weights(deep)


@pytest.mark.parametrize("wrap", [lambda parts: parts, lambda parts: {"model": parts, "epoch": 3}])
def test_parts_that_were_saved_each_on_its_own_are_joined(wrap):
    parts = {"backbone": {"conv.weight": torch.ones(2, 1, 2, 2)}, "head": {"weight": torch.ones(3, 2)}}
    optimizer = {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}
    found = find_weights(wrap(parts | optimizer))
    assert found.plain.state.keys() == {"backbone.conv.weight", "head.weight"}
    assert "joined from backbone and head" in found.plain.kind


@pytest.mark.parametrize("other", ["student", "discriminator", "val_metrics"])
def test_several_networks_are_not_parts_of_one(other):
    beside = WEIGHTS if other == "student" else {"loss.weight": torch.ones(2)}
    with pytest.raises(NoWeightsError, match="several sets of weights"):
        find_weights({"net_a": WEIGHTS, other: beside})


@pytest.mark.parametrize(
    ("content", "under"),
    [
        ((WEIGHTS, {"state": {}, "param_groups": []}), ("0",)),
        ([WEIGHTS], ("0",)),
        ([3, {"model": WEIGHTS}], ("1", "model")),
        (list(WEIGHTS.items()), ()),
    ],
)
def test_weights_in_tuples_and_lists(content, under):
    found = find_weights(content)
    assert (found.plain.state.keys(), found.plain.under) == (WEIGHTS.keys(), under)


def test_a_list_of_tensors_has_no_names():
    with pytest.raises(NoWeightsError, match="list of 2 tensors"):
        find_weights(list(WEIGHTS.values()))


def test_the_shadow_of_an_average():
    found = find_weights({"model": WEIGHTS, "ema": {"decay": 0.9, "shadow": WEIGHTS}})
    assert (found.plain.under, found.average.under) == (("model",), ("ema", "shadow"))
    assert found.unused == ()
