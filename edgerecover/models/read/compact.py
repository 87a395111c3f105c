"""Turning sparse and quantised tensors into dense float ones; everything the file says about them is checked first."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgerecover.models.read.records import UnusableTensorError

if TYPE_CHECKING:
    from torch import Tensor

SPARSE_LAYOUTS = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
SCHEMES = ("per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams")

_MAX_INDEX_DIMS = 2


def densify(layout: str, parts: Sequence[Tensor], sizes: tuple[int, ...], max_values: int) -> Tensor:
    """The dense tensor of a sparse one.

    Args:
        layout: one of `SPARSE_LAYOUTS`.
        parts: indices and values (COO), or compressed indices, plain indices and values.
        sizes: of the dense tensor.
        max_values: how many values the dense tensor may have.

    Raises:
        UnusableTensorError: it has more, or indices, pointers or blocks do not fit its shape.
    """
    import torch

    if layout not in SPARSE_LAYOUTS or len(parts) != (2 if layout == "sparse_coo" else 3):
        raise UnusableTensorError("is sparse in an unknown layout")
    indices, values = parts[:-1], parts[-1]
    if min(sizes, default=0) < 0 or math.prod(sizes) > max_values:
        raise UnusableTensorError(f"is sparse and would take {math.prod(sizes):,} values as a dense one, too many")
    if not all(index.dtype in (torch.int32, torch.int64) and index.dim() <= _MAX_INDEX_DIMS for index in indices):
        raise UnusableTensorError("is sparse with indices that are not whole numbers")
    plain = values.float() if values.is_floating_point() else values
    try:
        if layout == "sparse_coo":
            sparse = torch.sparse_coo_tensor(indices[0], plain, sizes, check_invariants=True)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls its compressed layouts a beta
                sparse = torch.sparse_compressed_tensor(
                    indices[0], indices[1], plain, sizes, layout=getattr(torch, layout), check_invariants=True
                )
        return sparse.to_dense()
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # torch's checks raise any of them
        raise UnusableTensorError("is sparse with indices that do not fit its shape") from error


def dequantize(codes: Tensor, scheme: str, scales: Tensor, zero_points: Tensor, axis: int) -> Tensor:
    """Dequantise integer codes to float32: (code - zero point) * scale.

    Args:
        codes: integers.
        scheme: one of `SCHEMES`.
        scales: one, or one for each index along `axis`.
        zero_points: as many as there are scales.
        axis: the axis of the scales, where there is one per channel.

    Raises:
        UnusableTensorError: an unknown scheme, or numbers of scales that do not fit.
    """
    if scheme not in SCHEMES:
        raise UnusableTensorError("is quantized in an unknown scheme")
    if scheme == "per_tensor_affine":
        shape: tuple[int, ...] = ()
    else:
        if not 0 <= axis < codes.dim():
            raise UnusableTensorError("is quantized along a dimension that it does not have")
        shape = tuple(size if dim == axis else 1 for dim, size in enumerate(codes.shape))
    if scales.numel() != math.prod(shape) or zero_points.numel() != math.prod(shape):
        raise UnusableTensorError("is quantized with a number of scales that does not fit its shape")
    centred = codes.double() - zero_points.double().reshape(shape)
    return (centred * scales.double().reshape(shape)).float()
