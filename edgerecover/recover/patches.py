"""A linear call as a matrix product: rows of weights times what each output position sees of the input."""

# Shapes: N images, C channels, P positions, K taps of a kernel, G groups, M samples, O outputs and I inputs of a group.
# ruff: noqa: TID253 - works on tensors throughout; only the recovery stage imports it

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.models.linear_calls import LinearCall

_POSITIONS_PER_IMAGE = 16
"""Neighbouring patches of an image say nearly the same, so a few at random are enough."""


def samples(call: LinearCall, outputs: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (G, M, I) of the weight's rows and the outputs (G, M, O) wanted of them; few positions of images.

    Args:
        call: with the inputs.
        outputs: as they are or as they should be, in the layout that the call's own have.
        random: chooses the positions.
    """
    inputs = call.inputs
    if not call.num_axes:
        return inputs.reshape(1, -1, inputs.shape[-1]), outputs.reshape(1, -1, outputs.shape[-1])
    if inputs.dim() == call.num_axes + 1:
        inputs, outputs = inputs.unsqueeze(0), outputs.unsqueeze(0)
    sizes = outputs.shape[2:]
    chosen_P = torch.randperm(math.prod(sizes), generator=random)[:_POSITIONS_PER_IMAGE].to(outputs.device)
    outputs_NOP = outputs.flatten(2)[:, :, chosen_P]
    patches_NCPK = _patches(call, inputs, torch.unravel_index(chosen_P, sizes))
    return _by_group(patches_NCPK, call.groups), _by_group(outputs_NOP.unsqueeze(-1), call.groups)


def _patches(call: LinearCall, inputs: Tensor, positions_P: tuple[Tensor, ...]) -> Tensor:
    """What the kernel sees at the given output positions: (N, C, P, K)."""
    kernel, padding, stride = call.weight.shape[2:], call.padding, call.stride
    taps = [torch.arange(k, device=inputs.device) * d for k, d in zip(kernel, call.dilation, strict=True)]
    if call.is_transposed:
        # It reads, at stride 1 and with its kernel mirrored, an input with zeros between its values and around them.
        inputs = _spread(inputs, stride)
        padding = tuple(
            (int(tap[-1]) - before, int(tap[-1]) - after + more)
            for tap, (before, after), more in zip(taps, padding, call.output_padding, strict=True)
        )
        taps, stride = [tap.flip(0) for tap in taps], (1,) * call.num_axes
    padded = F.pad(inputs, [size for both in reversed(padding) for size in both])
    places_PK = torch.zeros(len(positions_P[0]), *[1] * call.num_axes, dtype=torch.int64, device=inputs.device)
    for axis, (position_P, tap_K, step) in enumerate(zip(positions_P, taps, stride, strict=True)):
        shape = [1] * call.num_axes
        shape[axis] = -1
        along = position_P.reshape(-1, *[1] * call.num_axes) * step + tap_K.reshape(1, *shape)
        places_PK = places_PK * padded.shape[2 + axis] + along
    return padded.flatten(2)[:, :, places_PK.flatten(1)]


def _spread(inputs: Tensor, stride: tuple[int, ...]) -> Tensor:
    """With `stride` - 1 zeros after each value but the last, along each axis of space."""
    sizes = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], stride, strict=True)]
    spread = inputs.new_zeros(*inputs.shape[:2], *sizes)
    every = [slice(None), slice(None), *(slice(None, None, step) for step in stride)]
    spread[tuple(every)] = inputs
    return spread


def _by_group(x_NCPK: Tensor, groups: int) -> Tensor:
    """(G, N · P, C / G · K), with the last axis in the order of the weight's."""
    n, channels, positions, taps = x_NCPK.shape
    split = x_NCPK.reshape(n, groups, channels // groups, positions, taps)
    return split.permute(1, 0, 3, 2, 4).reshape(groups, n * positions, -1)


def rows_of(weight: Tensor, call: LinearCall) -> Tensor:
    """The weight, or a mask of its shape, as rows (G, O, I) that multiply samples."""
    split = weight.reshape(call.groups, -1, *weight.shape[1:])
    return (split.transpose(1, 2) if call.is_transposed else split).flatten(2)


def weight_of(rows_GOI: Tensor, call: LinearCall) -> Tensor:
    """Rows in the shape of the weight."""
    shape = call.weight.shape
    if call.is_transposed:
        split = rows_GOI.reshape(call.groups, shape[1], -1, *shape[2:])
        return split.transpose(1, 2).reshape(shape)
    return rows_GOI.reshape(shape)


def is_reproduced(call: LinearCall, output: Tensor) -> bool:
    """Whether rows times samples, and the bias, are the output that was seen, within rounding."""
    x_GMI, y_GMO = samples(call, output, torch.Generator().manual_seed(0))
    product = x_GMI @ rows_of(call.weight, call).transpose(1, 2)
    if call.bias is not None:
        product = product + call.bias.reshape(call.groups, 1, -1)
    return bool((product - y_GMO).norm() <= _ROUNDING * y_GMO.norm())


_ROUNDING = 0.01
"""Of the output's norm: TensorFloat-32, which GPUs convolve in, has ten bits."""
