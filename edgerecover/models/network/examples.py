"""Images to try a network on before there are any: coarse and fine structure, inside the range of real pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec

if TYPE_CHECKING:
    from torch import Tensor

_COARSE = 4
"""Number of patches along each side."""


def example_images(input: InputSpec, num_images: int) -> Tensor:
    """Network inputs (N, C, H, W), float32, always the same ones; none of them is uniform.

    Many networks divide by an image's own standard deviation, so a black or white image is no fair test.
    """
    import torch
    import torch.nn.functional as F

    channels, height, width = input.shape
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand((num_images, channels, min(_COARSE, height), min(_COARSE, width)), generator=generator)
    coarse = F.interpolate(patches, size=(height, width), mode="nearest")
    fine = torch.rand((num_images, channels, height, width), generator=generator)
    low, high = (torch.tensor(bound).view(1, -1, 1, 1) for bound in input.bounds())
    return low + (high - low) * (0.7 * coarse + 0.3 * fine)
