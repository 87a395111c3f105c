"""Multiply-accumulates of a network: what channel pruning is asked to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """MACs of the convolutions and linear layers for one image of shape (C, H, W); zeros count like any weight."""
    import torch

    from edgerecover.models.linear_calls import ForwardMode, LinearCall

    class Macs(ForwardMode):
        total: int = 0

        def linear(self, call: LinearCall, output: Tensor) -> Tensor:
            # Each weight row is used once per output position; a transposed one once per input position.
            positions = call.inputs if call.is_transposed else output
            self.total += positions.numel() * call.weight[0].numel()
            return output

    macs = Macs()
    with torch.no_grad(), macs:
        network(torch.zeros(1, *input_shape))
    return macs.total
