"""A network's logits on a whole set of images, computed in float32 and in small batches."""

# Shapes: N images of a set, n of them in a batch, K classes.
# ruff: noqa: TID253 - runs networks; only stages import it

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerecover.compute import Compute, judged_at_once
from edgerecover.synthesis.image_set import ImageSet


@torch.no_grad()
def logits_on(network: nn.Module, images: ImageSet, compute: Compute) -> Tensor:
    """Logits (N, K) of all images of a set, float32 on the CPU; computed in float32 whatever the device."""
    return torch.cat([torch.from_numpy(logits_NK) for logits_NK in numpy_logits(network, images, compute)])


def numpy_logits(network: nn.Module, images: ImageSet, compute: Compute) -> Iterator[NDArray[np.float32]]:
    """Logits (n, K) of a set's images, batch by batch, float32 on the CPU."""
    for batch_NCHW in images.batches(judged_at_once(images.shape_CHW)):
        with torch.no_grad():
            yield network(compute.images(batch_NCHW)).float().cpu().numpy()
