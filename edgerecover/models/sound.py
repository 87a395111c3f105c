"""Plain, sound tensors: float32, finite, and with the masks of torch.nn.utils.prune applied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.errors import BadInputError
from edgerecover.models.records import printable

if TYPE_CHECKING:
    from torch import Tensor


def plain(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Detached copies, floating ones as float32, and the names of other floating types that were met."""
    import torch

    met = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    plain = {
        key: tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in state.items()
    }
    return plain, " and ".join(sorted(met))


def check_values(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse values that no forward pass survives.

    Raises:
        BadInputError: NaN or infinite values, or negative variances of batch norm.
    """
    for key, tensor in tensors.items():
        is_finite = tensor.isfinite()
        if not bool(is_finite.all()):
            num_bad = tensor.numel() - int(is_finite.count_nonzero())
            raise BadInputError(
                f"{path}: {num_bad:,} of the {tensor.numel():,} values of {printable(key)!r} are NaN or infinite",
                hint="use a checkpoint from before the training diverged",
            )
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise BadInputError(
                f"{path}: {printable(key)!r} holds negative variances (lowest {float(tensor.min()):.3g}), "
                "so its normalisation cannot be computed",
                hint="use an intact checkpoint",
            )


def bake_masks(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor] | None]:
    """Pruned tensors, masks, and the dense tensors when they are all there."""
    masks = _explicit_masks(tensors)
    if not masks:
        return tensors, {}, None
    plain_keys = {f"{name}_orig": name for name in masks}
    mask_keys = {f"{name}_mask" for name in masks}
    dense = {plain_keys.get(key, key): tensor for key, tensor in tensors.items() if key not in mask_keys}
    pruned = {key: tensor * masks[key] if key in masks else tensor for key, tensor in dense.items()}
    has_dense_weights = any(bool((dense[key][~mask] != 0).any()) for key, mask in masks.items())
    return pruned, masks, dense if has_dense_weights else None


def _explicit_masks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors called X_mask that hold only 0 and 1, in the shape of X_orig or X."""
    masks = {}
    for key, mask in tensors.items():
        name = key.removesuffix("_mask")
        weight = tensors.get(f"{name}_orig", tensors.get(name))
        if name == key or weight is None or weight.shape != mask.shape or not weight.is_floating_point():
            continue
        if bool(((mask == 0) | (mask == 1)).all()):
            masks[name] = mask != 0
    return masks
