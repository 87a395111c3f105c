"""Reading tensors from a parsed pickle: which records describe one, and its values from the storage that they name.

Everything a file says about a tensor (type, shape, strides, offset) is checked against the bytes that are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgerecover.models.read.arrays import has_bools, is_array, read_array
from edgerecover.models.read.compact import SCHEMES, SPARSE_LAYOUTS, densify, dequantize
from edgerecover.models.read.records import Made, Name, Outside, UnusableTensorError, bytes_of, printable
from edgerecover.models.read.zips import MAX_EXPANSION, MAX_EXPANSION_FREE_BYTES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STRIDED = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
TYPED = "torch._tensor._rebuild_from_type_v2"
PLAIN_TYPES = (
    "torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.Parameter",
    "torch.nn.parameter.Buffer",
)  # fmt: skip
SPARSE = ("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_sparse_csr_tensor")
_LAYOUT = "torch.serialization._get_layout"
QUANTIZED = "torch._utils._rebuild_qtensor"

META_HINT = "the network was on the meta device: load its weights, then save"
SUBCLASS_HINT = (
    "make it a plain tensor and save again: .full_tensor() of a DTensor, .to_dense() of a 2:4 compressed one, "
    ".dequantize() of a quantized one"
)
_NUMPY_HINT = "move the network to the CPU, then save"
OTHER_KINDS = {
    "torch._utils._rebuild_meta_tensor_no_storage": ("has no data (device meta)", META_HINT),
    "torch._utils._rebuild_nested_tensor": ("is a nested tensor", SUBCLASS_HINT),
    "torch._utils._rebuild_device_tensor_from_numpy": ("was saved through NumPy", _NUMPY_HINT),
    "torch._utils._rebuild_xla_tensor": ("was saved through NumPy", _NUMPY_HINT),
    "torch._utils._rebuild_wrapper_subclass": ("is of a tensor subclass", SUBCLASS_HINT),
}
"""Other records of tensors: what they are, in words that follow the tensor's name, and what to do."""

PACKED_STORAGE = "torch.storage._load_from_bytes"

STORAGE_DTYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8", "QUInt8Storage": "uint8", "QInt32Storage": "int32",
}  # fmt: skip

DTYPES = frozenset(
    (
        *STORAGE_DTYPES.values(), "uint16", "uint32", "uint64", "complex32",
        "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    )
)  # fmt: skip

MAX_SIZE = 1 << 40
"""Of one dimension, one stride."""

_MAX_WRAPPING = 4
_MAKERS = frozenset((*STRIDED, *PARAMETERS, TYPED, *SPARSE, QUANTIZED))


def is_tensor(value: Any) -> bool:
    """Whether `value` is a tensor, or the record of one of any kind."""
    if isinstance(value, Made):
        maker = value.maker
        return maker in _MAKERS or maker in OTHER_KINDS
    import torch

    return isinstance(value, torch.Tensor)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Shape of a tensor, or of a strided one from its record; None for anything else."""
    if not isinstance(value, Made):
        return tuple(value.shape) if is_tensor(value) else None
    try:
        made = _innermost(value)
        return _integers(_argument(made, 2)) if made.maker in STRIDED else None
    except UnusableTensorError:
        return None


def is_bool(value: Any) -> bool:
    """Whether `value` is the record of an ordinary tensor of bools, or of an array of them."""
    try:
        made = _innermost(value)
        return made.maker in STRIDED and storage_id(_argument(made, 0))[1] == "bool"
    except UnusableTensorError:
        return is_array(value) and has_bools(value)


def compact_kind(value: Any) -> str:
    """How a tensor that must be made dense is stored: "sparse" or "quantized"; empty for others."""
    try:
        maker = _innermost(value).maker if isinstance(value, Made) else ""
    except UnusableTensorError:
        return ""
    return "sparse" if maker in SPARSE else "quantized" if maker == QUANTIZED else ""


class TensorReader:
    """Turns records into tensors; a storage is read once, when a tensor first needs it."""

    def __init__(
        self, read_storage: Callable[[str], bytearray], unpack: Callable[[bytes], tuple[Any, bytearray]] | None = None
    ) -> None:
        """Set how storages are read; both functions may raise PickleError or ZipError.

        Args:
            read_storage: gives the bytes of a storage by its key.
            unpack: gives the record and the bytes of a storage inside the pickle, as pickle.dump writes it.
        """
        self._read_storage = read_storage
        self._unpack = unpack
        self._bytes_by_key: dict[str, Tensor] = {}

    def tensor(self, value: Any, max_values: int = MAX_SIZE) -> Tensor:
        """Read the tensor that a record describes; it may share memory with others of the same storage.

        Args:
            value: a record of a tensor or a NumPy array, or a tensor.
            max_values: how many values a sparse tensor may have when made dense.

        Raises:
            UnusableTensorError: the tensor is of an unsupported kind, or does not fit its storage.
        """
        if not isinstance(value, Made):
            ready: Tensor = value
            return ready
        if is_array(value):
            return read_array(value)
        made = _innermost(value)
        if made.maker in SPARSE:
            return self._sparse(made, max_values)
        if made.maker == QUANTIZED:
            return self._dequantize(made)
        return self._view(made)

    def _view(self, made: Made, *, quantized: bool = False) -> Tensor:
        storage, dtype_name, base = self._storage(_argument(made, 0), quantized=quantized)
        if made.maker.endswith("_v3"):
            dtype_name = _dtype_name(_argument(made, 6))
        metadata = made.args[-1] if len(made.args) > 6 and isinstance(made.args[-1], dict) else {}
        if metadata.get("neg") or metadata.get("conj"):
            raise UnusableTensorError("is stored negated or conjugated", "call resolve_neg() on it before saving")
        offset, sizes, strides = _argument(made, 1), _integers(_argument(made, 2)), _integers(_argument(made, 3))
        if type(offset) is not int:
            raise UnusableTensorError("has an offset that is not a whole number")
        return strided_view(storage, dtype_name, sizes, strides, base + offset)

    def _sparse(self, made: Made, max_values: int) -> Tensor:
        """Read a sparse tensor: (layout, (indices, values, size, ...)), or with pointers before the indices."""
        layout, data = _argument(made, 0), _argument(made, 1)
        name = _layout_name(layout)
        num_parts = 2 if name == "sparse_coo" else 3
        if name not in SPARSE_LAYOUTS or not isinstance(data, tuple) or len(data) <= num_parts:
            raise UnusableTensorError("is sparse in an unknown layout")
        parts = [self._part(part) for part in data[:num_parts]]
        return densify(name, parts, _integers(data[num_parts]), max_values)

    def _dequantize(self, made: Made) -> Tensor:
        """Read a quantized tensor: (storage, offset, sizes, strides, (scheme, scale, zero point, axis), ...)."""
        import torch

        codes, parameters = self._view(made, quantized=True), _argument(made, 4)
        scheme = parameters[0] if isinstance(parameters, tuple) and len(parameters) in (3, 4) else None
        if not isinstance(scheme, Name) or scheme.name not in SCHEMES:
            raise UnusableTensorError("is quantized in an unknown scheme", SUBCLASS_HINT)
        numbers = parameters[1:3]
        if scheme.name != "per_tensor_affine":
            scales, zero_points = (self._part(part) for part in numbers)
        elif type(numbers[0]) is float and type(numbers[1]) is int and abs(numbers[1]) < MAX_SIZE:
            scales, zero_points = (torch.tensor(number, dtype=torch.float64) for number in numbers)
        else:
            raise UnusableTensorError("is quantized with a scale that is not a number")
        axis = parameters[3] if len(parameters) == 4 and type(parameters[3]) is int else -1
        return dequantize(codes, scheme.name, scales, zero_points, axis)

    def _part(self, value: Any) -> Tensor:
        """Read an ordinary tensor that describes another one."""
        made = _innermost(value)
        if made.maker not in STRIDED:
            raise UnusableTensorError("is described by tensors that are not ordinary ones")
        return self._view(made)

    def _storage(self, value: Any, *, quantized: bool = False) -> tuple[Tensor, str, int]:
        """Bytes of a storage, the type of its elements, and the element at which it begins."""
        if isinstance(value, Made) and value.maker == PACKED_STORAGE and self._unpack is not None:
            packed = bytes_of(_argument(value, 0))
            if packed is None:
                raise UnusableTensorError("is in a storage packed in an unknown way")
            inner, content = self._unpack(packed)
            return bytes_tensor(content), *storage_id(inner, quantized=quantized)[1:]
        key, dtype_name, base = storage_id(value, quantized=quantized)
        if key not in self._bytes_by_key:
            self._bytes_by_key[key] = bytes_tensor(self._read_storage(key))
        return self._bytes_by_key[key], dtype_name, base


def bytes_tensor(content: bytearray) -> Tensor:
    """uint8 (size,) over `content`, without a copy."""
    import torch

    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def strided_view(
    storage: Tensor, dtype_name: str, sizes: tuple[int, ...], strides: tuple[int, ...], offset: Any
) -> Tensor:
    """View of `storage` (uint8) as a tensor; `offset` and `strides` count elements.

    Raises:
        UnusableTensorError: it would reach beyond the storage, or its shape makes no sense.
    """
    import torch

    if dtype_name not in DTYPES:
        raise UnusableTensorError(f"is of the unknown type {dtype_name[:40]!r}")
    dtype: torch.dtype = getattr(torch, dtype_name)
    num_stored = len(storage) // dtype.itemsize
    check_geometry(sizes, strides, offset, num_stored)
    if dtype is torch.bool:
        return torch.as_strided(storage, sizes, strides, offset) != 0  # bytes may be neither 0 nor 1
    return torch.as_strided(storage[: num_stored * dtype.itemsize].view(dtype), sizes, strides, offset)


def check_geometry(sizes: tuple[int, ...], strides: tuple[int, ...], offset: Any, num_stored: int) -> None:
    """Check that a view of `num_stored` elements stays inside them.

    Raises:
        UnusableTensorError: it does not.
    """
    if type(offset) is not int or len(sizes) != len(strides) or len(sizes) > 64 or offset < 0:
        raise UnusableTensorError("has a shape, strides and an offset that do not go together")
    if min((*sizes, *strides), default=0) < 0 or max((*sizes, *strides), default=0) > MAX_SIZE:
        raise UnusableTensorError("has a negative or absurd size or stride")
    num_values = math.prod(map(int, sizes))
    if num_values > MAX_EXPANSION * num_stored + MAX_EXPANSION_FREE_BYTES:
        raise UnusableTensorError(f"claims the shape {list(sizes)[:8]}, but {num_stored:,} values are stored")
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if offset > num_stored or (num_values and last >= num_stored):
        raise UnusableTensorError(f"reaches beyond its storage of {num_stored:,} values")


def _innermost(value: Any) -> Made:
    """The record of a strided, sparse or quantized tensor inside those of parameters and typed tensors."""
    for _ in range(_MAX_WRAPPING):
        if not isinstance(value, Made):
            break
        maker = value.maker
        if maker in STRIDED or maker in SPARSE or maker == QUANTIZED:
            return value
        if maker in OTHER_KINDS:
            raise UnusableTensorError(*OTHER_KINDS[maker])
        if maker in PARAMETERS:
            value = _argument(value, 0)
        elif maker == TYPED:
            kind = _argument(value, 1)
            if not isinstance(kind, Name) or str(kind) not in PLAIN_TYPES:
                raise UnusableTensorError(f"is of the tensor subclass {printable(kind)}", SUBCLASS_HINT)
            value = Made(_argument(value, 0), _argument(value, 2))
        else:
            break
    raise UnusableTensorError("is described in an unknown way")


def _argument(made: Made, index: int) -> Any:
    if not isinstance(made.args, tuple) or len(made.args) <= index:
        raise UnusableTensorError("is described by too few arguments")
    return made.args[index]


def _integers(value: Any) -> tuple[int, ...]:
    if isinstance(value, Made) and value.maker == "torch.Size":
        value = _argument(value, 0)
    if not isinstance(value, tuple | list) or len(value) > 64 or not all(type(item) is int for item in value):
        raise UnusableTensorError("has a shape that is not a list of whole numbers")
    return tuple(value)


def storage_id(value: Any, *, quantized: bool = False) -> tuple[str, str, int]:
    """Key of a storage, the type of its elements, and the element at which it begins.

    Args:
        value: the file's reference to it.
        quantized: whether it may hold the codes of a quantized tensor.

    Raises:
        UnusableTensorError: `value` does not refer to a storage of ordinary numbers.
    """
    fields = value.id if isinstance(value, Outside) else None
    if not isinstance(fields, tuple) or len(fields) < 5 or fields[0] != "storage":
        raise UnusableTensorError("names no storage")
    kind, key, location = fields[1:4]
    if not isinstance(kind, Name) or kind.name not in STORAGE_DTYPES:
        raise UnusableTensorError("is in a storage of an unknown type")
    if not isinstance(key, str):
        raise UnusableTensorError("is in a storage without a name")
    if kind.name.startswith("Q") and not quantized:
        raise UnusableTensorError("is quantized")
    if location == "meta":
        raise UnusableTensorError("has no data (device meta)", META_HINT)
    return key, STORAGE_DTYPES[kind.name], _base_of_view(fields[5] if len(fields) > 5 else None)


def _base_of_view(view: Any) -> int:
    """Where a storage that is part of another one begins in it; torch wrote such storages before version 0.4."""
    if view is None:
        return 0
    if not isinstance(view, tuple) or len(view) != 3 or type(view[1]) is not int or view[1] < 0:
        raise UnusableTensorError("is in a part of a storage that is described in an unknown way")
    return int(view[1])


def _layout_name(value: Any) -> str:
    """Name of a layout, which torch pickles as a call with that name."""
    if isinstance(value, Made) and value.maker == _LAYOUT:
        value = _argument(value, 0)
    return value.removeprefix("torch.") if isinstance(value, str) else ""


def _dtype_name(value: Any) -> str:
    if not isinstance(value, Name) or value.module != "torch":
        raise UnusableTensorError("is of an unknown type")
    return value.name
