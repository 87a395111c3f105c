"""A checkpoint that does not fit: what the hint says, and prefixes that settle it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import load_into
from edgerecover.models.build.misfits import fitting_prefixes, hint_of_misfit, shared_prefix
from edgerecover.models.build.opening import fit_keys
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.read.load import read_checkpoint

NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))
STATE = NETWORK.state_dict()
SPEC = ModelSpec(None, None, Path(), None, None, None, None)


def under(*prefixes):
    return {prefix + key: tensor for prefix in prefixes for key, tensor in STATE.items()}


def hint(tensors):
    with pytest.raises(BadInputError) as caught:
        load_into(NETWORK, tensors, what="model.pt")
    assert caught.value.hint == hint_of_misfit(STATE, tensors, "--arch")
    return caught.value.hint


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        ({key: t for key, t in STATE.items() if "running" not in key}, "save model.state_dict(), which has them"),
        (
            under("student.", "teacher."),
            "the keys under 'student.' and 'teacher.' fit it: save the ones that are meant",
        ),
        (
            {f"{key}_orig" if key == "3.weight" else key: t for key, t in STATE.items()},
            "weights of torch.nn.utils.prune need the masks beside them",
        ),
        (under("net.a.") | {"head.weight": torch.ones(2)}, "the keys under 'net.a.' fit it: save those alone"),
        (STATE | {"3.weight": torch.ones(9, 4), "3.bias": torch.ones(9)}, "9 outputs in the file and 5 in the network"),
        (STATE | {"3.weight": torch.ones(9, 7), "3.bias": torch.ones(9)}, "name the architecture"),
        (STATE | {"mean": torch.ones(3)}, "all else fits: name the architecture that the checkpoint was trained with"),
        (STATE | {"mean": torch.ones(3)}, "{k: v for k, v in state.items() if k in model.state_dict()}"),
        ({key: t for key, t in STATE.items() if not key.startswith("3.")}, "save the whole model.state_dict()"),
        ({"weight": torch.ones(1)}, "name the architecture"),
    ],
)
def test_the_hint_fits_the_cause(tensors, part):
    assert part in hint(tensors)


def test_prefixes():
    assert fitting_prefixes(STATE, under("a.", "b.c.")) == ["a.", "b.c."]
    assert fitting_prefixes(STATE, {**under("a."), "a.0.weight": torch.ones(1)}) == []
    assert shared_prefix(["a.b.x", "a.b.y", "a.b.z.w"]) == "a.b."
    assert shared_prefix(["ab.x", "ac.y"]) == ""
    assert shared_prefix(["x"]) == ""
    assert shared_prefix([]) == ""


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = NETWORK


@pytest.mark.parametrize(
    ("state", "network"),
    [(under("backbone."), NETWORK), (under("module.backbone.body."), NETWORK), (STATE, Wrapped())],
)
def test_a_prefix_that_is_on_one_side_alone_settles_it(tmp_path, state, network):
    torch.save(
        state | {"backbone.steps": torch.tensor(3)} if "backbone.0.weight" in state else state, tmp_path / "m.pt"
    )
    fitted = fit_keys(read_checkpoint(tmp_path / "m.pt"), network, SPEC)
    assert fitted.tensors.keys() == network.state_dict().keys()
    load_into(network, fitted.tensors, what="m.pt")


def test_of_a_lightning_module_the_network_alone_is_taken(tmp_path):
    version = {"pytorch-lightning_version": "2.5"}
    beside = {"confusion.matrix": torch.zeros(5, 5)}
    torch.save({"state_dict": under("net.") | beside} | version, tmp_path / "model.ckpt")
    fitted = fit_keys(read_checkpoint(tmp_path / "model.ckpt"), NETWORK, SPEC)
    assert fitted.tensors.keys() == STATE.keys()
    assert "prefix 'net.', 'confusion.matrix' beside it left out" in fitted.format
    torch.save({"state_dict": under("net.", "teacher.")} | version, tmp_path / "two.ckpt")
    assert "fit it: save the ones that are meant" in hint(
        fit_keys(read_checkpoint(tmp_path / "two.ckpt"), NETWORK, SPEC).tensors
    )
