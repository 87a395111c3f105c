"""A trusted pickle is its own architecture; an untrusted one never runs."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from edgerecover.artifacts import InputSpec, Pattern
from edgerecover.errors import BadInputError
from edgerecover.models.build.whole_modules import WholeModule, load_module
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.pair.networks import inspect, open_models

INPUT = InputSpec((1, 6, 6), (0.0,), (1.0,))

SOURCE = """
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 3)
        self.register_buffer("passing", torch.ones(1), persistent=False)

    def forward(self, images_NCHW):
        return self.fc(self.bn(self.conv(images_NCHW)).relu().mean((2, 3)))

    def __setstate__(self, state):
        Path(__file__).with_name("it-ran").touch()
        super().__setstate__(state)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The module that the pickles name, importable only while they are written."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    with monkeypatch.context() as context:
        context.syspath_prepend(str(tmp_path))
        import own_nets

        torch.manual_seed(0)
        pruned = own_nets.Net()
        prune.l1_unstructured(pruned.conv, "weight", 0.5)
        torch.save(pruned, tmp_path / "pruned.pt")
        torch.save(own_nets.Net(), tmp_path / "dense.pt")
        torch.save({"epoch": 1, "model": nn.DataParallel(own_nets.Net(2))}, tmp_path / "narrow.pt")
        torch.save(own_nets.Net().state_dict(), tmp_path / "state.pt")
        torch.save(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), tmp_path / "other.pt")
    del sys.modules["own_nets"]
    yield tmp_path
    sys.modules.pop("own_nets", None)


TRUSTED = ModelFlags(input=INPUT, trust_pickle=True)


def opened(folder, name, flags, **options):
    return open_models(folder / name, flags, **({"will_prune": False} | options))


def test_without_trust_nothing_runs_and_the_classes_are_named(nets):
    with pytest.raises(BadInputError, match=r"own_nets\.Net") as caught:
        opened(nets, "pruned.pt", ModelFlags(input=INPUT))
    assert "--trust-pickle" in caught.value.hint
    assert "--arch" in caught.value.hint
    facts = inspect(nets / "pruned.pt", NO_FLAGS)
    assert facts.has_masks
    assert not (nets / "it-ran").exists()


def test_with_an_architecture_nothing_is_unpickled(nets, monkeypatch):
    monkeypatch.chdir(nets)
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("unpickled"))
    models = opened(nets, "pruned.pt", replace(TRUSTED, arch="own_nets.py:Net"))
    assert models.architecture == "own_nets.py:Net"


def test_a_trusted_module_is_its_own_architecture(nets):
    models = opened(nets, "pruned.pt", TRUSTED)
    assert (nets / "it-ran").exists()
    assert models.architecture == "pickle:own_nets.Net"
    assert models.masks["conv.weight"].sum() == 18
    assert (models.student.conv.weight == 0).sum() == 18
    assert (models.teacher.conv.weight == 0).sum() == 0


def test_a_narrower_module_learns_from_the_wider_one_of_its_teacher(nets):
    models = opened(nets, "narrow.pt", TRUSTED, teacher=nets / "dense.pt")
    assert models.student.conv.out_channels == 2
    assert models.teacher.conv.out_channels == 4
    assert models.student_facts.sparsity.pattern is Pattern.CHANNEL
    assert models.same_architecture


def test_a_state_dict_opens_in_its_teachers_module(nets):
    models = opened(nets, "state.pt", TRUSTED, teacher=nets / "dense.pt", will_prune=True)
    assert models.architecture == "pickle:own_nets.Net"


def test_a_teacher_that_is_another_module_opens_in_its_own(nets):
    models = opened(nets, "pruned.pt", TRUSTED, teacher=nets / "other.pt")
    assert models.teacher_facts.architecture == "pickle:torch.nn.modules.container.Sequential"
    assert not models.same_architecture


def test_classes_that_cannot_be_imported(nets):
    (nets / "own_nets.py").unlink()
    with pytest.raises(BadInputError, match="ModuleNotFoundError") as caught:
        opened(nets, "pruned.pt", TRUSTED)
    assert "beside it" in caught.value.hint


def test_what_is_no_module(tmp_path):
    torch.save({"model": 7}, tmp_path / "m.pt")
    with pytest.raises(BadInputError, match="type int"):
        load_module(WholeModule(tmp_path / "m.pt", ("model",), "Net"))
