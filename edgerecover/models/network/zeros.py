"""Finding a parameter's zeros again in a tensor with another layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def num_not_zero(gone: NDArray[Any], zero: NDArray[Any]) -> int | None:
    """Number of pruned entries that are not zero in a tensor, in the layout that fits best.

    Args:
        gone: True where pruned, in the parameter's shape.
        zero: True where the tensor is zero; of the same shape, transposed, or as a matrix.

    Returns:
        The number; None if the tensor cannot be the parameter's.
    """
    import numpy as np

    return min((int(np.count_nonzero(gone & ~way)) for way in _ways(zero, gone.shape)), default=None)


def _ways(zero: NDArray[Any], shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """The tensor in `shape`, as it is or transposed; if neither fits, reshaped."""
    if len(shape) < 2 or zero.size != _size(shape):
        return
    fits = [way for way in (zero, zero.swapaxes(-1, -2) if zero.ndim >= 2 else zero) if way.shape == shape]
    if fits:
        yield from fits
        return
    yield zero.reshape(shape)
    if zero.ndim == 2:  # a kernel as a matrix whose rows are inputs
        yield zero.T.reshape(shape)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
