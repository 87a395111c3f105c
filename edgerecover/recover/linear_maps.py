"""The linear maps of a network and what enters and leaves them: convolutions, linear layers, attention's projections.

Attention modules run their projections as functions, so no module's input and output shows them. They are seen at the
attention module itself: what enters the first projection is the module's input, and with an identity in the place of
the last one the module's output is what enters that.
"""

# ruff: noqa: TID253 - works on modules throughout; only the recovery stage imports it

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class LinearMap:
    """One weight matrix or kernel, with its bias, that a forward pass applies once."""

    module: str
    """Name of the Conv2d, Linear or attention module."""
    role: Literal["layer", "first projection", "last projection"]
    weight: str
    """Name of the parameter in the network."""
    bias: str | None


def linear_maps_of(network: nn.Module, image_1CHW: Tensor) -> list[LinearMap]:
    """Those that one forward reaches exactly once, in its order.

    Attention is that of `torch.nn.MultiheadAttention`, where query, key and value are the same tensor, and of
    torchvision's Swin. (Swin V2 leaves the bias of its keys out, so its projection is not what its parameters say.)
    """
    calls: Counter[str] = Counter()
    crossed: set[str] = set()
    modules = {name: module for name, module in network.named_modules() if _kind(module)}

    def count(name: str, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        calls[name] += 1
        if isinstance(modules[name], nn.MultiheadAttention) and not _is_self_attention(inputs, named):
            crossed.add(name)

    handles = [
        module.register_forward_pre_hook(
            lambda _module, inputs, named, name=name: count(name, inputs, named),
            with_kwargs=True,
        )
        for name, module in modules.items()
    ]
    try:
        with torch.no_grad():
            network(image_1CHW)
    finally:
        for handle in handles:
            handle.remove()
    once = [name for name, times in calls.items() if times == 1 and name not in crossed]
    return [linear_map for name in once for linear_map in _maps(name, modules[name])]


def _kind(module: nn.Module) -> Literal["layer", "multihead", "windowed"] | None:
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return "layer"
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        return "multihead"
    return "windowed" if type(module) is ShiftedWindowAttention else None


def _maps(name: str, module: Any) -> tuple[LinearMap, ...]:
    prefix = f"{name}." if name else ""

    def linear(role: Any, weight: str, bias: str) -> LinearMap:
        has_bias = any(key == bias for key, _ in module.named_parameters())
        return LinearMap(name, role, prefix + weight, prefix + bias if has_bias else None)

    kind = _kind(module)
    if kind == "layer":
        return (linear("layer", "weight", "bias"),)
    first = ("in_proj_weight", "in_proj_bias") if kind == "multihead" else ("qkv.weight", "qkv.bias")
    last = "out_proj" if kind == "multihead" else "proj"
    return (
        linear("first projection", *first),
        linear("last projection", f"{last}.weight", f"{last}.bias"),
    )


def _is_self_attention(inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> bool:
    given = [*inputs[:3], *(named[key] for key in ("query", "key", "value") if key in named)]
    return all(tensor is given[0] for tensor in given)


@torch.no_grad()
def run_until(network: nn.Module, linear_map: LinearMap, batch_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """What enters and what leaves a linear map; nothing behind its module is computed."""
    module = network.get_submodule(linear_map.module)
    weight = network.get_parameter(linear_map.weight)
    bias = network.get_parameter(linear_map.bias) if linear_map.bias else None
    is_last = linear_map.role == "last projection"
    with _as_identity(weight, bias) if is_last else nullcontext():
        inputs, outputs = _run_until(network, module, batch_NCHW)
    if linear_map.role == "layer":
        return inputs, outputs
    seen = outputs if is_last else inputs
    return seen, F.linear(seen, weight, bias)


@contextmanager
def _as_identity(weight: Tensor, bias: Tensor | None) -> Iterator[None]:
    """A square linear map that hands on what it gets, and is itself again afterwards."""
    kept = weight.clone(), None if bias is None else bias.clone()
    try:
        weight.copy_(torch.eye(*weight.shape))
        if bias is not None:
            bias.zero_()
        yield
    finally:
        weight.copy_(kept[0])
        if bias is not None and kept[1] is not None:
            bias.copy_(kept[1])


class _Reached(Exception):  # noqa: N818 - not an error: how a forward is ended early
    """Ends a forward at the module that was asked for."""

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs


def _run_until(network: nn.Module, module: nn.Module, batch_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    def stop(_module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], outputs: Any) -> None:
        first = inputs[0] if inputs else named["query"]
        raise _Reached(first, outputs[0] if isinstance(outputs, tuple) else outputs)

    handle = module.register_forward_hook(stop, with_kwargs=True)
    try:
        network(batch_NCHW)
    except _Reached as reached:
        return reached.inputs, reached.outputs
    finally:
        handle.remove()
    raise AssertionError("the module was reached by an earlier forward")
