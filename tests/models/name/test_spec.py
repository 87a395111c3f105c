"""Flags win over the TOML file, a file of the checkpoint's own name over model.toml, and code needs trust."""

from pathlib import Path

import pytest

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.spec import resolve
from edgerecover.models.name.trust import trust

TOML = """
architecture = "nets.py:tiny"
teacher = "dense.pt"
classes = ["a", "b", "c"]
[input]
shape = [1, 6, 6]
mean = [0.5]
"""


def resolved(model_path, arch=None, teacher=None, input=None, trust_code=True):
    return resolve(model_path, ModelFlags(arch, input, trust_code), teacher=teacher)


def test_nothing_said(folder):
    spec = resolved(folder / "model.pt")
    assert (spec.architecture, spec.teacher_path, spec.input, spec.classes) == (None, None, None, None)
    assert spec.architecture_source == spec.input_source == "unknown"


def test_model_toml_beside_the_checkpoint(folder):
    (folder / "model.toml").write_text(TOML)
    spec = resolved(folder / "pruned.pt")
    assert spec.architecture == "nets.py:tiny"
    assert spec.architecture_source == spec.input_source == "model.toml"
    assert spec.base_dir == folder
    assert spec.teacher_path == folder / "dense.pt"
    assert spec.input == InputSpec((1, 6, 6), (0.5,), (1.0,))
    assert spec.classes == ("a", "b", "c")


def test_a_file_named_like_the_checkpoint_wins(folder):
    (folder / "model.toml").write_text(TOML)
    (folder / "dense.toml").write_text('architecture = "torchvision:resnet18"\n')
    spec = resolved(folder / "dense.pt")
    assert (spec.architecture, spec.architecture_source) == ("torchvision:resnet18", "dense.toml")
    assert spec.teacher_path is None


def test_flags_win(folder, monkeypatch):
    (folder / "model.toml").write_text(TOML)
    monkeypatch.chdir(folder.parent)
    flags = InputSpec((1, 8, 8), (0.0,), (1.0,))
    spec = resolved(folder / "m.pt", "own.py:net", Path("t.pt"), flags, trust_code=False)
    assert (spec.architecture, spec.architecture_source) == ("own.py:net", "--arch")
    assert spec.base_dir == folder.parent
    assert spec.teacher_path == Path("t.pt")
    assert (spec.input, spec.input_source) == (flags, "--input-shape")


@pytest.mark.parametrize(
    "architecture",
    ["nets.py:tiny", "nets:tiny", "../up.py:net", "edgerecover.demo.network.py:net", "torchvision.py:net"],
)
def test_code_named_by_the_file_needs_trust(folder, architecture):
    (folder / "model.toml").write_text(f'architecture = "{architecture}"\n')
    with pytest.raises(BadInputError, match="have not trusted"):
        resolved(folder / "model.pt", trust_code=False)
    assert resolved(folder / "model.pt", trust_code=True).architecture == architecture


def test_trusted_code_is_accepted_until_it_changes(folder):
    (folder / "model.toml").write_text(TOML)
    trust(folder)
    assert resolved(folder / "model.pt", trust_code=False).architecture == "nets.py:tiny"
    (folder / "nets.py").write_text("import os\n")
    with pytest.raises(BadInputError, match=r"changed: nets\.py"):
        resolved(folder / "model.pt", trust_code=False)


@pytest.mark.parametrize("architecture", ["torchvision:resnet18", "edgerecover.demo.network:digits_net"])
def test_what_runs_no_foreign_code_needs_no_trust(folder, architecture):
    (folder / "model.toml").write_text(f'architecture = "{architecture}"\n')
    assert resolved(folder / "model.pt", trust_code=False).architecture == architecture


def test_a_wrong_key_names_file_line_and_key(folder):
    (folder / "model.toml").write_text('architecture = "a.py:b"\nteachr = "dense.pt"\n')
    with pytest.raises(BadInputError, match=r"model\.toml:2: unknown key 'teachr'; did you mean 'teacher'"):
        resolved(folder / "model.pt")
