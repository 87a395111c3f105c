"""Whether a tensor may be the mask of a weight: by its shape, its values, or its place in a list.

A mask whose shape differs from its weight's is used only if it can be read in one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MIN_VALUES = 64
"""With fewer weights, a mask may look inverted by chance."""


def fit(mask: Tensor, weight: Tensor, *, whole_channels: bool = True) -> Tensor | None:
    """Expand a mask to its weight's shape; None if it does not fit, or could be read in two ways.

    Args:
        mask: of 0 and 1, of any type.
        weight: of any shape.
        whole_channels: the mask may also be flat, or have one value per output or input channel or per kernel, or sides
            of 1 where it repeats. Their number tells which channels are meant, unless the weight has as many of both.
    """
    if mask.dim() == 0 or not weight.is_floating_point() or not is_binary(mask):
        return None
    if mask.shape == weight.shape:
        return mask
    if not whole_channels or weight.dim() < 2:
        return None
    if mask.dim() == 1 and mask.numel() == weight.numel():
        return mask.reshape(weight.shape)
    if 1 < mask.dim() < weight.dim() and mask.shape == weight.shape[:2] != weight.shape[-2:]:
        return mask.reshape(*mask.shape, *[1] * (weight.dim() - 2)).expand(weight.shape)  # of whole kernels
    same_dims = mask.dim() == weight.dim()
    sides = [side for side in mask.shape if side > 1]
    if len(sides) != 1:
        fits = same_dims and all(side in (1, full) for side, full in zip(mask.shape, weight.shape, strict=True))
        return mask.expand(weight.shape) if fits and sides else None
    (side,) = sides
    dims = [dim for dim in (0, 1) if weight.shape[dim] == side]
    if same_dims and mask.shape[0] == side:
        dims = dims[:1]  # (N, 1, 1, 1) are outputs; (1, N, 1, 1) may also mask the images that come out
    if len(dims) != 1:
        return None
    shape = [side if dim == dims[0] else 1 for dim in range(weight.dim())]
    return mask.reshape(shape).expand(weight.shape)


def is_binary(mask: Tensor) -> bool:
    """Whether a tensor holds only 0 and 1."""
    return bool(((mask == 0) | (mask == 1)).all())


def binaries_beside_weights(tensors: Mapping[str, Tensor]) -> list[str]:
    """Keys of matrices of 0 and 1 beside another matrix of their shape in the same layer: `fc.weight.zeros`, `fc.m`."""
    same: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for key, tensor in tensors.items():
        if tensor.dim() >= 2:
            for path in (key, key.rpartition(".")[0]):
                same.setdefault((path, tuple(tensor.shape)), []).append(key)
    found: dict[str, None] = {}
    for keys in same.values():
        if len(keys) > 1:
            binaries = [key for key in keys if is_binary(tensors[key]) and _has_both(tensors[key])]
            found |= dict.fromkeys(binaries if len(binaries) < len(keys) else ())
    return list(found)


def _has_both(binary: Tensor) -> bool:
    return 0 < int(binary.count_nonzero()) < binary.numel()


def is_inverted(mask: Tensor, weight: Tensor) -> bool:
    """Whether a mask marks pruned weights: all that it would keep are zero, and the others are not."""
    kept = mask != 0
    return bool((weight[kept] == 0).all()) and bool((weight[~kept] != 0).any())


def keep_the_smallest(masks_and_weights: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Whether all masks together would keep the small weights and drop the large ones, so that 1 must mean pruned.

    Args:
        masks_and_weights: each mask, bool, True where it would keep, and its weight before it was masked.
    """
    num_values = 0
    for kept, weight in masks_and_weights:
        if not bool(kept.any()):  # of a layer that was not pruned
            continue
        if bool(kept.all()) or float(weight[kept].abs().max()) >= float(weight[~kept].abs().min()):
            return False
        num_values += weight.numel()
    return num_values >= _MIN_VALUES


def places_of(shapes: Sequence[tuple[int, ...]], among: Sequence[tuple[int, ...]]) -> list[int] | None:
    """Where unnamed masks in a list belong: increasing indices into `among`; None unless there is exactly one way."""
    ways = [1] + [0] * len(shapes)
    """Number of ways to place the first shapes, by how many of them are placed."""
    for other in among:
        for index in range(len(shapes) - 1, -1, -1):
            if shapes[index] == other:
                ways[index + 1] += ways[index]
    if not shapes or ways[-1] != 1:
        return None
    places: list[int] = []
    for place, other in enumerate(among):
        if len(places) < len(shapes) and shapes[len(places)] == other:
            places.append(place)
    return places
