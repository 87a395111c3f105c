"""Sparse and quantised tensors come back as the dense ones they stand for, or are refused when they lie."""

import io
import warnings

import pytest
import torch

from edgerecover.models.read.compact import dequantize
from edgerecover.models.read.records import UnusableTensorError
from edgerecover.models.read.tensors import compact_kind
from edgerecover.models.read.torch_files import read_zip
from edgerecover.models.read.zips import Archive

PRUNED = torch.tensor([[0.0, 2.0, 0.0, -1.5], [0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 4.0], [0.0, 0.0, 1.0, 0.0]])


def content_of(tensor):
    buffer = io.BytesIO()
    torch.save({"x": tensor}, buffer)
    return read_zip(Archive(buffer, len(buffer.getvalue())))


def read_back(tensor, **options):
    content = content_of(tensor)
    return compact_kind(content.root["x"]), content.reader.tensor(content.root["x"], **options)


def sparse(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind in ("bsr", "bsc"):
            return getattr(PRUNED, f"to_sparse_{kind}")((2, 2))
        return PRUNED.to_sparse() if kind == "coo" else getattr(PRUNED, f"to_sparse_{kind}")()


@pytest.mark.parametrize("kind", ["coo", "csr", "csc", "bsr", "bsc"])
def test_sparse_tensors_are_made_dense(kind):
    found, tensor = read_back(sparse(kind))
    assert found == "sparse"
    assert torch.equal(tensor, PRUNED)
    assert torch.equal(read_back(torch.nn.Parameter(sparse(kind)))[1], PRUNED)


def test_sparse_convolutions_and_half_precision():
    weight = PRUNED.view(2, 2, 2, 2)
    assert torch.equal(read_back(weight.to_sparse())[1], weight)
    assert torch.equal(read_back(PRUNED.half().to_sparse())[1], PRUNED)


def test_a_sparse_tensor_does_not_grow_beyond_what_it_may():
    with pytest.raises(UnusableTensorError, match="would take 16 values as a dense one, too many"):
        read_back(sparse("coo"), max_values=15)


def test_indices_outside_the_shape_are_refused():
    indices, values = torch.tensor([[0, 7], [0, 1]]), torch.ones(2)
    outside = torch.sparse_coo_tensor(indices, values, (8, 2), check_invariants=True)
    content = content_of(outside)
    layout, (indices, values, _, *rest) = content.root["x"].args
    content.root["x"].args = (layout, (indices, values, (7, 2), *rest))
    with pytest.raises(UnusableTensorError, match="indices that do not fit its shape"):
        content.reader.tensor(content.root["x"])


def quantized(*args, per_channel=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_channel(*args) if per_channel else torch.quantize_per_tensor(*args)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8, torch.qint32])
def test_quantized_tensors_are_dequantized(dtype):
    tensor = quantized(PRUNED, 0.25, 7, dtype)
    found, read = read_back(tensor)
    assert found == "quantized"
    assert torch.equal(read, tensor.dequantize())
    scales, zero_points = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, 2, 3])
    by_channel = quantized(PRUNED, scales, zero_points, 1, dtype, per_channel=True)
    assert torch.allclose(read_back(by_channel)[1], by_channel.dequantize())


def test_scales_that_do_not_fit_are_refused():
    codes, scales = torch.zeros(4, 2, dtype=torch.int8), torch.ones(3)
    for scheme, axis in (("per_channel_affine", 0), ("per_channel_affine", 5), ("per_tensor_affine", 0), ("other", 0)):
        with pytest.raises(UnusableTensorError, match="is quantized"):
            dequantize(codes, scheme, scales, scales, axis)
