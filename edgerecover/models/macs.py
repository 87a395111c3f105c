"""Multiply-accumulates of a network: what channel pruning is asked to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """MACs of the Conv and Linear layers for one image of shape (C, H, W); zeros are multiplied like any weight."""
    import torch
    from torch import nn

    num_macs = 0

    def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal num_macs
        # Each weight row is used once per output position; a transposed one once per input position.
        positions = inputs[0] if isinstance(layer, transposed) else output
        num_macs += positions.numel() * layer.weight[0].numel()

    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *transposed)
    handles = [layer.register_forward_hook(add) for layer in network.modules() if isinstance(layer, kinds)]
    try:
        with torch.no_grad():
            network(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return num_macs
