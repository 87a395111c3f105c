"""Where a network's zeros are, per layer and in total, over the weights that multiply.

These are the matrices and kernels of Conv, Linear, attention and recurrent layers, and of custom layers: every
parameter with two sides longer than 1. Biases, normalisation gains, tokens and embeddings (by class, or by the
parameter's name: "pos_embed", "rel_pos_h", "relative_position_bias_table") do not count.

Shapes of weights: (out, in / groups, *kernel) for Conv, (in, out / groups, *kernel) for ConvTranspose,
(out, in) for Linear and for the projections that nn.MultiheadAttention holds as bare parameters. Weights of custom
layers are read as (out, in, *kernel).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgerecover.artifacts import LayerSparsity, Pattern, Sparsity

if TYPE_CHECKING:
    from torch import Tensor, nn

DENSE_MAX_SPARSITY = 0.01
"""Up to this fraction of zeros, weights count as dense: training leaves a few by chance or underflow."""
_MIN_EXACT = 0.8
_MAX_DAMAGED = 0.1
"""Fractions of the groups of four, to tell 2:4 with damage from zeros in other places."""
_NO_WEIGHT = re.compile(
    r"(?:^|_)(?:pos|position|positional|rel|relative|embed|embedding|embeddings|token|tokens|bias|biases|scale|gamma)"
    r"(?:_|\d|$)"
)
"""Parts of the names of parameters that are not weights."""
_PARAMETRIZED = re.compile(r"(?:^|\.)parametrizations\.(?P<weight>\w+)\.original\d*$")
"""How torch.nn.utils.parametrize names the parameters that a weight is computed from."""


def prunable_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights that multiply, by state_dict key, in module order; shared weights come once."""
    return {name: weight for name, weight, _ in prunable_layers(module)}


def measure(weights: nn.Module | Mapping[str, Tensor], *, narrower: bool = False) -> Sparsity:
    """Count zeros and determine their pattern, per layer and overall.

    A layer is 2:4 if every four consecutive weights along its input channels hold at least two zeros, for each output
    channel and kernel position, as TensorRT demands; its input channels must be a multiple of four. The network is
    dense if it holds next to no zeros, 2:4 if all layers are that can be, channel if its layers are narrower than the
    dense network's, and unstructured otherwise.

    Args:
        weights: a network; or, if its architecture is not known, all its tensors by name.
        narrower: whether it is a network whose layers lost channels.
    """
    if isinstance(weights, Mapping):
        layers = [
            (name, weight, 1)
            for name, weight in weights.items()
            if _is_weight(name.rpartition(".")[2], weight, any_shape=name.endswith("weight"))
        ]
        gains = [t for name, t in weights.items() if name.endswith(".weight") and f"{name[:-6]}running_mean" in weights]
    else:
        layers = list(prunable_layers(weights))
        gains = [gain for module in weights.modules() if (gain := _gain(module)) is not None]
    return measure_layers(layers, gains, narrower=narrower)


def measure_layers(
    layers: Sequence[tuple[str, Tensor, int]], gains: Sequence[Tensor] = (), *, narrower: bool = False
) -> Sparsity:
    """Count zeros and determine their pattern, given each layer's name, weight and input axis, and batch norms' γ."""
    eligible = [weight.shape[dim] % 4 == 0 for _, weight, dim in layers]
    measured = tuple(_measure_layer(*layer) for layer in layers)
    pattern = Pattern.CHANNEL if narrower else _overall(measured, eligible)
    num_groups, num_dense = _nearly_two_four(layers) if pattern is Pattern.UNSTRUCTURED else (0, 0)
    return Sparsity(
        measured,
        pattern,
        num_norm_channels=sum(gain.numel() for gain in gains),
        num_zero_norm_channels=sum(gain.numel() - int(gain.count_nonzero()) for gain in gains),
        num_groups=num_groups,
        num_dense_groups=num_dense,
    )


def prunable_layers(module: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
    """Key, weight and input axis of each weight that multiplies; shared weights come once.

    For a weight that is computed from another parameter (weight_norm, spectral_norm), this is that parameter.
    """
    from torch import nn

    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *transposed)
    others = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
    for key, parameter in module.named_parameters():
        owner_name, _, name = key.rpartition(".")
        if parametrized := _PARAMETRIZED.search(key):
            owner_name, name = key[: parametrized.start()], parametrized["weight"]
        owner = module.get_submodule(owner_name)
        # A layer's own weight may be a single row; the norms that weight_norm keeps are single columns.
        is_layers_own = isinstance(owner, layers) and key.endswith("weight") and not parametrized
        if not isinstance(owner, others) and _is_weight(name, parameter, any_shape=is_layers_own):
            yield key, parameter.detach(), 0 if isinstance(owner, transposed) else 1


def _is_weight(name: str, tensor: Tensor, *, any_shape: bool) -> bool:
    """Whether a parameter is a weight, by its name and, unless `any_shape`, its sides."""
    if not tensor.is_floating_point() or tensor.dim() < 2 or _NO_WEIGHT.search(name):
        return False
    return any_shape or sum(side > 1 for side in tensor.shape) >= 2


def _gain(module: nn.Module) -> Tensor | None:
    """γ of a batch norm of any class; None if it has none, or is not a batch norm."""
    from torch import Tensor

    mean, gain = getattr(module, "running_mean", None), getattr(module, "weight", None)
    fits = isinstance(mean, Tensor) and isinstance(gain, Tensor) and gain.shape == mean.shape
    return gain if fits else None


def _measure_layer(name: str, weight: Tensor, input_dim: int) -> LayerSparsity:
    num_zeros = weight.numel() - int(weight.count_nonzero())
    if _is_dense(num_zeros, weight.numel()):
        pattern = Pattern.DENSE
    elif 2 * num_zeros >= weight.numel() and _is_two_four(weight, input_dim):
        pattern = Pattern.TWO_FOUR
    else:
        pattern = Pattern.UNSTRUCTURED
    return LayerSparsity(name, tuple(weight.shape), weight.numel(), num_zeros, pattern)


def _is_dense(num_zeros: int, num_weights: int) -> bool:
    return num_zeros <= DENSE_MAX_SPARSITY * num_weights


def _is_two_four(weight: Tensor, input_dim: int) -> bool:
    """Whether every four weights along the input axis hold two zeros or more."""
    zeros_per_group = _zeros_per_group(weight, input_dim)
    return zeros_per_group is not None and bool((zeros_per_group >= 2).all())


def _zeros_per_group(weight: Tensor, input_dim: int) -> Tensor | None:
    """Zeros in every four weights along the input axis; None if its length is not a multiple of four."""
    if weight.shape[input_dim] % 4 != 0:
        return None
    return (weight == 0).movedim(input_dim, -1).reshape(-1, 4).sum(dim=1)


def _nearly_two_four(layers: Sequence[tuple[str, Tensor, int]]) -> tuple[int, int]:
    """Number of groups of four, and of those with fewer than two zeros, if most were made 2:4 and few damaged; else 0.

    At 50 % zeros in random places, three in eight groups have exactly two zeros, and five in sixteen have fewer.
    """
    found = [_zeros_per_group(weight, dim) for _, weight, dim in layers]
    counts = [zeros for zeros in found if zeros is not None and bool(zeros.any())]
    num_groups = sum(len(zeros) for zeros in counts)
    num_exact = sum(int((zeros == 2).sum()) for zeros in counts)
    num_dense = sum(int((zeros < 2).sum()) for zeros in counts)
    is_near = num_exact >= _MIN_EXACT * num_groups and num_dense <= _MAX_DAMAGED * num_groups
    return (num_groups, num_dense) if is_near else (0, 0)


def _overall(layers: tuple[LayerSparsity, ...], eligible: list[bool]) -> Pattern:
    if _is_dense(sum(layer.num_zeros for layer in layers), sum(layer.num_weights for layer in layers)):
        return Pattern.DENSE
    candidates = [layer for layer, can_be in zip(layers, eligible, strict=True) if can_be]
    if candidates and all(layer.pattern is Pattern.TWO_FOUR for layer in candidates):
        return Pattern.TWO_FOUR
    return Pattern.UNSTRUCTURED
