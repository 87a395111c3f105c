"""Are the zeros of a PyTorch network still zeros in an ONNX file that others made from it?"""

# ruff: noqa: TID253 - compares tensors; only the judgement of files from elsewhere imports it

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgerecover.models.onnx_weights import OnnxWeight


def count_regrown(masks: Mapping[str, Tensor], weights: Iterable[OnnxWeight]) -> int | None:
    """Weights that the masks hold at zero and that the file does not.

    Exporters keep names or, where they fold batch norm into a layer, make new ones. A layer is found by its name and
    shape; else by its shape alone, among equal ones by whose zeros fit best. Folding and scaling keep zeros.

    Args:
        masks: bool, by parameter name, True where the weight is kept.
        weights: of the file.

    Returns:
        None when a layer has no counterpart of its shape in the file.
    """
    left = {weight.name: weight.is_zero for weight in weights}
    named, unnamed = {}, {}
    for name, mask in masks.items():
        gone = ~mask.numpy()
        if name in left and _in_shape(left[name], gone.shape) is not None:
            named[name] = _regrown(gone, left.pop(name))
        else:
            unnamed[name] = gone
    total = sum(named.values())
    for gone in unnamed.values():
        costs = {name: _regrown(gone, zero) for name, zero in left.items() if _in_shape(zero, gone.shape) is not None}
        if not costs:
            return None
        best = min(costs, key=lambda name: costs[name])
        total += costs[best]
        del left[best]
    return total


def _in_shape(zero: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """As the PyTorch layer's shape: a matrix may be stored transposed, a 1×1 convolution as a matrix."""
    if zero.shape == shape:
        return zero
    if zero.ndim == 2 and zero.T.shape == shape:
        return zero.T
    return zero.reshape(shape) if zero.ndim == 2 and (*zero.shape, 1, 1) == shape else None


def _regrown(gone: NDArray[Any], zero: NDArray[Any]) -> int:
    """Of two ways to lay a square matrix, the one that fits."""
    ways = [zero] if zero.shape == gone.shape else []
    if zero.ndim == 2 and zero.T.shape == gone.shape:
        ways.append(zero.T)
    fitted = ways or [way for way in [_in_shape(zero, gone.shape)] if way is not None]
    return min(int(np.count_nonzero(gone & ~way)) for way in fitted)
