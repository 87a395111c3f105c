"""DeepInversion: images optimised until the teacher's activations and class scores look like real data's.

Method: Yin et al., "Dreaming to Distill", CVPR 2020 (arXiv 1912.08795), equations 2 to 4. Written from the formulas.
"""

# Shapes: N images in a batch, n of them in a piece, C channels, H height, W width, D outputs for each.
# ruff: noqa: TID253, N815 - an optimisation over tensors from top to bottom, shapes are suffixes of fields too; only stages import it, never the CLI's help

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.models.network.norms import batch_norms_of
from edgerecover.synthesis.patch_similarity import PatchSimilarityEntropy, attentions_of
from edgerecover.synthesis.procedural import fractals, pixel_statistics, shapes
from edgerecover.synthesis.record.values import Record, RecordStatistics
from edgerecover.synthesis.statistics import BatchNormStatistics, PixelStatistics, Tap, Weighted
from edgerecover.tasks.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.compute import Compute
    from edgerecover.config import Synthesis


def evidence_of(teacher: nn.Module, settings: Synthesis, record: Record | None = None) -> tuple[Weighted, ...]:
    """Everything known of the teacher's activations on real data, each with its weight in the loss."""
    terms: list[Weighted] = []
    if batch_norms_of(teacher):
        terms.append(Weighted(settings.bn_weight, BatchNormStatistics(teacher, settings.bn_distance)))
    if record is not None:
        terms.append(Weighted(settings.record_weight, RecordStatistics(record, next(teacher.parameters()).device)))
    if not terms and settings.patch_weight and attentions_of(teacher):
        terms.append(Weighted(settings.patch_weight, PatchSimilarityEntropy(teacher)))
    if settings.pixel_weight:
        terms.append(Weighted(settings.pixel_weight, PixelStatistics()))
    return tuple(terms)


def dream(
    teacher: nn.Module,
    tap: Tap,
    bounds_C: tuple[Tensor, Tensor],
    shape_NCHW: tuple[int, int, int, int],
    aim: Aim,
    settings: Synthesis,
    generator: torch.Generator,
    compute: Compute,
    on_step: Callable[[float], None] = lambda _loss: None,
    rival: Rival | None = None,
) -> Tensor:
    """Optimise one batch of images, float32 (N, C, H, W) network inputs inside `bounds_C`.

    Args:
        teacher: in eval mode, parameters without gradients, on the device of `compute`.
        tap: on the teacher, with everything known of its activations.
        bounds_C: lowest and highest input per channel.
        shape_NCHW: of the batch.
        aim: what each image is made for.
        settings: weights, steps and rate.
        generator: all randomness; a CPU generator, so that start and jitter do not depend on the device.
        compute: device, mixed precision and memory format.
        on_step: called after every step with the loss.
        rival: a student to disagree with, and where to start.
    """
    # z is the image in a unit in which every network's pixels span about the same, so that rates mean the same.
    middle, unit, edge = (part.to(compute.device) for part in _coordinates(bounds_C, settings))
    start = (
        (rival.start.to(compute.device) - middle) / unit if rival else _start(shape_NCHW, bounds_C, settings, generator)
    )
    z = start.to(compute.device, memory_format=compute.memory_format)
    optimizer = torch.optim.Adam([z], lr=settings.lr, betas=settings.betas)
    pieces = _pieces(shape_NCHW[0], settings)
    tap.draw([piece.stop - piece.start for piece in pieces], aim.targets_N, generator)
    # Shifted by a pixel, every patch is another token: a mean over shifts leaves such a network next to nothing.
    # Nor may what is seen leave its place where the target says what is to be there.
    stays = reads_patches_as_tokens(teacher) or aim.objective.is_positional
    jitter = 0.0 if stays else settings.jitter_fraction
    total_loss = _TotalLoss(teacher, tap, settings, generator, compute, aim, middle, unit, jitter, rival)
    with compute.without_slow_kernels(teacher, *([rival.student] if rival else [])):
        for step in range(settings.num_steps):
            optimizer.param_groups[0]["lr"] = settings.lr * _rate(step, settings)
            is_coarse = step < settings.coarse_fraction * settings.num_steps
            z.grad, total = torch.empty_like(z), 0.0
            for number, piece in enumerate(pieces):
                z_NCHW = z[piece].requires_grad_()
                loss, share = total_loss.of(number, piece, z_NCHW, is_coarse), len(z_NCHW) / len(z)
                (gradient,) = torch.autograd.grad(loss, z_NCHW)
                z.grad[piece] = share * gradient
                total += share * float(loss.detach())
            optimizer.step()
            torch.minimum(torch.maximum(z, -edge, out=z), edge, out=z)
            on_step(total)
    tap.clear()
    return (middle + unit * z).cpu().float()


@dataclass(frozen=True)
class Aim:
    """What one batch of dreams is made for."""

    objective: Objective
    targets_N: Tensor | None
    """Of each image, below the objective's number of targets; None: no image has one."""


@dataclass(frozen=True)
class _TotalLoss:
    """What one batch of dreams is optimised for; its fields are as in `dream`."""

    teacher: nn.Module
    tap: Tap
    settings: Synthesis
    generator: torch.Generator
    compute: Compute
    aim: Aim
    middle: Tensor
    unit: Tensor
    jitter_fraction: float
    rival: Rival | None

    def of(self, number: int, piece: slice, z_NCHW: Tensor, is_coarse: bool) -> Tensor:
        """The loss of one piece of the batch, as a mean over its images."""
        settings, tap = self.settings, self.tap
        view, is_mirrored = z_NCHW, False
        if not tap.is_positional:
            view, is_mirrored = _jitter_and_flip(z_NCHW, self.jitter_fraction, settings.flip is True, self.generator)
        tap.clear()
        inputs = self.middle + self.unit * (F.avg_pool2d(view, 2) if is_coarse else view)
        with self.compute.autocast():
            outputs_ND = self.teacher(inputs)
        objective, targets_N = self.aim.objective, self.aim.targets_N
        if is_mirrored:
            outputs_ND = objective.mirrored(outputs_ND)
        targets_n = None if targets_N is None else targets_N[piece]
        loss = (
            settings.class_weight * objective.guide(outputs_ND.float(), targets_n, settings.class_temperature)
            + tap.distance(number)
            + settings.tv_weight * total_variation(view, settings.tv_reduction)
            + settings.l2_weight * view.square().mean()
        )
        if self.rival is None:
            return loss
        with self.compute.autocast():
            rival_ND = self.rival.student(inputs)
        if is_mirrored:
            rival_ND = objective.mirrored(rival_ND)
        return loss - self.rival.weight * objective.disagreement(outputs_ND.float(), rival_ND.float())


def _pieces(num_images: int, settings: Synthesis) -> list[slice]:
    """Pieces of nearly the same size, as few as fit through the network at once."""
    size = -(-num_images // -(-num_images // settings.at_once(num_images)))
    return [slice(start, min(start + size, num_images)) for start in range(0, num_images, size)]


@dataclass(frozen=True)
class Rival:
    """The student that Adaptive DeepInversion makes the teacher disagree with."""

    student: nn.Module
    start: Tensor
    """Network inputs (N, C, H, W) to start from, on any device."""
    weight: float


_USUAL_SPAN = 4.4
"""From the darkest to the brightest input of an ImageNet-normalised channel, the span that learning rates are for."""


def _coordinates(bounds_C: tuple[Tensor, Tensor], settings: Synthesis) -> tuple[Tensor, Tensor, Tensor]:
    """Middle, unit and edge with input = middle + unit · z and |z| ≤ edge, each (1, C, 1, 1)."""
    low, high = (bound.view(1, -1, 1, 1) for bound in bounds_C)
    if settings.clamp == "pixel-range":
        return (low + high) / 2, (high - low) / _USUAL_SPAN, torch.full_like(low, _USUAL_SPAN / 2)
    return torch.zeros_like(low), torch.ones_like(low), torch.full_like(low, settings.clamp)


def _rate(step: int, settings: Synthesis) -> float:
    """Factor on the learning rate."""
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / settings.num_steps))


def _start(
    shape_NCHW: tuple[int, int, int, int],
    bounds_C: tuple[Tensor, Tensor],
    settings: Synthesis,
    generator: torch.Generator,
) -> Tensor:
    if settings.start == "noise":
        return torch.randn(shape_NCHW, generator=generator)
    n, c, h, w = shape_NCHW
    if settings.start == "shapes":
        low, high = bounds_C
        statistics_C = pixel_statistics((tuple(low.tolist()), tuple(high.tolist())))
        shapes_NCHW = torch.from_numpy(shapes(n, (c, h, w), *statistics_C, _numpy_random(generator)))
        span = 2 * _coordinates(bounds_C, settings)[2]
        return span * (shapes_NCHW - 0.5) + 0.1 * torch.randn(shape_NCHW, generator=generator)
    if settings.start in ("fractal", "auto"):
        rng = _numpy_random(generator)
        unit_NCHW = torch.from_numpy(fractals(n, (c, h, w), rng, saturation=_START_SATURATION))
        return _USUAL_SPAN * (unit_NCHW - 0.5) + 0.1 * torch.randn(shape_NCHW, generator=generator)
    coarse = torch.randn((n, c, -(-h // 4), -(-w // 4)), generator=generator)
    smooth = F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False)
    # Interpolation shrinks the variance; normalised real images have about 1, and growing it back would take steps.
    return smooth / smooth.std().clamp_min(1e-6) + 0.1 * torch.randn(shape_NCHW, generator=generator)


def _numpy_random(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))


_START_SATURATION = 0.4
"""The colour channels of photographs are correlated: about 0.9 of their variance is brightness."""


def reads_patches_as_tokens(network: nn.Module) -> bool:
    """Whether it attends to patches that do not overlap: its first convolution has stride = kernel, as in ViT."""
    stem = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    cuts_patches = stem is not None and stem.kernel_size == stem.stride and max(stem.stride) > 1
    return cuts_patches and bool(attentions_of(network))


def _jitter_and_flip(x: Tensor, jitter_fraction: float, flip: bool, generator: torch.Generator) -> tuple[Tensor, bool]:
    """Shifted and mirrored images, and whether they are mirrored: all of them are, or none."""
    limits = [round(side * jitter_fraction) for side in x.shape[2:]]
    shifts = [int(torch.randint(-m, m + 1, (), generator=generator)) if m else 0 for m in limits]
    if any(shifts):
        x = torch.roll(x, shifts, dims=(2, 3))
    is_mirrored = flip and bool(torch.rand((), generator=generator) < 0.5)
    return (x.flip(3) if is_mirrored else x), is_mirrored


def total_variation(x_NCHW: Tensor, reduction: str) -> Tensor:
    """Anisotropic L1 total variation: absolute differences of neighbours, down and across."""
    down = (x_NCHW[:, :, 1:] - x_NCHW[:, :, :-1]).abs()
    across = (x_NCHW[:, :, :, 1:] - x_NCHW[:, :, :, :-1]).abs()
    return down.mean() + across.mean() if reduction == "mean" else down.sum() + across.sum()
