"""Reading NumPy arrays from a parsed pickle: people keep masks in them beside weights that are tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgerecover.models.read.records import Made, UnusableTensorError, bytes_of

if TYPE_CHECKING:
    from torch import Tensor

_BUILT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
"""Arrays whose state is (version, shape, dtype, whether in Fortran order, bytes)."""
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
"""Arrays of pickle's protocol 5, made of (bytes, dtype, shape, order)."""
_TYPES = frozenset(("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))
_UNKNOWN = "is a NumPy array in an unknown form"
_MAX_DIMS = 8


def is_array(value: Any) -> bool:
    """Whether `value` is the record of a NumPy array of any type."""
    return isinstance(value, Made) and value.maker in (*_BUILT, *_FROM_BUFFER)


def has_bools(made: Made) -> bool:
    """Whether an array's type is bool, as far as its record says."""
    fields = made.state if made.maker in _BUILT else made.args
    dtype = fields[2 if made.maker in _BUILT else 1] if isinstance(fields, tuple) and len(fields) > 2 else None
    try:
        return _type_name(dtype).endswith("b1")
    except UnusableTensorError:
        return False


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
    type_name, data = _type_name(dtype), bytes_of(content)
    if data is None or not isinstance(shape, tuple) or len(shape) > _MAX_DIMS:
        raise UnusableTensorError(_UNKNOWN)
    if not all(type(side) is int and side >= 0 for side in shape):
        raise UnusableTensorError(_UNKNOWN)
    if math.prod(shape) * np.dtype(type_name).itemsize != len(data):
        raise UnusableTensorError("is a NumPy array that holds more or fewer values than its shape says")
    array = np.frombuffer(data, np.dtype(type_name)).reshape(shape, order="F" if is_fortran else "C")
    return torch.from_numpy(np.array(array, dtype=bool if array.dtype == bool else np.float32, order="C"))


def _type_name(dtype: Any) -> str:
    """NumPy's name of a type with its byte order, as in "<f4"."""
    made = dtype if isinstance(dtype, Made) and dtype.maker == "numpy.dtype" else Made(None, ())
    name = made.args[0] if isinstance(made.args, tuple) and made.args and isinstance(made.args[0], str) else ""
    state = made.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
    if name not in _TYPES or order not in ("<", ">", "|", "="):
        raise UnusableTensorError("is a NumPy array of something else than numbers")
    return f"{order}{name}"
