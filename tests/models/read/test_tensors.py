"""Records of tensors become the tensors torch would have made, or are refused when they lie."""

import io

import pytest
import torch

from edgerecover.models.read.pickles import parse
from edgerecover.models.read.records import Made, Name, Outside
from edgerecover.models.read.tensors import (
    TensorReader,
    UnusableTensorError,
    bytes_tensor,
    check_geometry,
    is_tensor,
    shape_of,
    strided_view,
)
from edgerecover.models.read.torch_files import read_zip
from edgerecover.models.read.zips import Archive

_VALUES = torch.arange(24)


def read_back(tensor):
    buffer = io.BytesIO()
    torch.save({"x": tensor}, buffer)
    content = read_zip(Archive(buffer, len(buffer.getvalue())))
    assert is_tensor(content.root["x"])
    return content.reader.tensor(content.root["x"])


@pytest.mark.parametrize(
    "tensor",
    [
        *(_VALUES.to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)),
        *(
            _VALUES.to(dtype)
            for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16)
        ),
        _VALUES > 7,
        _VALUES.float().to(torch.float8_e4m3fn),
        _VALUES.view(2, 3, 4).permute(2, 0, 1),
        _VALUES.view(4, 6)[1:3, ::2],
        torch.ones(1).expand(5, 2),
        torch.tensor(3.5),
        torch.empty(0, 3),
        torch.nn.Parameter(torch.ones(2, 2)),
        torch.nn.Buffer(torch.ones(3)),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_values_come_back(tensor):
    found = read_back(tensor)
    assert found.dtype is tensor.dtype
    assert torch.equal(found.double(), tensor.detach().double())


def test_a_parameter_with_attributes_comes_back():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.is_norm = True
    assert torch.equal(read_back(parameter), torch.ones(2))


@pytest.mark.parametrize(
    ("sizes", "strides", "offset"),
    [
        ((5,), (1,), 0),
        ((2, 2), (2, 1), 1),
        ((2,), (-1,), 1),
        ((-2,), (1,), 0),
        ((2, 2), (1,), 0),
        ((1,), (1,), -1),
        ((1,), (1,), 5),
        ((0,), (1,), 5),
        ((1,), (1,), 1.0),
        ((1 << 41,), (0,), 0),
        ((1 << 39, 1 << 39), (0, 0), 0),
        ((1 << 22,), (0,), 0),
        ((1,) * 65, (1,) * 65, 0),
    ],
)
def test_views_beyond_the_storage_are_refused(sizes, strides, offset):
    with pytest.raises(UnusableTensorError):
        check_geometry(sizes, strides, offset, 4)


def test_bytes_that_are_no_booleans_are_read_as_true():
    assert strided_view(bytes_tensor(bytearray(b"\x00\x01\x07")), "bool", (3,), (1,), 0).tolist() == [False, True, True]


def record(**changes):
    fields = {"maker": "_rebuild_tensor_v2", "kind": Name("torch", "FloatStorage"), "key": "0", "sizes": (2,)} | changes
    storage = Outside(("storage", fields["kind"], fields["key"], "cpu", 2))
    return Made(Name("torch._utils", fields["maker"]), (storage, 0, fields["sizes"], (1,), False, {}))


@pytest.mark.parametrize(
    "wrong",
    [
        record(maker="_rebuild_sparse_tensor"),
        record(kind=Name("torch", "QInt8Storage")),
        record(kind=Name("torch", "OddStorage")),
        record(kind=7),
        record(key=7),
        record(sizes="2"),
        record(sizes=(True,)),
        record(sizes=(2.0,)),
        Made(Name("torch._utils", "_rebuild_tensor_v2"), ()),
        Made(Name("torch._utils", "_rebuild_tensor_v2"), 7),
        Made(Name("torch._utils", "_rebuild_parameter"), (7, False, {})),
        Made(
            Name("torch._tensor", "_rebuild_from_type_v2"),
            (Name("os", "system"), Name("torch", "Tensor"), ("touch x",), {}),
        ),
        Made(Name("torch._tensor", "_rebuild_from_type_v2"), (Name("a", "b"), Name("own", "Tensor"), (), {})),
    ],
)
def test_records_that_lie_are_refused(wrong):
    with pytest.raises(UnusableTensorError):
        TensorReader(lambda key: bytearray(8)).tensor(wrong)
    assert shape_of(record()) == (2,)


def test_a_storage_is_read_once():
    asked = []

    def read(key):
        asked.append(key)
        return bytearray(8)

    reader = TensorReader(read)
    for _ in range(3):
        reader.tensor(record())
    assert asked == ["0"]


def test_parsing_alone_makes_no_tensor():
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    archive = Archive(buffer, len(buffer.getvalue()))
    assert isinstance(parse(bytes(archive.read("data.pkl"))).root, Made)
