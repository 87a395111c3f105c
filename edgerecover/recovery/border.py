"""Which border the teacher is used to seeing beside a shifted image."""

# ruff: noqa: TID253 - runs the teacher; only distillation imports it

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from edgerecover.compute import Compute
from edgerecover.config import Recovery
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.recovery.views import augment
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.statistics import BatchNormStatistics, Weighted, open_tap

_BORDER_IMAGES = 256
_BORDER_AT_ONCE = 16
_CLEARLY_NEARER = 0.8
"""Ratio of distances from the stored statistics below which `edge` is chosen."""


@torch.no_grad()
def border_of(teacher: nn.Module, images: ImageSet, settings: Recovery, compute: Compute) -> Literal["edge", "zero"]:
    """What the teacher is used to seeing beside a shifted image: `zero` or `edge`, by its batch norm statistics.

    They come from images that were shifted during training in one of two ways. Images shifted the other way are far
    from them, and batch norm that adapts to those ends up wrong for real images. `zero` unless `edge` is clearly
    nearer; `edge` for a teacher without statistics.
    """
    if not batch_norms_of(teacher):
        return "edge"
    shifts_alone = {"flip": False, "zoom_fraction": 0.0, "cutmix_share": 0.0, "colour_jitter": 0.0}
    # Their number shrinks with the batch of a distillation that ran out of memory.
    num_images = min(_BORDER_IMAGES, 4 * settings.batch_size, len(images))
    sample_NCHW = torch.from_numpy(images.images_of(range(num_images)))
    distances = {}
    with open_tap(teacher, [Weighted(1.0, BatchNormStatistics(teacher, "relative"))]) as tap:
        for border in ("edge", "zero"):
            shifting = settings.model_copy(update={**shifts_alone, "crop_border": border})
            random = torch.Generator().manual_seed(0), np.random.default_rng(0)
            shifted = augment(sample_NCHW, shifting, images.scale, *random)
            parts = torch.split(shifted, _BORDER_AT_ONCE)
            tap.draw([len(part) for part in parts], None, torch.Generator())
            for number, part in enumerate(parts):  # the last distance is over all
                teacher(compute.images(part))
                distances[border] = float(tap.distance(number))
    return "edge" if distances["edge"] < _CLEARLY_NEARER * distances["zero"] else "zero"
