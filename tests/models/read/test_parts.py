"""Weights in several files are the weights of one: shards with an index, and torch.distributed.checkpoint."""

import json
import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from edgerecover.errors import BadInputError
from edgerecover.models.read.folders import weights_in
from edgerecover.models.read.load import read_checkpoint


def refused(path):
    with pytest.raises(BadInputError) as caught:
        read_checkpoint(weights_in(path))
    return caught.value.message


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


# --- shards ------------------------------------------------------------------------------------------------------


def sharded(folder, state, name="model.safetensors"):
    stem, _, suffix = name.partition(".")
    parts = {}
    for index, key in enumerate(state):
        parts[key] = f"{stem}-{index % 2}.{suffix}"
    for part in sorted(set(parts.values())):
        mine = {key: state[key] for key in state if parts[key] == part}
        save_file(mine, folder / part) if suffix == "safetensors" else torch.save(mine, folder / part)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_read_as_one(tmp_path, network, name):
    sharded(tmp_path, network.state_dict(), name)
    checkpoint = read_checkpoint(weights_in(tmp_path))
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.size_bytes > sum(tensor.nbytes for tensor in network.state_dict().values())


def test_the_digest_is_of_all_shards(tmp_path, network):
    digests = set()
    for scale in (1, 2):
        state = {key: tensor * scale for key, tensor in network.state_dict().items()}
        sharded(tmp_path, state)
        digests.add(read_checkpoint(weights_in(tmp_path)).sha256)
    assert len(digests) == 2


def test_an_index_that_cannot_be_followed(tmp_path, network):
    sharded(tmp_path, network.state_dict())
    (tmp_path / "model-1.safetensors").unlink()
    assert "shard model-1.safetensors is missing" in refused(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
    assert "outside its folder" in refused(tmp_path)
    index.write_text("{}")
    assert "no weight_map" in refused(tmp_path)
    index.write_text('{"weight_map": {"nothing": "model-0.safetensors"}}')
    assert "nothing is not in model-0.safetensors" in refused(tmp_path)


# --- torch.distributed.checkpoint --------------------------------------------------------------------------------


@pytest.fixture
def distributed(tmp_path, network):
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.zeros(2, 1, 6, 6)).sum().backward()
    optimizer.step()
    folder = tmp_path / "step-5"
    content = {"model": network.state_dict(), "optim": optimizer.state_dict(), "epoch": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(content, checkpoint_id=folder, no_dist=True)
    return folder


def test_a_folder_of_torch_distributed_is_read(distributed, network):
    checkpoint = read_checkpoint(weights_in(distributed))
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.under == ("model",)
    assert "torch.distributed.checkpoint" in checkpoint.format


def test_pieces_of_several_processes_are_joined(distributed, network):
    """As sharded by rows over two processes: the metadata of one process, its first tensor cut in two."""
    with (distributed / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    key = "model.4.weight"
    index = next(index for index in metadata.storage_data if index.fqn == key)
    stored = metadata.storage_data.pop(index)
    weight = network.state_dict()["4.weight"]
    for rank, rows in enumerate((weight[:2], weight[2:])):
        torch.save(rows.clone(), distributed / f"__{rank}_1.distcp")
        offset = torch.Size([2 * rank, 0])
        length = (distributed / f"__{rank}_1.distcp").stat().st_size
        own = type(stored)(f"__{rank}_1.distcp", 0, length)
        metadata.storage_data[type(index)(key, offset, rank)] = own
    with (distributed / ".metadata").open("wb") as file:
        pickle.dump(metadata, file)
    assert same(read_checkpoint(distributed).tensors, network.state_dict())
    (distributed / "__1_1.distcp").unlink()
    assert "is missing or truncated" in refused(distributed)
    metadata.storage_data.pop(type(index)(key, torch.Size([2, 0]), 1))
    with (distributed / ".metadata").open("wb") as file:
        pickle.dump(metadata, file)
    assert "pieces of model.4.weight are missing" in refused(distributed)


def test_metadata_of_something_else(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    assert "no weights inside" in refused(tmp_path)
    (tmp_path / ".metadata").write_bytes(b"text")
    assert "cannot be read" in refused(tmp_path)
