"""Masks by magnitude over the weights that multiply, for the whole network together or layer by layer.

Shapes: O output channels, I input channels per group, B blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgerecover.errors import BadInputError
from edgerecover.models.network.sparsity import prunable_weights
from edgerecover.runtime.engine.mnn_file import BLOCK_O

if TYPE_CHECKING:
    from torch import Tensor, nn


def global_magnitude_masks(module: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Masks that remove the smallest weights of the whole network, by magnitude.

    Exactly `round(sparsity * num_weights)` weights go. Of equal magnitudes, those of earlier layers and
    positions go first, so the same weights always give the same masks.

    Args:
        module: its weights (`models.network.sparsity`) are ranked together, after torch's weight normalisation, if any.
        sparsity: wanted fraction of zeros, between 0 and 1; zeros that are there already count.

    Returns:
        bool masks on the CPU by weight key, in the weights' shapes; True where a weight is kept.

    Raises:
        BadInputError: the sparsity is out of range or below the network's, or there is nothing to prune.
    """
    weights = _used_weights(module)
    num_pruned = _count_to_prune(weights, sparsity)
    return _remove_smallest(weights, num_pruned)


def layerwise_magnitude_masks(module: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Masks that remove the smallest weights of each layer, by magnitude: the same fraction everywhere.

    Exactly `round(sparsity * num_weights)` weights of each layer go, or its zeros if it has more.

    Args:
        module: its weights (`models.network.sparsity`) are ranked layer by layer.
        sparsity: wanted fraction of zeros, between 0 and 1; zeros that are there already count.

    Returns:
        bool masks on the CPU by weight key, in the weights' shapes; True where a weight is kept.

    Raises:
        BadInputError: the sparsity is out of range or below the network's, or there is nothing to prune.
    """
    weights = _used_weights(module)
    _count_to_prune(weights, sparsity)
    masks: dict[str, Tensor] = {}
    for name, weight in weights.items():
        num_zeros = weight.numel() - int(weight.count_nonzero())
        masks |= _remove_smallest({name: weight}, max(num_zeros, round(sparsity * weight.numel())))
    return masks


def block_magnitude_masks(
    module: nn.Module, sparsity: float, *, layerwise: bool = False
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Masks that remove the weakest blocks of `BLOCK_O` output channels at one input channel, where MNN uses them.

    Those are the 1×1 convolutions and linear layers: the sparsity is that of their weights together, or of each with
    `layerwise`. The strength of a block is the root mean square of its weights. Rows that do not fill a block, and all
    other layers, are left as they are.

    Args:
        module: its weights (`models.network.sparsity`) are ranked, after torch's weight normalisation, if any.
        sparsity: wanted fraction of zeros in these layers, between 0 and 1; zeros that are there already count.
        layerwise: the same fraction in every layer.

    Returns:
        bool masks on the CPU by weight key, in the weights' shapes, True where a weight is kept; and the keys of the
        layers that were left as they are.

    Raises:
        BadInputError: the sparsity is out of range or below that of these layers, or the network has no such layer.
    """
    import torch

    weights = _used_weights(module)
    fitting = {name: weight for name, weight in weights.items() if _can_have_blocks(weight)}
    if not fitting:
        raise BadInputError(
            "the network has no 1×1 convolution or linear layer, and MNN gains by zeros in no other",
            hint="leave out --for, or remove channels: --pattern channel",
        )
    _count_to_prune(fitting, sparsity)
    strengths = {name: _strengths(weight) for name, weight in fitting.items()}
    groups = [[name] for name in strengths] if layerwise else [list(strengths)]
    kept: dict[str, Tensor] = {}
    for group in groups:
        num_blocks = round(sparsity * sum(fitting[name].numel() for name in group) / BLOCK_O)
        blocks = {name: strengths[name] for name in group}
        kept |= _remove_smallest(blocks, min(num_blocks, sum(block.numel() for block in blocks.values())))
    masks = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    for name, kept_BI in kept.items():
        masks[name].flatten(1)[: BLOCK_O * len(kept_BI)] = kept_BI.repeat_interleave(BLOCK_O, dim=0)
    return masks, tuple(name for name in weights if name not in fitting)


def _can_have_blocks(weight: Tensor) -> bool:
    """(O, I) or (O, I, 1, 1); not the 1×1 kernels of a depthwise layer."""
    return weight.shape[0] >= BLOCK_O and weight.shape[1] > 1 and weight.flatten(1).shape[1] == weight.shape[1]


def _strengths(weight: Tensor) -> Tensor:
    """Of each block, (O // 4, I)."""
    rows_OI = weight.float().contiguous().flatten(1)[: weight.shape[0] // BLOCK_O * BLOCK_O]
    return rows_OI.view(-1, BLOCK_O, rows_OI.shape[1]).square().mean(1).sqrt()


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights to zero, in place, where their mask is False.

    Args:
        module: has a parameter with each mask's name and shape.
        masks: bool, by weight key, True where kept; on any device.
    """
    import torch

    with torch.no_grad():
        for name, mask in masks.items():
            weight = module.get_parameter(name)
            weight.masked_fill_(~mask.to(weight.device), 0.0)


def _used_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights that the network multiplies by, by the parameter's name; normalised ones after normalisation.

    They are zero where the parameter is.
    """
    return {name: _normalise(module, name, weight) for name, weight in prunable_weights(module).items()}


def _normalise(module: nn.Module, name: str, weight: Tensor) -> Tensor:
    from torch.nn.utils.weight_norm import WeightNorm

    layer, found, rest = name.rpartition("parametrizations.")
    if found:
        used = getattr(module.get_submodule(layer.removesuffix(".")), rest.partition(".")[0])
    else:
        owner = module.get_submodule(name.rpartition(".")[0])
        hooks = [hook for hook in owner._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
        used = next((hook.compute_weight(owner) for hook in hooks if name.endswith(f"{hook.name}_v")), weight)
    return used.detach() if used.shape == weight.shape else weight


def _remove_smallest(weights: Mapping[str, Tensor], num_pruned: int) -> dict[str, Tensor]:
    import torch

    if num_pruned == 0:
        return {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    threshold = _kth_smallest_magnitude(weights, num_pruned)
    num_below = sum(int((weight.abs() < threshold).count_nonzero()) for weight in weights.values())
    num_ties_pruned = num_pruned - num_below
    masks = {}
    for name, weight in weights.items():
        magnitude = weight.abs().flatten().cpu()
        mask = magnitude >= threshold
        pruned_ties = (magnitude == threshold).nonzero().flatten()[:num_ties_pruned]
        mask[pruned_ties] = False
        num_ties_pruned -= len(pruned_ties)
        masks[name] = mask.view(weight.shape)
    return masks


def _count_to_prune(weights: Mapping[str, Tensor], sparsity: float) -> int:
    num_weights = sum(weight.numel() for weight in weights.values())
    if not 0.0 < sparsity < 1.0:
        raise BadInputError(
            f"sparsity {sparsity:g} is out of range: a fraction between 0 and 1 is needed",
            hint="0.75 makes three of four weights zero",
        )
    if not num_weights:
        raise BadInputError(
            "the network has no Conv or Linear weights to prune",
            hint="a network with convolutions or linear layers can be pruned",
        )
    num_pruned = round(sparsity * num_weights)
    if num_pruned == 0:
        raise BadInputError(f"sparsity {sparsity:g} of {num_weights:,} weights prunes none", hint="ask for more")
    num_zeros = num_weights - sum(int(weight.count_nonzero()) for weight in weights.values())
    if num_pruned < num_zeros:
        raise BadInputError(
            f"sparsity {sparsity:g} was asked for, but {num_zeros / num_weights:.4f} of the weights are zero",
            hint="leave --pattern and --sparsity out to recover the network as it is, or ask for more",
        )
    return num_pruned


def _kth_smallest_magnitude(weights: Mapping[str, Tensor], k: int) -> float:
    """One float32 copy of the weights is partitioned in place, which large networks can afford."""
    import numpy as np

    magnitudes = np.concatenate([weight.cpu().numpy().ravel() for weight in weights.values()])
    np.abs(magnitudes, out=magnitudes)
    magnitudes.partition(k - 1)
    return float(magnitudes[k - 1])
