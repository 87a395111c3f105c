"""What a record says, as frozen values: Gaussians, one a class, of a teacher's activations in a few coordinates."""

# Shapes: N images, K classes, U nodes, C coefficients, R rank.
# ruff: noqa: TID253, N815 - works on tensors throughout, shapes are suffixes of fields too; only stages import it

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from edgerecover.synthesize.record.nodes import NodeLayer
from edgerecover.synthesize.statistics import Place

Kind = Literal["joint", "top-layer", "all-layers", "all-layers-spectral", "layer-pairs-spectral"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Block:
    """Layers whose activations are drawn together.

    A node's value is centre + scale · (basis · coefficients); coefficients of class k are Gaussian with mean
    `mean_KC[k]` and covariance factorᵀ factor.
    """

    layers: tuple[NodeLayer, ...]
    centre_U: Tensor
    scale_U: Tensor
    basis_UC: Tensor | None
    """Orthonormal columns; None: a coefficient for each node."""
    mean_KC: Tensor
    factor_KRC: Tensor

    def standardised(self, nodes_NU: Tensor) -> Tensor:
        """Nodes in units of their spread over the data."""
        return (nodes_NU - self.centre_U.to(nodes_NU.device)) / self.scale_U.to(nodes_NU.device)

    def draw(self, classes_N: Tensor, generator: torch.Generator) -> Tensor:
        """Standardised nodes (N, U), on the CPU, that images of these classes may have."""
        noise_NR = torch.randn((len(classes_N), self.factor_KRC.shape[1]), generator=generator)
        coefficients_NC = self.mean_KC[classes_N] + torch.einsum("nr,nrc->nc", noise_NR, self.factor_KRC[classes_N])
        return coefficients_NC if self.basis_UC is None else coefficients_NC @ self.basis_UC.T


@dataclass(frozen=True)
class Record:
    """An activation record."""

    kind: Kind
    teacher_sha256: str
    """`models.digest.weights_sha256` of the network it was made from."""
    num_images: int
    noise: float
    """Gaussian noise that was added to every statistic, in standard errors of that statistic."""
    blocks: tuple[Block, ...]
    sha256: str = ""
    """Of the file it was read from; empty for one that was just made."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.blocks[0].mean_KC)

    @property
    def layers(self) -> tuple[NodeLayer, ...]:
        """All layers that it speaks of, once each."""
        return tuple(dict.fromkeys(layer for block in self.blocks for layer in block.layers))


class RecordStatistics:
    """What a record knows, for synthesis: each image is to show activations drawn for its class.

    The distance is the mean square over nodes, in units of each node's spread over the data, added up over the
    record's blocks (Lopes et al. 2017, arXiv 1710.07535: l = Σ (s̄ - s)²).
    """

    is_positional = True

    def __init__(self, record: Record) -> None:
        self._record = record

    @property
    def places(self) -> tuple[Place, ...]:
        """The outputs of the recorded layers."""
        return tuple(layer.place for layer in self._record.layers)

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> _Wanted:
        """Activations for each image of the next batch, of random classes where they have none."""
        if targets_N is None:
            classes_N = torch.randint(self._record.num_classes, (num_images,), generator=generator)
        else:
            classes_N = targets_N.cpu()
        return _Wanted(tuple((block, block.draw(classes_N, generator)) for block in self._record.blocks))


@dataclass(frozen=True)
class _Wanted:
    """The distance to one draw."""

    wanted: tuple[tuple[Block, Tensor], ...]

    def __call__(self, seen: Mapping[Place, Tensor]) -> Tensor:
        terms = []
        for block, wanted_NU in self.wanted:
            nodes_NU = torch.cat([layer.read(seen[layer.place]) for layer in block.layers], 1)
            terms.append((block.standardised(nodes_NU) - wanted_NU.to(nodes_NU.device)).square().mean())
        return torch.stack(terms).sum()
