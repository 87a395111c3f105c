"""Making a record: the teacher sees real images once, and only Gaussians of its activations per class remain.

The four kinds of Lopes, Fenu and Starner 2017 (arXiv 1710.07535), and `joint`, which is what we recommend:

- `top-layer`: the logits.
- `all-layers`: every layer by itself, so nothing says which activations of two layers occur together.
- `all-layers-spectral`: all layers at once, in the largest tenth of the coefficients of the network's graph spectrum.
- `layer-pairs-spectral`: the same for each layer and the next.
- `joint`: all layers at once, in the principal components of the activations themselves.

Differences from the paper: activations are taken before the activation function, where they are closer to Gaussian;
feature maps are pooled to a coarse grid; covariances are kept to their largest directions.
"""

# Shapes: N images, K classes, U nodes, C coefficients, R rank.
# ruff: noqa: TID253 - works on tensors throughout; only the pipeline imports it

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.digest import weights_sha256
from edgerecover.progress import SILENT, Progress
from edgerecover.synthesis.record.nodes import NodeLayer, node_layers, read_nodes
from edgerecover.synthesis.record.spectral import spectral_basis
from edgerecover.synthesis.record.values import Block, Kind, Record
from edgerecover.synthesis.statistics import watch_places

MIN_IMAGES_PER_CLASS = 20
"""With fewer, a mean would reveal much of each single image."""

MAX_CELLS = 7
MAX_NODES = 4096
"""Nodes of all layers together. Eigenvectors cost the cube of that: half a minute at this size."""

MAX_RANK = 64
_JOINT_COMPONENTS = 128
_SPECTRAL_SHARE = 0.1
"""Lopes et al.: a tenth of the coefficients is enough."""
_MAX_NODE_BYTES = 1 << 30
"""Memory for activations while a record is made; if not all images fit, as many as fit are used."""
_BATCH = 64
_LEAST_SPREAD = 0.1
"""Smallest spread of a node, as a fraction of its layer's: dead nodes have none, and would dominate the distance."""


class LabelledImages(Protocol):
    """The interface of `validate.evaluation.EvalSet` that a record needs."""

    @property
    def input(self) -> InputSpec:
        """Shape and preprocessing of the network that the images fit."""

    def __len__(self) -> int: ...

    def sample(self, num_images: int) -> LabelledImages:
        """A random sample of at most this many images."""

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Network inputs (n, C, H, W) float32 and labels (n,)."""


@dataclass(frozen=True)
class Recording:
    """How a record is made."""

    kind: Kind = "joint"
    noise: float = 0.0
    """Gaussian noise added to each statistic, in standard errors of it; 0 adds none."""
    max_rank: int = MAX_RANK
    max_cells: int = MAX_CELLS

    def record(
        self,
        teacher: nn.Module,
        images: LabelledImages,
        num_classes: int,
        progress: Progress = SILENT,
    ) -> Record:
        """Watch the teacher on labelled images.

        Args:
            teacher: in eval mode, on the CPU.
            images: of the network's input; of more than fit in memory, a random sample is taken.
            num_classes: K.
            progress: where to report.

        Raises:
            BadInputError: fewer than `MIN_IMAGES_PER_CLASS` images of a class, or a network too wide for this kind.
        """
        layers = node_layers(teacher, images.input.shape, max_cells=self.max_cells, max_nodes=MAX_NODES)
        if self.kind == "top-layer":
            layers = layers[-1:]
        nodes_NU, labels_N = _watch(teacher, layers, images, progress)
        _check_counts(labels_N, num_classes)
        groups, blocks = self._groups(layers), []
        with progress.task("statistics", len(groups), "blocks") as task:
            for group, columns in groups:
                blocks.append(self._block(teacher, group, nodes_NU[:, columns], labels_N))
                task.advance()
        return Record(
            kind=self.kind,
            teacher_sha256=weights_sha256(teacher),
            num_images=len(labels_N),
            noise=self.noise,
            blocks=tuple(blocks),
        )

    def _groups(self, layers: tuple[NodeLayer, ...]) -> list[tuple[tuple[NodeLayer, ...], Tensor]]:
        """Layers that form a block, and the columns of their nodes."""
        ends = np.cumsum([0, *(layer.num_nodes for layer in layers)]).tolist()
        spans = [torch.arange(start, end) for start, end in itertools.pairwise(ends)]
        if self.kind == "all-layers":
            return [((layer,), span) for layer, span in zip(layers, spans, strict=True)]
        if self.kind == "layer-pairs-spectral" and len(layers) > 1:
            return [(layers[i : i + 2], torch.cat(spans[i : i + 2])) for i in range(len(layers) - 1)]
        return [(layers, torch.cat(spans))]

    def _block(self, teacher: nn.Module, layers: tuple[NodeLayer, ...], nodes_NU: Tensor, labels_N: Tensor) -> Block:
        centre_U = nodes_NU.mean(0)
        scale_U = _scale(layers, nodes_NU)
        standard_NU = (nodes_NU - centre_U) / scale_U
        basis_UC = self._basis(teacher, layers, standard_NU)
        coefficients_NC = standard_NU if basis_UC is None else standard_NU @ basis_UC
        mean_KC, factor_KRC = _gaussians(coefficients_NC, labels_N, self.max_rank)
        block = Block(layers, centre_U, scale_U, basis_UC, mean_KC, factor_KRC)
        return _with_noise(block, labels_N, self.noise) if self.noise else block

    def _basis(self, teacher: nn.Module, layers: tuple[NodeLayer, ...], standard_NU: Tensor) -> Tensor | None:
        if self.kind in ("top-layer", "all-layers"):
            return None
        num_nodes = standard_NU.shape[1]
        if self.kind == "joint":
            num_kept = min(_JOINT_COMPONENTS, num_nodes, len(standard_NU))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # its start is random: the same images give the same record
                return torch.pca_lowrank(standard_NU, q=num_kept, center=False, niter=4)[2]
        if num_nodes > MAX_NODES:
            raise BadInputError(
                f"--kind {self.kind}: {num_nodes:,} activations are too many for an eigenvalue decomposition "
                f"(at most {MAX_NODES:,})",
                hint="--kind joint has no such limit",
            )
        spectrum_UU = spectral_basis(teacher, layers)
        energy_U = (standard_NU @ spectrum_UU).square().mean(0)
        kept = energy_U.topk(max(1, round(_SPECTRAL_SHARE * num_nodes))).indices.sort().values
        return spectrum_UU[:, kept].contiguous()


@torch.no_grad()
def _watch(
    teacher: nn.Module, layers: Sequence[NodeLayer], images: LabelledImages, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Nodes (N, U) and labels (N,) of as many images as may be held."""
    max_images = _MAX_NODE_BYTES // (4 * sum(layer.num_nodes for layer in layers))
    chosen = images.sample(max_images)
    nodes, labels = [], []
    with (
        watch_places(teacher, [layer.place for layer in layers]) as seen,
        progress.task("record", len(chosen), "images") as task,
    ):
        for images_NCHW, labels_N in chosen.batches(_BATCH):
            teacher(torch.from_numpy(images_NCHW))
            nodes.append(read_nodes(layers, seen))
            labels.append(torch.from_numpy(labels_N))
            task.advance(len(labels_N))
    return torch.cat(nodes), torch.cat(labels)


def _check_counts(labels_N: Tensor, num_classes: int) -> None:
    counts = torch.bincount(labels_N, minlength=num_classes)
    fewest = int(counts.argmin())
    if counts[fewest] < MIN_IMAGES_PER_CLASS:
        raise BadInputError(
            f"--data: {int(counts[fewest])} images of class {fewest}, but a record needs at least "
            f"{MIN_IMAGES_PER_CLASS} of each class: means over fewer would reveal single images",
            hint="add images of the classes that have too few",
        )


def _scale(layers: Sequence[NodeLayer], nodes_NU: Tensor) -> Tensor:
    """Spread of each node over the data, not less than a fraction of its layer's."""
    parts = []
    for part_NU in torch.split(nodes_NU, [layer.num_nodes for layer in layers], dim=1):
        var_U = part_NU.var(0, unbiased=False)
        parts.append((var_U + _LEAST_SPREAD**2 * var_U.mean() + 1e-12).sqrt())
    return torch.cat(parts)


def _gaussians(coefficients_NC: Tensor, labels_N: Tensor, max_rank: int) -> tuple[Tensor, Tensor]:
    """Mean (K, C) of each class and a factor (K, R, C) of the largest directions of its covariance."""
    num_classes = int(labels_N.max()) + 1
    rank = min(max_rank, coefficients_NC.shape[1], int(torch.bincount(labels_N).min()) - 1)
    means, factors = [], []
    for k in range(num_classes):
        own_NC = coefficients_NC[labels_N == k]
        mean_C = own_NC.mean(0)
        _, sizes_R, directions_RC = torch.linalg.svd(own_NC - mean_C, full_matrices=False)
        means.append(mean_C)
        factors.append(sizes_R[:rank, None] * directions_RC[:rank] / (len(own_NC) - 1) ** 0.5)
    return torch.stack(means), torch.stack(factors)


def _with_noise(block: Block, labels_N: Tensor, noise: float) -> Block:
    """Gaussian noise on every number that came from the data, in units of that number's standard error.

    Its randomness is the operating system's, never a seed: whoever knew the seed could take the noise away.
    """
    generator = torch.Generator()
    generator.seed()

    def blur(statistic: Tensor, standard_error: Tensor | float) -> Tensor:
        return statistic + noise * standard_error * torch.randn(statistic.shape, generator=generator)

    n, n_K = len(labels_N), torch.bincount(labels_N).float()
    spread_KC = block.factor_KRC.square().sum(1).sqrt()
    per_class_KC = spread_KC / n_K[:, None].sqrt()
    basis_UC = block.basis_UC
    if basis_UC is not None:
        basis_UC = torch.linalg.qr(blur(basis_UC, n**-0.5))[0]
    return Block(
        block.layers,
        blur(block.centre_U, block.scale_U / n**0.5),
        blur(block.scale_U, block.scale_U / (2 * n) ** 0.5).clamp_min(1e-6),
        basis_UC,
        blur(block.mean_KC, per_class_KC),
        blur(block.factor_KRC, per_class_KC[:, None] / 2**0.5),
    )
