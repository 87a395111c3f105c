"""2:4 masks: of every four consecutive weights along the input channels, the two largest stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerecover.errors import BadInputError
from edgerecover.models.network.sparsity import prunable_layers

if TYPE_CHECKING:
    from torch import Tensor, nn


def two_four_masks(module: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Masks by magnitude in the pattern of NVIDIA's sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378).

    Of equal magnitudes, the later input channels stay, so the same weights always give the same masks.

    Args:
        module: its weights (`models.network.sparsity`) are pruned, each on its own.

    Returns:
        bool masks on the CPU by weight key, in the weights' shapes, True where a weight is kept; and the keys of
        the layers that stay dense, because their input channels (per group) are not a multiple of four.

    Raises:
        BadInputError: no layer can be 2:4.
    """
    masks, left_dense = {}, []
    for name, weight, input_dim in prunable_layers(module):
        if weight.shape[input_dim] % 4:
            left_dense.append(name)
        else:
            masks[name] = _mask(weight.cpu(), input_dim)
    if not masks:
        raise BadInputError(
            "no Conv or Linear layer can be 2:4: none has a multiple of four input channels",
            hint="--pattern unstructured or channel may do",
        )
    return masks, tuple(left_dense)


def _mask(weight: Tensor, input_dim: int) -> Tensor:
    import torch

    last = weight.abs().movedim(input_dim, -1)
    groups_G4 = last.reshape(-1, 4)
    smallest_G2 = groups_G4.argsort(dim=1, stable=True)[:, :2]
    mask_G4 = torch.ones_like(groups_G4, dtype=torch.bool).scatter(1, smallest_G2, False)
    return mask_G4.reshape(last.shape).movedim(-1, input_dim).contiguous()
