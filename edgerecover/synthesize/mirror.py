"""Whether mirroring changes what a teacher sees, found out without data.

A classifier of photographs was nearly always trained on mirrored images too and decides alike on both; to one of digits,
letters or signs a mirrored image is another thing. So the teacher is shown a few dreams of its own, made without any
mirroring, and their mirror images: where its decisions stay, mirrored images are as good as new ones, to dream and to
distil on.
"""

# Shapes: N images, C channels, H height, W width.
# ruff: noqa: TID253 - works on tensors throughout; only stages import it, never the CLI's help

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edgerecover.artifacts import Proportion
from edgerecover.synthesize.deep_inversion import dream, evidence_of
from edgerecover.synthesize.statistics import tapped

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.artifacts import InputSpec
    from edgerecover.config import Synthesis
    from edgerecover.device import Compute

LEAST_AGREEMENT = 0.8
"""Share of the decisions that mirroring must leave as they are; docs/adr/0015 has what networks show."""
_NUM_IMAGES = 128
_BATCH_SIZE = 64
_NUM_STEPS = 40
_SEED = 0
"""Not the run's: what a teacher was trained on does not change with it."""


def mirror_agreement(
    teacher: nn.Module, input: InputSpec, num_classes: int, settings: Synthesis, compute: Compute
) -> Proportion:
    """How often the teacher decides on a mirrored dream as on the dream itself.

    Only dreams that it reads as the class they were made for count: on the others it decides by a hair.

    Args:
        teacher: in eval mode, parameters without gradients, on the device of `compute`.
        input: its preprocessing.
        num_classes: K.
        settings: how to dream; number of images and steps, start, class targets and mirroring are this function's own.
        compute: device and precision.
    """
    settings = settings.model_copy(
        update={"num_steps": _NUM_STEPS, "schedule": "cosine", "class_term": "target", "flip": False}
    )
    generator = torch.Generator().manual_seed(_SEED)
    targets_N = torch.randperm(max(num_classes, _NUM_IMAGES), generator=generator)[:_NUM_IMAGES] % num_classes
    bounds_C = tuple(torch.tensor(bound) for bound in input.bounds())
    hits = total = 0
    with tapped(teacher, evidence_of(teacher, settings)) as tap:
        for targets_B in targets_N.to(compute.device).split(_BATCH_SIZE):
            shape_NCHW = (len(targets_B), *input.shape)
            images = dream(teacher, tap, bounds_C, shape_NCHW, targets_B, settings, generator, compute)
            read_B, mirrored_B = (_decisions(teacher, view, compute) for view in (images, images.flip(3)))
            counts_B = read_B == targets_B
            hits += int((mirrored_B == read_B)[counts_B].sum())
            total += int(counts_B.sum())
        tap.clear()
    return Proportion(hits, total)


@torch.no_grad()
def _decisions(teacher: nn.Module, images_NCHW: Tensor, compute: Compute) -> Tensor:
    return teacher(compute.images(images_NCHW)).argmax(1)
