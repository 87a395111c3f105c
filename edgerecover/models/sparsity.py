"""Where a network's zeros stand: per layer and in total, over Conv, Linear and attention weights.

Shapes of weights: (out, in / groups, *kernel) for Conv, (in, out / groups, *kernel) for ConvTranspose,
(out, in) for Linear and for the projections that nn.MultiheadAttention holds as bare parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgerecover.artifacts import LayerSparsity, Pattern, Sparsity

if TYPE_CHECKING:
    from torch import Tensor, nn

DENSE_MAX_SPARSITY = 0.01
"""Up to this fraction of zeros counts as dense: trained weights hold a few by chance or by underflow."""


def prunable_weights(module: nn.Module) -> dict[str, Tensor]:
    """Conv, ConvTranspose, Linear and attention weights by state_dict key, in module order; a shared one comes once."""
    return {name: weight for name, weight, _ in prunable_layers(module)}


def measure(weights: nn.Module | Mapping[str, Tensor], *, narrower: bool = False) -> Sparsity:
    """Count zeros and tell their pattern, per layer and overall.

    A layer is 2:4 when every four consecutive weights along its input channels hold at least two zeros, for
    each output channel and kernel position, as TensorRT demands; a layer whose input channels are no multiple
    of four cannot be. Overall: dense when the network as a whole holds next to no zeros, 2:4 when all layers
    that can be are, else unstructured; channel where the layers are narrower than the dense network's.

    Args:
        weights: a network; or, when its architecture is not known, weights by name, read as Conv and Linear.
        narrower: it is a network whose layers lost channels.
    """
    if isinstance(weights, Mapping):
        layers = [(name, weight, 1) for name, weight in weights.items()]
    else:
        layers = list(prunable_layers(weights))
    return measure_layers(layers, narrower=narrower)


def measure_layers(layers: Sequence[tuple[str, Tensor, int]], *, narrower: bool = False) -> Sparsity:
    """The same for name, weight and input dimension of each layer."""
    eligible = [weight.shape[dim] % 4 == 0 for _, weight, dim in layers]
    measured = tuple(_measure_layer(*layer) for layer in layers)
    return Sparsity(measured, Pattern.CHANNEL if narrower else _overall(measured, eligible))


def prunable_layers(module: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
    """Weight key, weight and its input dimension of each prunable weight; a shared one comes once."""
    from torch import nn

    seen: set[int] = set()
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for name, layer in module.named_modules():
        for key in _weight_keys(layer):
            weight = getattr(layer, key)
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                yield f"{name}.{key}".removeprefix("."), weight.detach(), 0 if isinstance(layer, transposed) else 1


def _weight_keys(layer: nn.Module) -> tuple[str, ...]:
    """Attributes that hold a layer's own weight matrices; some of attention's may be None."""
    from torch import nn

    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *transposed)):
        return ("weight",)
    if isinstance(layer, nn.MultiheadAttention):
        # Query, key and value as one matrix or three: linear layers in all but name. out_proj is a module of its own.
        return ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return ()


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
    """At least half of the weights are known to be zero."""
    if weight.shape[input_dim] % 4 != 0:
        return False
    zeros_per_group = (weight == 0).movedim(input_dim, -1).reshape(-1, 4).sum(dim=1)
    return bool((zeros_per_group >= 2).all())


def _overall(layers: tuple[LayerSparsity, ...], eligible: list[bool]) -> Pattern:
    if _is_dense(sum(layer.num_zeros for layer in layers), sum(layer.num_weights for layer in layers)):
        return Pattern.DENSE
    candidates = [layer for layer, can_be in zip(layers, eligible, strict=True) if can_be]
    if candidates and all(layer.pattern is Pattern.TWO_FOUR for layer in candidates):
        return Pattern.TWO_FOUR
    return Pattern.UNSTRUCTURED
