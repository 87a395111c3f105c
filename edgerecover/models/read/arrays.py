"""Reading NumPy arrays from a parsed pickle: people keep masks in them beside weights that are tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgerecover.models.read.records import Made, UnusableTensorError

if TYPE_CHECKING:
    from torch import Tensor

_BUILT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
"""Arrays whose state is (version, shape, dtype, whether in Fortran order, bytes)."""
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
"""Arrays of pickle's protocol 5, made of (bytes, dtype, shape, order)."""
_ENCODED = "_codecs.encode"
_TYPES = frozenset(("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))
_UNKNOWN = "is a NumPy array in an unknown form"
_MAX_DIMS = 8


def is_array(value: Any) -> bool:
    """Whether `value` is the record of a NumPy array of any type."""
    return isinstance(value, Made) and value.maker in (*_BUILT, *_FROM_BUFFER)


def read_array(made: Made) -> Tensor:
    """Read an array, as float32 or bool: enough for masks.

    Raises:
        UnusableTensorError: it does not hold plain numbers, or not as many as its shape says.
    """
    import numpy as np
    import torch

    fields = made.state if made.maker in _BUILT else made.args
    if not isinstance(fields, tuple) or len(fields) != (5 if made.maker in _BUILT else 4):
        raise UnusableTensorError(_UNKNOWN)
    if made.maker in _BUILT:
        _, shape, dtype, is_fortran, content = fields
    else:
        content, dtype, shape, order = fields
        is_fortran = order == "F"
    type_name, data = _type_name(dtype), _bytes(content)
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
        raise UnusableTensorError(_UNKNOWN)
    if math.prod(shape) * np.dtype(type_name).itemsize != len(data):
        raise UnusableTensorError("is a NumPy array that holds more or fewer values than its shape says")
    array = np.frombuffer(data, np.dtype(type_name)).reshape(shape, order="F" if is_fortran else "C")
    return torch.from_numpy(np.array(array, dtype=bool if array.dtype == bool else np.float32, order="C"))


def _type_name(dtype: Any) -> str:
    """NumPy's name of a type with its byte order, as in "<f4"."""
    name = dtype.args[0] if isinstance(dtype, Made) and dtype.maker == "numpy.dtype" and dtype.args else None
    state = dtype.state if isinstance(dtype, Made) else None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
    if name not in _TYPES or order not in ("<", ">", "|", "="):
        raise UnusableTensorError("is a NumPy array of something else than numbers")
    return f"{order}{name}"


def _bytes(content: Any) -> bytes:
    """Bytes of an array; before protocol 3, pickles hold them as text."""
    if isinstance(content, Made) and content.maker == _ENCODED and isinstance(content.args, tuple):
        text = content.args[0] if content.args[1:] == ("latin1",) else None
        if isinstance(text, str) and max(map(ord, text), default=0) < 256:
            return text.encode("latin1")
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    raise UnusableTensorError(_UNKNOWN)
