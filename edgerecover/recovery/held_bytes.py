"""How much memory the activations of a forward pass need at its peak."""

# ruff: noqa: TID253 - works on tensors throughout; only the recovery stage imports it

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgerecover.models.network.linear_calls import ForwardMode, LinearCall, tensors_in


@torch.no_grad()
def held_bytes(network: nn.Module, images_NCHW: Tensor) -> int:
    """Peak bytes of tensors, without parameters and buffers, that are alive at once in a forward pass."""
    seen = _Tensors(network)
    with seen:
        network(images_NCHW)
    return seen.most


class _Tensors(ForwardMode):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.most = 0
        own = (tensor for tensor in (*network.parameters(), *network.buffers()) if not is_lazy(tensor))
        self._own = {_place(tensor) for tensor in own if tensor.layout == torch.strided}
        self._alive: dict[int, weakref.ref[Tensor]] = {}

    def linear(self, call: LinearCall, output: Tensor) -> Tensor:
        self._add([call.inputs, output])
        return output

    def other(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        self._add([*tensors_in((args, kwargs)), *tensors_in(result)])
        return result

    def _add(self, tensors: list[Tensor]) -> None:
        self._alive |= {id(tensor): weakref.ref(tensor) for tensor in tensors if tensor.layout == torch.strided}
        alive = {key: tensor for key, held in self._alive.items() if (tensor := held()) is not None}
        self._alive = {key: self._alive[key] for key in alive}
        sizes = {_place(tensor): tensor.untyped_storage().nbytes() for tensor in alive.values()}
        self.most = max(self.most, sum(size for place, size in sizes.items() if place not in self._own))


def _place(tensor: Tensor) -> int:
    """The address of a tensor's memory, which its views share."""
    return tensor.untyped_storage().data_ptr()
