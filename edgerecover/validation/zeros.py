"""Are the zeros of a PyTorch network zeros in an ONNX file that was made from it?

The file is what runs, so its own tensors are counted: those that reach its Conv, Gemm and MatMul nodes. What a network
computes from its parameters (weight standardisation, say) may not be zero there although the parameter is.
"""

# ruff: noqa: TID253 - compares tensors; only what judges files imports it

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgerecover.artifacts import KeptZeros
from edgerecover.models.network.sparsity import prunable_weights
from edgerecover.models.network.uses import uses_of
from edgerecover.models.network.zeros import num_not_zero
from edgerecover.models.onnx.tensors import Tensors
from edgerecover.models.onnx.weights import OnnxWeight, weights_of
from edgerecover.models.pair.masks import gains_of

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from torch import Tensor, nn

_RECURRENT = ("weight_ih_l", "weight_hh_l")
"""As torch.nn.LSTM, GRU and RNN call their weights."""


def kept_zeros(
    network: nn.Module,
    masks: Mapping[str, Tensor],
    shape_CHW: tuple[int, int, int],
    path: Path,
    *,
    is_from_elsewhere: bool = False,
) -> KeptZeros:
    """Look for every pruned weight in a file.

    Biases and tables of positions are looked at in the network alone; so is what no forward of it uses.

    Args:
        network: that the file was made from, or, of a file from elsewhere, that it is said to have been made from; on
            the CPU, in eval mode.
        masks: of the network, bool by parameter name, True where kept.
        shape_CHW: of its input.
        path: of the file, read and found sound before; weights that lie outside are beside it.
        is_from_elsewhere: others wrote the file, and may have trained it; an export of ours rewrites no zero.
    """
    import onnx

    if not masks:
        return KeptZeros(0, {}, (), ())
    model = onnx.load(path, load_external_data=False)
    uses = uses_of(network, masks, shape_CHW)
    weights, gains = prunable_weights(network), gains_of(network)
    used = {name: mask.cpu() for name, mask in masks.items() if uses[name].is_used}
    stored = list(weights_of(model, path.parent))
    found = find_weights({name: mask for name, mask in used.items() if name in weights}, stored)
    if not is_from_elsewhere:
        # What the network multiplies by is zero, so a tensor that fits by its size alone and is not is another one.
        names = {weight.name for weight in stored}
        found |= {
            name: None for name, count in found.items() if count and name not in names and not uses[name].num_lost
        }
    found |= find_gains({name: mask for name, mask in used.items() if name in gains}, stored, model, path.parent)
    parameters = dict(network.named_parameters())
    return KeptZeros(
        num_regrown=sum(int((parameters[name].detach()[~mask] != 0).sum()) for name, mask in masks.items()),
        in_file={name: count for name, count in found.items() if count},
        missing=tuple(name for name, count in found.items() if count is None),
        computed=tuple(name for name, count in found.items() if count and uses[name].num_lost),
    )


def find_weights(masks: Mapping[str, Tensor], weights: Iterable[OnnxWeight]) -> dict[str, int | None]:
    """Of each mask, how many pruned weights are not zero in the file; None where its weight is not there.

    Exporters keep names or, where they fold batch norm into a layer or transpose a matrix, make new ones. A weight is
    found by its name and size; else by its size alone, among equal ones by whose zeros fit best, each tensor once.
    Folding and scaling keep zeros.

    Args:
        masks: bool, by parameter name, True where the weight is kept.
        weights: of the file.
    """
    left = {weight.name: weight.is_zero for weight in weights}
    found: dict[str, int | None] = {}
    unnamed = {}
    for name, mask in masks.items():
        gone = ~mask.numpy()
        if name.rpartition(".")[2].startswith(_RECURRENT):
            found[name] = _in_blocks(gone, left.values())
        elif name in left and (count := num_not_zero(gone, left[name])) is not None:
            found[name] = count
            del left[name]
        else:
            unnamed[name] = gone
    # The most zeros first: only few tensors have them all, and those with few fit many.
    for name, gone in sorted(unnamed.items(), key=lambda item: -int(np.count_nonzero(item[1]))):
        found[name] = _claim(gone, left)
    return {name: found[name] for name in masks}


def find_gains(
    masks: Mapping[str, Tensor], weights: Iterable[OnnxWeight], model: onnx.ModelProto, folder: Path
) -> dict[str, int | None]:
    """Count pruned gains of normalisation that are not zero in the file, stored or folded into a layer's outputs.

    Args:
        masks: bool, by the gain's name, (C).
        weights: of the file.
        model: the file, parsed.
        folder: where it lies.
    """
    if not masks:
        return {}
    left = {name: vector == 0 for name, vector in Tensors(model, folder).vectors()}
    for weight in weights:
        for axis in range(weight.is_zero.ndim):
            if axis != weight.input_axis:
                others = tuple(other for other in range(weight.is_zero.ndim) if other != axis)
                left[f"outputs of {weight.name} along {axis}"] = weight.is_zero.all(others)
    found: dict[str, int | None] = {}
    named = {name for name, mask in masks.items() if name in left and left[name].shape == mask.shape}
    for name in sorted(masks, key=lambda name: (name not in named, int(masks[name].sum()))):
        gone = ~masks[name].numpy()
        alike = {name: left[name]} if name in named else {n: v for n, v in left.items() if v.shape == gone.shape}
        fits = {n: (int(np.count_nonzero(gone & ~v)), int(np.count_nonzero(v))) for n, v in alike.items()}
        best = min(fits, key=lambda n: fits[n], default=None)
        found[name] = None if best is None else fits[best][0]
        left.pop(best or "", None)
    return {name: found[name] for name in masks}


def _in_blocks(gone: NDArray[Any], arrays: Iterable[NDArray[Any]]) -> int | None:
    """Of a recurrent layer's weight: ONNX has its gates in another order, and both directions in one tensor."""
    stacked = (array for array in arrays if array.ndim in (2, 3) and array.shape[-2:] == gone.shape)
    matrices = [matrix for array in stacked for matrix in array.reshape(-1, *gone.shape)]
    counts = []
    for num_gates in (4, 3, 1):
        if len(gone) % num_gates == 0:
            blocks = gone.reshape(num_gates, -1, gone.shape[1])
            ways = [blocks[list(order)].reshape(gone.shape) for order in permutations(range(num_gates))]
            counts += [int(np.count_nonzero(way & ~matrix)) for way in ways for matrix in matrices]
    return min(counts, default=None)


def _claim(gone: NDArray[Any], left: dict[str, NDArray[Any]]) -> int | None:
    """Take out of `left` the tensor whose zeros fit best; of equal ones, the one with the fewest other zeros."""
    fits = {
        name: (count, int(np.count_nonzero(zero)))
        for name, zero in left.items()
        if (count := num_not_zero(gone, zero)) is not None
    }
    if not fits:
        return None
    best = min(fits, key=lambda name: fits[name])
    del left[best]
    return fits[best][0]
