"""Masks given as indices of the weights that were kept or pruned (`pruned_indices`, `keep_indices`).

They are used only where they can mean one thing: single weights, and a name that says kept or pruned. Indices of
channels are not: they may be of outputs or of inputs, and of a network that was made narrower since.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[str, "Tensor"]
"""Key of a weight, and indices into it."""

_KEPT = re.compile(r"keep|kept|remain|surviv|alive|non_?zero", re.IGNORECASE)
_PRUNED = re.compile(r"prune|zero|dropped|remove|dead", re.IGNORECASE)
_BITS_OF_PRUNED = re.compile(r"(?:^|[^a-z])(?:pruned|zeroed|dropped|removed|dead)(?:[^a-z]|$)", re.IGNORECASE)
_MIN_INDICES = 4
"""Fewer say nothing about how far they reach."""


def are_kept(name: str) -> bool | None:
    """Whether a name says that its indices are of kept weights; False for pruned ones, None where it says neither."""
    if _KEPT.search(name):
        return None if re.search("prune|remove|dead", name, re.IGNORECASE) else True
    return False if _PRUNED.search(name) else None


def mark_pruned(name: str) -> bool:
    """Whether bools under such a name mark what was pruned: `pruned`, `is_dead`."""
    return _BITS_OF_PRUNED.search(name) is not None


def are_indices(values: Tensor) -> bool:
    """Whether values are non-negative integers, some of them above 1."""
    is_whole = not values.is_floating_point() or bool((values == values.round()).all())
    return is_whole and values.numel() > 0 and float(values.min()) >= 0 and float(values.max()) > 1


def masks_at(pairs: Iterable[Pair], weights: Mapping[str, Tensor], *, kept: bool) -> dict[str, Tensor] | None:
    """Masks by weight key, bool, True where a weight is kept; None if the indices may count something else.

    Args:
        pairs: indices into flattened weights, or one row of coordinates (or one column) per weight entry.
        weights: by key.
        kept: whether the indices are of kept weights.
    """
    import torch

    masks = {}
    for key, indices in pairs:
        weight = weights[key]
        flat = _flat(indices.long(), weight)
        if flat is None or len(set(flat.tolist())) != len(flat):
            return None
        mask = torch.full((weight.numel(),), not kept)
        mask[flat] = kept
        masks[key] = mask.view(weight.shape)
    return masks


def _flat(indices: Tensor, weight: Tensor) -> Tensor | None:
    """Indices into the flattened weight; None if they may be something else."""
    import torch

    if indices.dim() == 2 and weight.dim() >= 2:
        rows = indices if indices.shape[1] == weight.dim() else indices.t()
        sides = torch.tensor(weight.shape)
        if rows.shape[1] != weight.dim() or len(rows) <= weight.dim() or not bool((rows < sides).all()):
            return None
        steps = torch.tensor([math.prod(weight.shape[dim:]) for dim in range(1, weight.dim() + 1)])
        return (rows * steps).sum(1)
    # Channels of a network that is narrower now are fewer than its weights by far.
    reaches = indices.dim() == 1 and len(indices) >= _MIN_INDICES and 2 * int(indices.max()) >= weight.numel()
    return indices if reaches and int(indices.max()) < weight.numel() else None


def are_applied(pairs: Iterable[Pair], weights: Mapping[str, Tensor], *, kept: bool | None) -> bool:
    """Whether the weights show already what the indices say, whichever way they are read.

    A layer has as many outputs as there are kept ones, or all that was pruned of it is zero.
    """
    return all(_is_applied(indices.long(), weights[key], kept) for key, indices in pairs)


def _is_applied(indices: Tensor, weight: Tensor, kept: bool | None) -> bool:
    import torch

    if kept is None or indices.dim() != 1:
        return False
    if kept and len(indices) == len(weight):
        return True
    views = [weight.movedim(dim, 0).flatten(1) for dim in range(min(2, weight.dim()))] + [weight.reshape(-1, 1)]
    for rows in views:
        if int(indices.max()) < len(rows):
            is_pruned = torch.full((len(rows),), kept)
            is_pruned[indices] = not kept
            if not bool(rows[is_pruned].any()):
                return True
    return False
