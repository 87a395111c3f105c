"""A linear call as a matrix product: rows of weights times the part of the input that each output position sees."""

# Shapes: N images, C channels, P positions, K taps of a kernel, G groups, M samples, O outputs and I inputs of a group.
# ruff: noqa: TID253, N815 - works on tensors throughout, shapes are suffixes of fields too; only the recovery stage imports it

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.models.network.linear_calls import LinearCall

POSITIONS_PER_IMAGE = 16
"""Neighbouring patches of an image carry nearly the same information, so a few random ones are enough."""
_IMAGES_AT_ONCE = 32
"""Images whose inputs are copied and padded at once, so that there is never a copy of all of them."""


@dataclass(frozen=True)
class Places:
    """A sample of a linear call's output positions, the same in every image."""

    num_images: int
    """1 where the call is on a single image without a batch axis."""
    sizes: tuple[int, ...]
    """Size of the output along each spatial axis; for a linear layer, the number of rows per image."""
    chosen_P: Tensor
    """Indices (P,) into the positions in memory order."""

    @classmethod
    def of(cls, call: LinearCall, outputs: Tensor, num_images: int, random: torch.Generator) -> Places:
        """Choose a few at random for a call, given its outputs (of all channels or some)."""
        if call.num_axes:
            sizes, num_images = (
                tuple(outputs.shape[2 - _lacks_images(call) :]),
                1 if _lacks_images(call) else len(outputs),
            )
        else:
            rows_NRO = _by_image(outputs, num_images)
            num_images, sizes = len(rows_NRO), (rows_NRO.shape[1],)
        chosen_P = torch.randperm(math.prod(sizes), generator=random)[:POSITIONS_PER_IMAGE]
        return cls(num_images, sizes, chosen_P.to(outputs.device))

    def inputs_of(self, call: LinearCall) -> Tensor:
        """The inputs (G, N, P, I) that the weight's rows are multiplied by at these positions."""
        if not call.num_axes:
            return _by_image(call.inputs, self.num_images)[:, self.chosen_P].unsqueeze(0)
        inputs = call.inputs.unsqueeze(0) if _lacks_images(call) else call.inputs
        positions_P = torch.unravel_index(self.chosen_P, self.sizes)
        parts = [
            _by_group(_patches(call, part, positions_P), call.groups) for part in torch.split(inputs, _IMAGES_AT_ONCE)
        ]
        return torch.cat(parts, dim=1)

    def outputs_of(self, call: LinearCall, outputs: Tensor) -> Tensor:
        """The values (G, N, P, O) at these positions of `outputs`, which are laid out like the call's own."""
        if not call.num_axes:
            return _by_image(outputs, self.num_images)[:, self.chosen_P].unsqueeze(0)
        outputs = outputs.unsqueeze(0) if _lacks_images(call) else outputs
        return _by_group(outputs.flatten(2)[:, :, self.chosen_P].unsqueeze(-1), call.groups)


def _lacks_images(call: LinearCall) -> bool:
    return call.inputs.dim() == call.num_axes + 1


def _by_image(rows: Tensor, num_images: int) -> Tensor:
    """Inputs or outputs of a linear layer as (N, R, C), whichever axis its images lie along; (1, R, C) if none."""
    axis = next((axis for axis, size in enumerate(rows.shape[:-1]) if size % num_images == 0), None)
    if axis is None:
        return rows.reshape(1, -1, rows.shape[-1])
    # Windows of an image lie behind one another, so an axis may be several times as long as there are images.
    return rows.movedim(axis, 0).reshape(num_images, -1, rows.shape[-1])


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
    """(G, N, P, C / G · K), with the last axis in the order of the weight's."""
    n, channels, positions, taps = x_NCPK.shape
    split = x_NCPK.reshape(n, groups, channels // groups, positions, taps)
    return split.permute(1, 0, 3, 2, 4).reshape(groups, n, positions, -1)


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
    places = Places.of(call, output, 1, torch.Generator().manual_seed(0))
    x_GMI, y_GMO = (of.flatten(1, 2) for of in (places.inputs_of(call), places.outputs_of(call, output)))
    product = x_GMI @ rows_of(call.weight, call).transpose(1, 2)
    if call.bias is not None:
        product = product + call.bias.reshape(call.groups, 1, -1)
    return bool((product - y_GMO).norm() <= _ROUNDING * y_GMO.norm())


_ROUNDING = 0.01
"""Tolerance relative to the output's norm: TensorFloat-32, which GPUs convolve in, has ten bits."""
