"""A record as frozen values: one Gaussian per class, of a teacher's activations in a few coordinates."""

# Shapes: N images, K classes, U nodes, C coefficients, R rank.
# ruff: noqa: TID253, N815 - works on tensors throughout, shapes are suffixes of fields too; only stages import it

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

import torch
from torch import Tensor

from edgerecover.synthesis.record.nodes import NodeLayer, read_nodes
from edgerecover.synthesis.statistics import Place, Seen

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

    def coefficients(self, nodes_NU: Tensor) -> Tensor:
        """Coefficients (N, C) of nodes."""
        standard_NU = (nodes_NU - self.centre_U) / self.scale_U
        return standard_NU if self.basis_UC is None else standard_NU @ self.basis_UC

    def draw(self, classes_N: Tensor, generator: torch.Generator) -> Tensor:
        """Coefficients (N, C), on the CPU, that images of these classes may have."""
        noise_NR = torch.randn((len(classes_N), self.factor_KRC.shape[1]), generator=generator)
        return self.mean_KC[classes_N] + torch.einsum("nr,nrc->nc", noise_NR, self.factor_KRC[classes_N])

    def mean_variance(self) -> float:
        """Variance of a coefficient over the images of all classes, mean over coefficients: the unit of distances."""
        return float((self.mean_KC.var(0, unbiased=False) + self.factor_KRC.square().sum(1).mean(0)).mean())

    def to(self, device: torch.device) -> Block:
        """A copy with its tensors on a device."""
        return Block(
            self.layers,
            self.centre_U.to(device),
            self.scale_U.to(device),
            None if self.basis_UC is None else self.basis_UC.to(device),
            self.mean_KC.to(device),
            self.factor_KRC.to(device),
        )


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
    """Digest of the file that the record was read from; empty for one that was just made."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.blocks[0].mean_KC)

    @property
    def layers(self) -> tuple[NodeLayer, ...]:
        """All layers that the record describes, once each."""
        return tuple(dict.fromkeys(layer for block in self.blocks for layer in block.layers))


class RecordStatistics:
    """What a record contributes to synthesis: each image should show activations drawn for its class.

    The distance is the mean square over coefficients as a fraction of their variance over the data, added up over the
    record's blocks. Lopes et al. 2017 (arXiv 1710.07535) compare nodes, l = Σ (s̄ - s)², with s̄ zero outside the kept
    coefficients; what was not kept is not known to be zero, and is left free here (docs/adr/0018).
    """

    is_positional = True

    def __init__(self, record: Record, device: torch.device) -> None:
        self._record = record
        self._blocks = [(block, block.to(device), max(block.mean_variance(), 1e-12)) for block in record.blocks]
        self._device = device

    @property
    def places(self) -> tuple[Place, ...]:
        """The outputs of the recorded layers."""
        return tuple(layer.place for layer in self._record.layers)

    def draw(self, sizes: Sequence[int], targets_N: Tensor | None, generator: torch.Generator) -> Sequence[_Wanted]:
        """Activations for each image of the next batch, of random classes where they have none."""
        if targets_N is None:
            classes_N = torch.randint(self._record.num_classes, (sum(sizes),), generator=generator)
        else:
            classes_N = targets_N.cpu()
        # Drawn on the CPU, so that the same seed wants the same on every device.
        drawn = [(here, unit, block.draw(classes_N, generator)) for block, here, unit in self._blocks]
        return [
            _Wanted(tuple((here, wanted_NC[images].to(self._device), unit) for here, unit, wanted_NC in drawn))
            for images in _slices(sizes)
        ]


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@dataclass(frozen=True)
class _Wanted:
    """The distance to one draw."""

    wanted: tuple[tuple[Block, Tensor, float], ...]
    """Coefficients (N, C) of each block, and the unit that distances from them are counted in."""

    def __call__(self, seen: Seen) -> Tensor:
        terms = []
        for block, wanted_NC, unit in self.wanted:
            terms.append((block.coefficients(read_nodes(block.layers, seen)) - wanted_NC).square().mean() / unit)
        return torch.stack(terms).sum()
