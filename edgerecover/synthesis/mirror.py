"""Whether mirroring changes what a teacher sees, found out without data.

A classifier of photographs was nearly always trained on mirrored images too and treats both alike; to one of digits,
letters or signs a mirrored image is a different thing. So the teacher is shown a few of its own dreams, made without
mirroring, and their mirror images. Its margins are compared: the logit of the class it chooses on the dream, minus that
of each other class:

    correlation = Σ m_mirrored · m / √(Σ m_mirrored² · Σ m²)     over all dreams and all other classes

which is 1 where mirroring changes nothing, and about 0 where it makes a different image. Decisions alone say less: a
dream is at the edge of what its teacher knows, and even one trained on mirrored images changes its mind on some.
"""

# Shapes: N images, C channels, H height, W width, D outputs for each.
# ruff: noqa: TID253 - works on tensors throughout; only stages import it, never the CLI's help

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgerecover.progress import SILENT, Progress, Task
from edgerecover.synthesis.deep_inversion import Aim, dream, evidence_of
from edgerecover.synthesis.source import Source
from edgerecover.synthesis.statistics import open_tap

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.compute import Compute
    from edgerecover.config import Synthesis

LEAST_CORRELATION = 0.8
"""docs/adr/0015 has what networks trained with and without mirroring show."""
_CLASS_WEIGHT = 5.0
"""High enough that every teacher is sure of its dreams."""
_NUM_IMAGES, _FEWEST_IMAGES = 32, 16
_NUM_MARGINS = 320
"""As many as 32 images of 10 classes have; with more classes, fewer images say as much."""
_NUM_STEPS = 24
IMAGE_STEPS = _NUM_IMAGES * _NUM_STEPS
"""The cost of the answer, in images times steps."""
_SEED = 0
"""Not the run's seed: what a teacher was trained on does not change with it."""


def mirror_correlation(source: Source, settings: Synthesis, progress: Progress = SILENT) -> float:
    """Correlation of the teacher's margins on its dreams with those on the mirrored dreams, -1 to 1.

    0 where they are not numbers, or where it tells no class from another.

    Args:
        source: its teacher in eval mode, parameters without gradients, on the device of `compute`.
        settings: how to dream; number of images and steps, class targets and mirroring are this function's own.
        progress: where to report.
    """
    teacher, compute, objective = source.teacher, source.compute, source.objective
    settings = settings.model_copy(
        update={
            "num_steps": _NUM_STEPS,
            "schedule": "cosine",
            "class_term": "target",
            "class_weight": _CLASS_WEIGHT,
            "class_temperature": 1.0,
            "flip": False,
            # A quarter of the time, wherever the profile's own dreams may have it.
            "coarse_fraction": 1.0 if settings.coarse_fraction else 0.0,
        }
    )
    generator = torch.Generator().manual_seed(_SEED)
    num_targets = objective.num_targets
    num_images = max(_FEWEST_IMAGES, min(_NUM_IMAGES, _NUM_MARGINS // max(1, num_targets)))
    targets_N = None
    if num_targets:
        drawn_N = torch.randperm(max(num_targets, num_images), generator=generator)[:num_images] % num_targets
        targets_N = drawn_N.to(compute.device)
    low, high = source.input.bounds()
    bounds_C = torch.tensor(low), torch.tensor(high)
    with (
        progress.task("mirrored?", num_images, "dreams") as task,
        open_tap(teacher, evidence_of(teacher, settings, source.record)) as tap,
    ):
        shape_NCHW = (num_images, *source.input.shape)
        images = dream(
            teacher, tap, bounds_C, shape_NCHW, Aim(objective, targets_N), settings, generator, compute,
            on_step=partial(_advance, task, num_images / _NUM_STEPS),
        )  # fmt: skip
    plain_ND, mirrored_ND = (_outputs(teacher, view, compute) for view in (images, images.flip(3)))
    margins = (objective.margins(outputs_ND, plain_ND) for outputs_ND in (plain_ND, objective.mirrored(mirrored_ND)))
    return _correlation(*margins)


def _advance(task: Task, share: float, loss: float) -> None:
    task.advance(share, loss=loss)


def _correlation(plain: Tensor, mirrored: Tensor) -> float:
    correlation = float((plain * mirrored).sum() / (plain.norm() * mirrored.norm()))
    return correlation if math.isfinite(correlation) else 0.0


@torch.no_grad()
def _outputs(teacher: nn.Module, images_NCHW: Tensor, compute: Compute) -> Tensor:
    parts = torch.split(images_NCHW, _FEWEST_IMAGES)
    return torch.cat([teacher(compute.images(part_NCHW)).double().cpu() for part_NCHW in parts])
