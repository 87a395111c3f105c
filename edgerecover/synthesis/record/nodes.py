"""Which activations of a network a record describes: the outputs of its Conv and Linear layers, pooled to a few nodes.

A node is one channel in one cell of a coarse grid over the image, before the activation function. Pooling bounds what
a record holds, and what it can give away: nothing in it is finer than a cell.
"""

# Shapes: N images, C channels, U nodes.
# ruff: noqa: TID253 - works on modules throughout; only stages import it

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.synthesis.statistics import Place, Seen, watch_places


@dataclass(frozen=True)
class NodeLayer:
    """One layer's part of the nodes: channels × rows × columns of them."""

    name: str
    channels: int
    rows: int
    columns: int
    channels_last: bool
    """A Linear's channels are the last dimension of what it returns, a Conv2d's the first after the batch."""

    @property
    def num_nodes(self) -> int:
        """U."""
        return self.channels * self.rows * self.columns

    @property
    def place(self) -> Place:
        """The place where the layer's activation is read."""
        return Place(self.name)

    def read(self, activation: Tensor) -> Tensor:
        """Nodes (N, U) of this layer's output (N, C, H, W), (N, H, W, C), (N, T, C) or (N, C), in float32."""
        x = activation.float()
        if self.channels_last and x.dim() > 2:
            x = x.movedim(-1, 1)
        if x.dim() == 3:
            x = x.unsqueeze(2)
        return F.adaptive_avg_pool2d(x, (self.rows, self.columns)).flatten(1) if x.dim() == 4 else x


def node_layers(
    network: nn.Module, shape_CHW: tuple[int, int, int], *, max_cells: int, max_nodes: int
) -> tuple[NodeLayer, ...]:
    """The Conv2d and Linear layers that one forward reaches exactly once, in that order.

    Args:
        network: in eval mode, (1, C, H, W) in.
        shape_CHW: of its input.
        max_cells: most cells across and down; fewer where the nodes would be more than `max_nodes`.
        max_nodes: of all layers together, kept to if a single cell is enough for that.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    with torch.no_grad(), watch_places(network, [Place(name) for name in layers]) as seen:
        parameter = next(network.parameters())
        network(torch.zeros((1, *shape_CHW), device=parameter.device))
    whole = [_whole(place.layer, layers[place.layer], calls[0]) for place, calls in seen.items() if len(calls) == 1]
    for cells in range(max_cells, 0, -1):
        pooled = tuple(
            replace(layer, rows=min(layer.rows, cells), columns=min(layer.columns, cells)) for layer in whole
        )
        if sum(layer.num_nodes for layer in pooled) <= max_nodes:
            break
    return pooled


def _whole(name: str, layer: nn.Module, output: Tensor) -> NodeLayer:
    channels_last = isinstance(layer, nn.Linear)
    channels = output.shape[-1 if channels_last else 1]
    sides = output.shape[1:-1] if channels_last else output.shape[2:]
    # A sequence of tokens has no rows and columns that a record could rely on: it is averaged.
    rows, columns = sides if len(sides) == 2 else (1, 1)
    return NodeLayer(name, channels, rows, columns, channels_last)


def read_nodes(layers: Sequence[NodeLayer], seen: Seen) -> Tensor:
    """Nodes (N, U) of all layers, each called once, one behind the other."""
    return torch.cat([layer.read(seen[layer.place][0]) for layer in layers], 1)
