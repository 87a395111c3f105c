"""TorchScript and torch.export archives give their weights by name, and their programs are left alone."""

import io
import json
import warnings
import zipfile

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from edgerecover.errors import BadInputError
from edgerecover.models.read.load import read_checkpoint

IMAGES_NCHW = torch.zeros(1, 1, 6, 6)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def exported(network, path):
    torch.export.save(torch.export.export(network, (IMAGES_NCHW,)), path)
    return path


def refused(path):
    with pytest.raises(BadInputError) as caught:
        read_checkpoint(path)
    return caught.value.message


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("by", [torch.jit.script, lambda network: torch.jit.trace(network, IMAGES_NCHW)])
def test_torchscript(tmp_path, network, by):
    by(network.eval()).save(str(tmp_path / "model.pt"))
    checkpoint = read_checkpoint(tmp_path / "model.pt")
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.format == "TorchScript archive"


def test_torchscript_keeps_pruning_masks(tmp_path, network):
    dense = network[4].weight.detach().clone()
    prune.l1_unstructured(network[4], "weight", 0.75)
    torch.jit.trace(network.eval(), IMAGES_NCHW).save(str(tmp_path / "model.pt"))
    checkpoint = read_checkpoint(tmp_path / "model.pt")
    assert torch.equal(checkpoint.masks["4.weight"], network[4].weight != 0)
    assert torch.equal(checkpoint.dense_tensors["4.weight"], dense)


class _WithAttribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.constant = torch.ones(3)

    def forward(self, x):
        return self.fc(x) * self.constant.sum()


def test_tensors_that_are_no_weights_are_left_out_of_torchscript(tmp_path):
    torch.jit.script(_WithAttribute()).save(str(tmp_path / "model.pt"))
    assert read_checkpoint(tmp_path / "model.pt").tensors.keys() == {"fc.weight", "fc.bias"}
    members = {name: content for name, content in members_of(tmp_path / "model.pt").items() if "/code/" not in name}
    without_code = packed(tmp_path / "bare.pt", members)
    assert "constant" in read_checkpoint(without_code).tensors


def test_frozen_torchscript_says_why_it_cannot_be_read(tmp_path, network):
    torch.jit.freeze(torch.jit.script(network.eval())).save(str(tmp_path / "model.pt"))
    assert "constants without names" in refused(tmp_path / "model.pt")


def test_torch_export(tmp_path, network):
    checkpoint = read_checkpoint(exported(network.eval(), tmp_path / "model.pt2"))
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.format == "torch.export archive, example input 1×1×6×6"
    assert checkpoint.example_shape == (1, 1, 6, 6)


def test_torch_export_of_shared_and_half_precision_weights(tmp_path, network):
    network[4] = nn.Linear(144, 144, bias=False)
    network.append(nn.Linear(144, 144, bias=False))
    network[5].weight = network[4].weight
    checkpoint = read_checkpoint(exported(network.eval().half().float(), tmp_path / "model.pt2"))
    assert torch.equal(checkpoint.tensors["5.weight"], network[4].weight)


@pytest.mark.parametrize("name", ["e/data/weights/model.pt", "serialized_state_dict.pt"])
def test_older_layouts_of_torch_export(tmp_path, network, name):
    """Of torch 2.8, and of 2.1 to 2.7: all weights in one torch.save file."""
    weights, inputs = io.BytesIO(), io.BytesIO()
    torch.save(network.state_dict(), weights)
    torch.save(((IMAGES_NCHW,), {}), inputs)
    members = {name: weights.getvalue(), "serialized_exported_program.json": b"{}", "version": b"8.2"}
    if name.startswith("e/"):
        members = {"e/archive_format": b"pt2", "e/models/model.json": b"{}", name: weights.getvalue()}
    else:
        members["serialized_example_inputs.pt"] = inputs.getvalue()
    checkpoint = read_checkpoint(packed(tmp_path / "model.pt2", members))
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.example_shape == (None if name.startswith("e/") else (1, 1, 6, 6))


def test_several_programs_and_none(tmp_path, network):
    members = members_of(exported(network.eval(), tmp_path / "model.pt2"))
    table = next(name for name in members if name.endswith("_weights_config.json"))
    two = members | {table.replace("model_weights", "other_weights"): members[table]}
    assert "2 programs, model, other" in refused(packed(tmp_path / "two.pt2", two))
    none = {name: content for name, content in members.items() if "weights" not in name}
    assert "without weights by name" in refused(packed(tmp_path / "none.pt2", none))


@pytest.mark.parametrize(
    "change",
    [
        {"path_name": "../../models/model.json"},
        {"path_name": "missing"},
        {"use_pickle": True},
        {"tensor_meta": None},
        {"tensor_meta": {"dtype": 7, "sizes": [{"as_expr": {"expr_str": "exit()"}}], "strides": [{"as_int": 1}]}},
    ],
)
def test_a_table_that_lies_is_refused(tmp_path, network, change):
    members = members_of(exported(network.eval(), tmp_path / "model.pt2"))
    table = next(name for name in members if name.endswith("_weights_config.json"))
    config = json.loads(members[table])
    config["config"]["0.weight"] |= change
    assert refused(packed(tmp_path / "lie.pt2", members | {table: json.dumps(config).encode()}))


def test_a_table_nested_too_deeply_is_refused(tmp_path, network):
    members = members_of(exported(network.eval(), tmp_path / "model.pt2"))
    table = next(name for name in members if name.endswith("_weights_config.json"))
    assert refused(packed(tmp_path / "deep.pt2", members | {table: b"[" * 200_000 + b"]" * 200_000}))
