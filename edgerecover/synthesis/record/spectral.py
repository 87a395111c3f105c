"""The graph Fourier basis of a network: activations as a signal on a graph whose edges are the weights.

Lopes, Fenu and Starner 2017 (arXiv 1710.07535), section 3: with the adjacency A = V J V⁻¹ the spectrum of a signal s is
ŝ = V⁻¹ s, and its largest coefficients hold nearly all of it. Written from the formulas.
"""

# Shapes: U nodes, O and I channels out of and into a layer, P and Q cells of a grid.
# ruff: noqa: TID253 - works on tensors throughout; only stages import it

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.synthesis.record.nodes import NodeLayer


def spectral_basis(network: nn.Module, layers: Sequence[NodeLayer]) -> Tensor:
    """Eigenvectors of the symmetric adjacency of the layers' nodes, one a column: (U, U), orthonormal, float32."""
    adjacency_UU = _adjacency(network, layers)
    basis_UU: Tensor = torch.linalg.eigh(adjacency_UU).eigenvectors.float()
    return basis_UU


@torch.no_grad()
def _adjacency(network: nn.Module, layers: Sequence[NodeLayer]) -> Tensor:
    """Edges from each layer to the next one in the order of the forward, by the size of the weights between them."""
    ends = torch.tensor([0, *(layer.num_nodes for layer in layers)]).cumsum(0).tolist()
    adjacency_UU = torch.zeros(ends[-1], ends[-1], dtype=torch.float64)
    for i, (before, after) in enumerate(itertools.pairwise(layers)):
        edges = _edges(network.get_submodule(after.name), before, after)
        if edges is None:
            continue  # the next layer in order is not fed by this one: a shortcut's, say
        rows, columns = slice(ends[i + 1], ends[i + 2]), slice(ends[i], ends[i + 1])
        adjacency_UU[rows, columns] = edges
        adjacency_UU[columns, rows] = edges.T
    return adjacency_UU


def _edges(layer: nn.Module, before: NodeLayer, after: NodeLayer) -> Tensor | None:
    """How strongly nodes of `after` depend on those of `before`: (U after, U before); None where they do not fit."""
    weight = layer.weight.detach().cpu().double().abs()  # type: ignore[operator]
    cells = before.rows * before.columns
    if isinstance(layer, nn.Conv2d):
        strength_OI = weight.sum((2, 3))
        if layer.groups > 1:
            strength_OI = torch.block_diag(*strength_OI.chunk(layer.groups))  # type: ignore[no-untyped-call]
    elif weight.shape[1] == before.channels:
        strength_OI = weight
    else:
        return _flattened_edges(weight, before)
    if strength_OI.shape[1] != before.channels:
        return None
    # A cell of one grid feeds the cells of the other that it overlaps.
    cells_P = torch.eye(cells, dtype=torch.float64).view(cells, 1, before.rows, before.columns)
    overlap_PQ = F.adaptive_avg_pool2d(cells_P, (after.rows, after.columns)).flatten(1)
    return torch.kron(strength_OI, overlap_PQ.T.contiguous())


def _flattened_edges(weight_OI: Tensor, before: NodeLayer) -> Tensor | None:
    """Edges into a Linear layer that reads a flattened feature map, channel by channel."""
    side = round((weight_OI.shape[1] / before.channels) ** 0.5)
    if before.channels * side * side != weight_OI.shape[1]:
        return None
    maps = weight_OI.view(len(weight_OI), before.channels, side, side)
    return F.adaptive_avg_pool2d(maps, (before.rows, before.columns)).flatten(1)
