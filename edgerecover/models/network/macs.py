"""Multiply-accumulates (MACs) of a network, which channel pruning reduces."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """MACs of all convolutions and linear layers for one image of shape (C, H, W); zeros count like any weight."""
    return sum(macs_by_weight(network, input_shape).values())


def macs_by_weight(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """MACs by the weight's name, over all its calls; a weight computed in the forward pass has the name ""."""
    import torch

    from edgerecover.models.network.linear_calls import ForwardMode, LinearCall

    names = {id(weight): name for name, weight in network.named_parameters()}
    macs: dict[str, int] = {}

    class Macs(ForwardMode):
        def linear(self, call: LinearCall, output: Tensor) -> Tensor:
            # Each weight is used once per output position; in a transposed layer, once per input position.
            positions = call.inputs if call.is_transposed else output
            name = names.get(id(call.weight), "")
            macs[name] = macs.get(name, 0) + positions.numel() * call.weight[0].numel()
            return output

    with torch.no_grad(), Macs():
        network(torch.zeros(1, *input_shape))
    return macs
