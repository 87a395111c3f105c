"""Observing every convolution and linear layer that a forward pass computes, whatever module calls it, and how.

The functional call is observed with its actual arguments, so inputs that the network pads itself, weights that it
computes, and layers without a module are all seen. TorchScript hides its calls.
"""

# Shapes: N images, C channels. Weights are (O, I / groups, *kernel), transposed ones (I, O / groups, *kernel).
# ruff: noqa: TID253 - a mode of torch's; imported by what runs networks, never by the CLI's help

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class LinearCall:
    """One convolution or linear layer in a forward pass."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    num_axes: int
    """Number of spatial dimensions; 0 for a linear layer."""
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    """Zeros before and after, for each spatial axis."""
    dilation: tuple[int, ...]
    groups: int
    is_transposed: bool
    output_padding: tuple[int, ...]

    @property
    def channel_dim(self) -> int:
        """Axis of the channels in inputs and outputs, counted from the end."""
        return -1 - self.num_axes

    @property
    def num_outputs(self) -> int:
        """Number of output channels."""
        return self.weight.shape[1] * self.groups if self.is_transposed else self.weight.shape[0]


_AXES: dict[Any, int] = {
    F.linear: 0,
    torch.conv1d: 1,
    torch.conv2d: 2,
    torch.conv3d: 3,
    torch.conv_transpose1d: 1,
    torch.conv_transpose2d: 2,
    torch.conv_transpose3d: 3,
}
_LINEAR = ("input", "weight", "bias")
_CONVOLUTION = (*_LINEAR, "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_LINEAR, "stride", "padding", "output_padding", "groups", "dilation")
_IS_TRANSPOSED = {torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d}


def is_linear(function: Any) -> bool:
    """Whether a function is one whose arguments `call_of` reads."""
    return function in _AXES


def is_transposed(function: Any) -> bool:
    """Whether a linear function's weight is (I, O / groups, *kernel)."""
    return function in _IS_TRANSPOSED


def arguments_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a linear function by name, given by position or by keyword."""
    names = _TRANSPOSED if function in _IS_TRANSPOSED else _CONVOLUTION if _AXES[function] else _LINEAR
    return {**dict(zip(names, args, strict=False)), **kwargs}


def call_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LinearCall:
    """Read the arguments of a linear function."""
    given, axes = arguments_of(function, args, kwargs), _AXES[function]
    weight = given["weight"]
    dilation = _by_axis(given.get("dilation", 1), axes)
    return LinearCall(
        inputs=given["input"],
        weight=weight,
        bias=given.get("bias"),
        num_axes=axes,
        stride=_by_axis(given.get("stride", 1), axes),
        padding=_padding(given.get("padding", 0), weight.shape[2:], dilation),
        dilation=dilation,
        groups=given.get("groups", 1),
        is_transposed=is_transposed(function),
        output_padding=_by_axis(given.get("output_padding", 0), axes),
    )


def _by_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _padding(value: Any, kernel: torch.Size, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if value == "valid":
        value = 0
    if value == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((before, before) for before in _by_axis(value, len(kernel)))


class ForwardMode(TorchFunctionMode):
    """While active, passes every function that a forward pass calls through `call`, and then `linear` or `other`.

    PyTorch does not use its fused attention, which would hide the projections, under such a mode.
    """

    def call(self, call: LinearCall, compute: Callable[[], Tensor]) -> Tensor:
        """Compute a convolution or linear layer; the returned tensor is its output."""
        return self.linear(call, compute())

    def linear(self, call: LinearCall, output: Tensor) -> Tensor:
        """Observe a convolution or linear layer; the returned tensor replaces its output."""
        return output

    def other(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        """Observe any other function; the returned value replaces its result."""
        return result

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return _ATTENTION(*args, **kwargs)
        if func in _AXES:
            return self.call(call_of(func, args, kwargs), lambda: func(*args, **kwargs))
        return self.other(func, args, kwargs, func(*args, **kwargs))


def _body_of(function: Any) -> Callable[..., Any]:
    """The function without its own check for overrides, which would pass the whole call to the active mode."""
    names = {**function.__globals__, "has_torch_function": lambda _tensors: False}
    body = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body


_ATTENTION = _body_of(F.multi_head_attention_forward)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Tensors among a function's arguments or results, in lists and dictionaries too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))
