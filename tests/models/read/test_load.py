"""Checkpoints of every usual wrapping give the same tensors; hostile and broken ones give a clear refusal."""

import contextlib
import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from edgerecover.errors import BadInputError
from edgerecover.models.read.entries import STATE_KEYS
from edgerecover.models.read.load import read_checkpoint
from edgerecover.models.read.wrappings import WRAPPER_PREFIXES


def refused(path):
    """Message and hint of the refusal."""
    with pytest.raises(BadInputError) as caught:
        read_checkpoint(path)
    return f"{caught.value.message}\n{caught.value.hint}"


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def saved(tmp_path, content, name="model.pt", **options):
    torch.save(content, tmp_path / name, **options)
    return tmp_path / name


# --- what is read ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefixes=st.lists(st.sampled_from(WRAPPER_PREFIXES), max_size=2),
    nesting=st.lists(st.sampled_from(STATE_KEYS), max_size=2),
    beside=st.dictionaries(
        st.sampled_from(["epoch", "best_prec1", "lr"]), st.floats(allow_nan=False) | st.integers(0, 99)
    ),
    zip_format=st.booleans(),
)
def test_wrapping_a_state_dict_does_not_change_what_is_read(tmp_path, prefixes, nesting, beside, zip_format):
    weights = {"conv.weight": torch.arange(8.0).view(2, 1, 2, 2), "fc.bias": torch.tensor([1.0, -2.0])}
    content = {"".join(prefixes) + key: tensor for key, tensor in weights.items()}
    for key in nesting:
        content = {**beside, key: content}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zip_format)
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.tensors, weights)
    assert checkpoint.prefixes == tuple(prefixes)
    assert all(key in checkpoint.format for key in nesting)


def test_safetensors_is_told_by_content_not_by_suffix(tmp_path, network):
    path = tmp_path / "model.pt"
    save_file(network.state_dict(), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "safetensors"
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.size_bytes == path.stat().st_size
    assert len(checkpoint.sha256) == 64


def test_what_training_leaves_beside_the_weights_is_ignored(tmp_path, network):
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(2, 1, 6, 6)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": Namespace(lr=0.1),
        "best_acc": np.float64(0.9),
        "best_loss": torch.tensor(0.1),
        "epoch": 3,
    }
    assert same(read_checkpoint(saved(tmp_path, content)).tensors, network.state_dict())


def test_a_prefix_that_not_all_keys_share_stays(tmp_path):
    weights = {"model.weight": torch.ones(2, 2), "head.weight": torch.ones(2, 2)}
    assert read_checkpoint(saved(tmp_path, weights)).tensors.keys() == weights.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_and_the_format_says_so(tmp_path, dtype):
    weights = {"weight": torch.tensor([[0.5, 2.0]], dtype=dtype), "steps": torch.tensor(3)}
    checkpoint = read_checkpoint(saved(tmp_path, weights))
    assert checkpoint.tensors["weight"].dtype is torch.float32
    assert checkpoint.tensors["steps"].dtype is torch.int64
    assert str(dtype).removeprefix("torch.") in checkpoint.format


def test_masks_of_torch_prune_are_applied_and_the_dense_weights_kept(tmp_path):
    layer = nn.Linear(8, 4)
    dense = layer.weight.detach().clone()
    prune.l1_unstructured(layer, "weight", amount=0.75)
    checkpoint = read_checkpoint(saved(tmp_path, layer.state_dict()))
    assert set(checkpoint.tensors) == {"weight", "bias"}
    assert torch.equal(checkpoint.tensors["weight"], layer.weight)
    assert torch.equal(checkpoint.masks["weight"], layer.weight != 0)
    assert torch.equal(checkpoint.dense_tensors["weight"], dense)
    assert "with masks of torch.nn.utils.prune" in checkpoint.format


def test_masks_over_weights_that_are_zero_hold_no_teacher(tmp_path):
    mask = torch.tensor([[1.0, 0.0]])
    state = {"weight_orig": torch.tensor([[2.0, 0.0]]), "weight_mask": mask}
    checkpoint = read_checkpoint(saved(tmp_path, state))
    assert checkpoint.dense_tensors is None
    assert checkpoint.masks["weight"].tolist() == [[True, False]]


def test_a_buffer_called_mask_that_is_none_stays_a_tensor(tmp_path):
    state = {"attention": torch.ones(2), "attention_mask": torch.tensor([0.5, 1.0])}
    checkpoint = read_checkpoint(saved(tmp_path, state))
    assert set(checkpoint.tensors) == set(state)
    assert not checkpoint.masks


def test_a_whole_module_gives_its_weights_and_its_class(tmp_path, network):
    checkpoint = read_checkpoint(saved(tmp_path, network))
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.classes[0] == "torch.nn.modules.container.Sequential"
    assert checkpoint.format == (
        "pickled module of class torch.nn.modules.container.Sequential, weights read without running it"
    )


@pytest.mark.parametrize("wrap", [lambda method: method, lambda method: {"model": method, "epoch": 3}])
def test_state_dict_saved_without_calling_it(tmp_path, network, wrap):
    checkpoint = read_checkpoint(saved(tmp_path, wrap(network.state_dict)))
    assert same(checkpoint.tensors, network.state_dict())
    assert "pickled module of class torch.nn.modules.container.Sequential" in checkpoint.format


def test_parts_that_hold_whole_names_are_spelled_as_the_network_does(tmp_path, network):
    state = network.state_dict()
    first, rest = (
        {key: tensor for key, tensor in state.items() if key.startswith("0.") == is_first} for is_first in (True, False)
    )
    checkpoint = read_checkpoint(saved(tmp_path, {"backbone_state": first, "head_state": rest}))
    assert same(checkpoint.as_spelled(state.keys()).tensors, state)


@pytest.mark.parametrize(("key", "has_zeros", "chosen"), [("model_ema", True, True), ("ema", False, False)])
def test_an_average_is_taken_unless_it_lost_the_zeros(tmp_path, key, has_zeros, chosen):
    pruned = {"fc.weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "fc.bias": torch.ones(2)}
    average = {"fc.weight": pruned["fc.weight"] * 3 + (0 if has_zeros else 1e-3), "fc.bias": torch.ones(2)}
    checkpoint = read_checkpoint(saved(tmp_path, {"model": pruned, key: average}))
    assert same(checkpoint.tensors, average if chosen else pruned)
    assert key in checkpoint.format
    assert ("beside the plain ones under 'model'" if chosen else "which has fewer zeros") in checkpoint.format


@pytest.mark.parametrize(("left", "has_teacher"), [(0.0, False), (1e-5, False), (0.2, True)])
def test_what_is_left_under_masks_is_a_teacher_only_where_it_weighs(tmp_path, left, has_teacher):
    mask = torch.eye(4)
    content = {"state_dict": {"fc.weight": mask + left * (1 - mask)}, "masks": {"fc.weight": mask}}
    assert (read_checkpoint(saved(tmp_path, content)).dense_tensors is not None) == has_teacher


def test_an_average_of_masked_weights_holds_no_teacher(tmp_path):
    mask = torch.eye(4)
    content = {"state_dict": {"fc.weight": mask}, "ema": {"fc.weight": mask + 0.1}, "masks": {"fc.weight": mask}}
    checkpoint = read_checkpoint(saved(tmp_path, content))
    assert torch.equal(checkpoint.tensors["fc.weight"], mask * 1.1)
    assert checkpoint.dense_tensors is None


def test_an_average_without_the_buffers_is_not_taken(tmp_path, network):
    parameters = dict(network.named_parameters())
    checkpoint = read_checkpoint(saved(tmp_path, {"model": network.state_dict(), "ema": parameters}))
    assert same(checkpoint.tensors, network.state_dict())
    assert "which lacks tensors" in checkpoint.format


def test_what_pickle_dump_wrote(tmp_path, network):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(network.state_dict(), 4))
    checkpoint = read_checkpoint(tmp_path / "model.pkl")
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.format == "state_dict by pickle.dump"


def test_without_checksums(tmp_path, network):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, network.state_dict())
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_checkpoint(path).tensors, network.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_the_files_of_torch_pruning(tmp_path, network):
    tp = pytest.importorskip("torch_pruning")
    tp.prune_conv_out_channels(network[0], [0])
    checkpoint = read_checkpoint(saved(tmp_path, tp.state_dict(network)))
    assert same(checkpoint.tensors, network.state_dict())
    assert checkpoint.tensors["0.weight"].shape[0] == 3
    assert checkpoint.format.startswith("state_dict of Torch-Pruning")
    assert "not used" not in checkpoint.format


def test_eight_bit_weights_are_refused(tmp_path):
    assert "8-bit integers" in refused(saved(tmp_path, {"fc.weight": torch.ones(2, 2, dtype=torch.int8)}))


# --- files that are no checkpoint -----------------------------------------------------------------------


def test_missing_folder_and_empty(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.pt")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "empty.pt").touch()
    assert "is empty" in refused(tmp_path / "empty.pt")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (bytes(range(7, 250)), "neither a safetensors file nor one written"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x05" + bytes(40), "ONNX"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(40), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (struct.pack("<Q", 5000) + b'{"weight": {}}', "truncated"),
        (struct.pack("<Q", 14) + b'{"weight": 7 }', "safetensors file is damaged"),
    ],
    ids=["random", "onnx", "hdf5", "gzip", "lfs", "html", "short-safetensors", "bad-safetensors"],
)
def test_foreign_bytes_are_named(tmp_path, content, part):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert part in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("net.h5", b"\x89HDF\r\n\x1a\n", "a file of Keras"),
        ("net.keras", b"PK\x03\x04", "a file of Keras"),
        ("frozen.pb", b"\x0a\x2b\x0a\x05", "a graph of TensorFlow"),
        ("net.mlmodel", b"\x08\x04\x12\x07", "a file of Core ML"),
        ("net.bin", b"\x1c\x00\x00\x00TFL3", "a file of TensorFlow Lite"),
        ("net.engine", b"ptrt", "a TensorRT engine"),
    ],
)
def test_files_of_other_frameworks_are_named(tmp_path, name, content, part):
    (tmp_path / name).write_bytes(content + bytes(60))
    assert f"is {part}" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["net.h5", "net.npz", "net.pb"])
def test_checkpoints_under_other_names_are_read(tmp_path, name, network):
    saved(tmp_path, network.state_dict()).rename(tmp_path / name)
    assert read_checkpoint(tmp_path / name).tensors.keys() == network.state_dict().keys()


def test_a_tar_archive_is_named(tmp_path, network):
    path = saved(tmp_path, network.state_dict())
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(path, "model.pt")
    assert "is a tar archive" in (message := refused(tmp_path / "model.tar"))
    assert "unpack it" in message


def test_a_real_onnx_file_is_named(tmp_path):
    import onnx

    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:])), tmp_path / "m")
    assert "ONNX" in refused(tmp_path / "m")


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_cut_short(tmp_path, network, zip_format, kept):
    path = saved(tmp_path, network.state_dict(), _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "truncated" in refused(path)


# --- hostile files --------------------------------------------------------------------------------------


class _Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, write):
    path, proof = tmp_path / "model.pt", tmp_path / "it-ran"
    write({"x": _Command(f"touch {proof}")}, path)
    message = refused(path)
    assert not proof.exists()
    assert "posix.system" in message or "os.system" in message or "nt.system" in message
    assert "torch.save(model.state_dict()" in message


def test_a_command_beside_sound_weights_is_left_alone_and_named(tmp_path, network):
    proof = tmp_path / "it-ran"
    checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": network.state_dict(), "x": _Command(f"touch {proof}")}))
    assert same(checkpoint.tensors, network.state_dict())
    assert "left unopened (posix.system)" in checkpoint.format or os.name == "nt"
    assert not proof.exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("model/data/0", bytes(64 << 20))
    assert "zip bomb" in refused(path)


def test_zip_compressed_sparse_weights_are_no_bomb(tmp_path):
    weights = {"weight": torch.zeros(1000, 1000)}
    weights["weight"][::2, ::3] = torch.rand(500, 334)
    stored = zipfile.ZipFile(saved(tmp_path, weights))
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    assert same(read_checkpoint(tmp_path / "packed.pt").tensors, weights)


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    message = refused(saved(tmp_path, {"weight": torch.ones(1).expand(1 << 20, 1 << 14)}))
    assert "'weight'" in message
    assert "[1048576, 16384]" in message


def test_a_bytearray_that_would_take_the_memory_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (1 << 44).to_bytes(6, "little") + b"\x85R.")
    assert "bytearray" in refused(path)


def test_deep_nesting_is_refused(tmp_path):
    content = {"weight": torch.ones(1)}
    for _ in range(200):
        content = {"model": content}
    assert "no weights inside" in refused(saved(tmp_path, content))
    (tmp_path / "lists.pt").write_bytes(b"\x80\x02" + b"]" * 1 + b"(" * 200_000 + b"." * 2)
    assert refused(tmp_path / "lists.pt")


def test_damaged_bytes_are_refused_or_read_but_nothing_else(tmp_path, network):
    rng = np.random.default_rng(0)
    for writer in ("zip", "legacy", "safetensors"):
        path = tmp_path / writer
        if writer == "safetensors":
            save_file(network.state_dict(), path)
        else:
            torch.save(network.state_dict(), path, _use_new_zipfile_serialization=writer == "zip")
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            places = rng.integers(0, len(whole), 4)
            damaged[places] = rng.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(BadInputError):
                read_checkpoint(path)


# --- tensors that cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"epoch": 3}, "a dictionary with 'epoch'"),
        ({}, "a dictionary with nothing"),
        ([1, 2], "an object of type list"),
        (torch.ones(2), "an object of type Tensor"),
    ],
)
def test_no_weights_inside(tmp_path, content, part):
    message = refused(saved(tmp_path, content))
    assert "no weights inside" in message
    assert part in message


def test_what_is_there_instead_of_weights_is_named(tmp_path):
    assert "the state of an optimiser and no weights" in refused(saved(tmp_path, {"state": {}, "param_groups": []}))
    state = {"state": {}, "param_groups": []}
    assert "the state of an optimiser and no weights" in refused(saved(tmp_path, {"optimizer": state, "epoch": 3}))
    assert "a list of 2 tensors without their names" in refused(saved(tmp_path, [torch.ones(2), torch.ones(3)]))
    assert "under 'shadow_params'" in refused(saved(tmp_path, {"decay": 0.9, "shadow_params": [torch.ones(2)]}))
    assert "torch.from_numpy" in refused(saved(tmp_path, {"weight": np.ones(3), "bias": np.ones(2)}))


def test_very_sparse_weights_are_read_and_dense_ones_behind_them(tmp_path, monkeypatch):
    monkeypatch.setattr("edgerecover.models.read.states.MAX_SPARSE_FREE_BYTES", 0)
    monkeypatch.setattr("edgerecover.models.read.states.MAX_EXPANSION_FREE_BYTES", 0)
    weight = torch.zeros(1000, 400)
    weight[::10, ::25] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path, {"weight": weight.to_sparse_csr(), "bias": torch.ones(1000)})
    assert path.stat().st_size * 16 < weight.numel() * 4
    read = read_checkpoint(path)
    assert torch.equal(read.tensors["weight"], weight)
    assert torch.equal(read.tensors["bias"], torch.ones(1000))
    monkeypatch.setattr("edgerecover.models.read.states.MAX_SPARSE_EXPANSION", 2)
    assert "is sparse and would take 400,000 values" in refused(path)


@pytest.mark.parametrize(
    ("members", "part"),
    [
        (["model.pt"], "a zip archive of files, with 'model.pt' inside"),
        (["model.pt"], "unpack it"),
        (["a.npy", "b.npy"], "an archive of NumPy arrays"),
        (["m/.data/version", "m/model/model.pkl"], "a torch.package archive"),
        (["a.txt"], "without a checkpoint inside"),
    ],
)
def test_archives_of_something_else_are_named(tmp_path, members, part):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name in members:
            archive.writestr(name, b"content")
    assert part in refused(tmp_path / "model.pt")


def test_several_sets_of_weights_are_named(tmp_path):
    state = {"weight": torch.ones(1)}
    assert "'generator', 'judge'" in refused(saved(tmp_path, {"judge": state, "generator": state}))


def test_nan_and_infinite_weights_are_counted(tmp_path):
    weights = {"a": torch.ones(3), "b.weight": torch.tensor([1.0, float("nan"), float("inf")])}
    assert "2 of the 3 values of 'b.weight' are NaN or infinite" in refused(saved(tmp_path, weights))


def test_infinities_outside_of_weights_and_statistics_may_be_meant(tmp_path):
    mask = torch.tensor([[0.0, -float("inf")], [0.0, 0.0]])
    assert read_checkpoint(saved(tmp_path, {"a.weight": torch.ones(3), "a.mask": mask})).tensors["a.mask"].equal(mask)
    for key in ("a.bias", "bn.running_mean", "a.parametrizations.weight.original0", "in_proj_weight"):
        assert "2 of the 2 values" in refused(saved(tmp_path, {key: torch.tensor([float("inf")] * 2)}))
    assert "1 of the 1 values" in refused(saved(tmp_path, {"mask": torch.tensor([float("nan")])}))


def test_negative_variance(tmp_path):
    message = refused(saved(tmp_path, {"bn.running_var": torch.tensor([1.0, -0.5])}))
    assert "'bn.running_var' holds negative variances (lowest -0.5)" in message


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: torch.eye(4).to(torch.complex64), "complex"),
        (lambda: torch.ones(4, device="meta"), "no data"),
    ],
)
def test_tensors_of_other_kinds(tmp_path, make, part):
    message = refused(saved(tmp_path, {"fc.weight": make()}))
    assert "'fc.weight'" in message
    assert part in message


def test_quantized_tensors(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8)
        path = saved(tmp_path, {"fc.weight": quantized})
    checkpoint = read_checkpoint(path)
    assert torch.allclose(checkpoint.tensors["fc.weight"], torch.eye(4))
    assert "1 quantized tensors made dense" in checkpoint.format


def test_reading_from_a_pipe_is_refused(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")


def test_the_file_is_not_kept_open(tmp_path, network):
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    path = tmp_path / "model.pt"
    path.write_bytes(buffer.getvalue())
    read_checkpoint(path)
    path.unlink()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_weights_whose_scales_stand_beside_them(tmp_path, dtype):
    state = {"fc.weight": torch.ones(4, 4).to(dtype), "fc.weight_scale": torch.tensor([0.1])}
    save_file(state, tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", saved(tmp_path, state)):
        message = refused(path)
        assert "'fc.weight' is float8, and its scale stands beside it in 'fc.weight_scale'" in message
        assert "multiply the weights by their scales" in message


def test_a_scale_of_ones_own_beside_a_float_weight_is_a_parameter(tmp_path):
    state = {"fc.weight": torch.ones(4, 4), "fc.weight_scale": torch.ones(4)}
    assert read_checkpoint(saved(tmp_path, state)).tensors.keys() == state.keys()


def test_float16_that_overflowed(tmp_path):
    message = refused(saved(tmp_path, {"norm.running_var": torch.tensor([1e6, 1.0]).half()}))
    assert "float16 ends at 65,504" in message
    assert "diverged" in refused(saved(tmp_path, {"norm.running_var": torch.tensor([float("nan"), 1.0]).half()}))


@pytest.mark.parametrize(("left", "is_named"), [(1e-12, True), (-1e-9, True), (1e-3, False), (0.0, False)])
def test_weights_that_are_nearly_zero_are_named(tmp_path, left, is_named):
    weight = torch.linspace(0.5, 1, 100).view(10, 10)
    weight[:, :6] = left
    checkpoint = read_checkpoint(
        saved(tmp_path, {"fc.weight": weight, "fc.bias": torch.ones(10), "e": torch.ones(0, 4)})
    )
    assert ("60.0% of the weights are below a millionth of their layer's largest" in checkpoint.format) == is_named


def test_a_file_of_uint8_masks_alone(tmp_path):
    message = refused(saved(tmp_path, {"fc.weight": torch.eye(4, dtype=torch.uint8)}))
    assert "holds nothing but 0 and 1, as masks do" in message
    assert "masks are read when they stand beside them" in message
