"""What a network is shown of a batch of images: mirrored, shifted, zoomed, mixed with each other, in other colours.

Random numbers are drawn for a whole batch, and pixels are moved only for the rows that are needed: with several
processes each makes its own rows, and they are those that one process would make.
"""

# Shapes: N images in a batch, M of them that are needed, C channels, H height, W width.
# ruff: noqa: TID253 - works on tensors; only distillation imports it

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.config import Recovery
from edgerecover.synthesis.image_set import PixelScale

_LOG_ASPECT = 0.25
"""Width to height of a zoomed crop: up to 1.28 either way."""


def augment(
    batch_NCHW: Tensor,
    settings: Recovery,
    scale: PixelScale,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Tensor:
    """Random flip, shift and zoom per image, rectangles exchanged between images, then colours, as the settings say."""
    n, c, h, w = batch_NCHW.shape
    return draw_views((n, c, h, w), settings, scale, generator, rng).of(batch_NCHW, range(n))


@dataclass(frozen=True)
class Exchange:
    """CutMix (Yun et al. 2019, arXiv 1905.04899): one rectangle for the batch, of a uniformly random area."""

    down: slice
    across: slice
    others: Tensor
    """(N,): which image each takes its rectangle from."""


@dataclass(frozen=True)
class Jitter:
    """Each image's change of colour; pixels stay within what a real pixel can be."""

    saturation: Tensor
    """(N,): factor on what sets a pixel apart from its own grey; without effect on one channel."""
    contrast: Tensor
    """(N,): factor on what sets a pixel apart from the image's mean."""
    brightness: Tensor
    """(N,): fraction of a pixel's range that is added."""
    scale: PixelScale

    def of(self, batch_NCHW: Tensor, rows: range) -> Tensor:
        """Change these rows (N, C, H, W) of the batch."""
        low_1C11, high_1C11 = (torch.tensor(bound).view(1, -1, 1, 1) for bound in (self.scale.low, self.scale.high))
        saturation, contrast, brightness = (
            values_N[rows.start : rows.stop].view(-1, 1, 1, 1)
            for values_N in (self.saturation, self.contrast, self.brightness)
        )
        unit_NCHW = (batch_NCHW - low_1C11) / (high_1C11 - low_1C11)
        grey_N1HW = unit_NCHW.mean(1, keepdim=True)
        unit_NCHW = grey_N1HW + saturation * (unit_NCHW - grey_N1HW)
        mean_N111 = unit_NCHW.mean((1, 2, 3), keepdim=True)
        unit_NCHW = mean_N111 + contrast * (unit_NCHW - mean_N111) + brightness
        changed_NCHW: Tensor = low_1C11 + (high_1C11 - low_1C11) * unit_NCHW.clamp(0, 1)
        return changed_NCHW


@dataclass(frozen=True)
class Views:
    """What happens to each image of one batch; None where it does not."""

    shape: tuple[int, int, int, int]
    """Shape (N, C, H, W) of the batch."""
    flips: Tensor | None
    """(N,): whether an image is mirrored."""
    pad: int
    """Pixels that are added beside each edge; an image may be shifted by that many."""
    pad_mode: str
    """How `torch.nn.functional.pad` fills the added pixels."""
    corners: Tensor | None
    """(2, N): row and column in the padded image at which the shifted one begins."""
    zooms: Tensor | None
    """(N, 2, 3): each image's crop as an affine matrix for `affine_grid`."""
    exchange: Exchange | None
    jitter: Jitter | None

    def needed(self, rows: range) -> Tensor:
        """Positions (M,) in the batch of the images that these rows are made from, in ascending order."""
        rows_R = torch.tensor(rows)
        if self.exchange is None or len(rows) == self.shape[0]:
            return rows_R
        needed_M: Tensor = torch.unique(torch.cat([rows_R, self.exchange.others[rows_R]]))
        return needed_M

    def of(self, needed_MCHW: Tensor, rows: range) -> Tensor:
        """Make these rows (R, C, H, W) of the batch from the images they need."""
        needed_M, batch = self.needed(rows), needed_MCHW
        n, _, h, w = self.shape
        if self.flips is not None:
            batch = torch.where(self.flips[needed_M].view(-1, 1, 1, 1), batch.flip(3), batch)
        if self.corners is not None:
            padded = F.pad(batch, (self.pad,) * 4, mode=self.pad_mode)
            corners = zip(*self.corners[:, needed_M].tolist(), strict=True)
            windows = [padded[i, :, top : top + h, left : left + w] for i, (top, left) in enumerate(corners)]
            batch = torch.stack(windows)
        if self.zooms is not None:
            batch = _zoom(batch, self.zooms[needed_M])
        if self.exchange is not None:
            rows_R, down, across = torch.tensor(rows), self.exchange.down, self.exchange.across
            place_N = torch.zeros(n, dtype=torch.int64).scatter_(0, needed_M, torch.arange(len(needed_M)))
            mixed_RCHW = batch[place_N[rows_R]]
            others_RCHW = batch[place_N[self.exchange.others[rows_R]]]
            mixed_RCHW[:, :, down, across] = others_RCHW[:, :, down, across]
            batch = mixed_RCHW
        return batch if self.jitter is None else self.jitter.of(batch, rows)


def draw_views(
    shape_NCHW: tuple[int, int, int, int],
    settings: Recovery,
    scale: PixelScale,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Views:
    """Draw what happens to each image of a batch of this shape, whose pixels are on this scale."""
    n, _, h, w = shape_NCHW
    pad = round(min(h, w) * settings.crop_fraction)
    return Views(
        shape_NCHW,
        flips=torch.rand(n, generator=generator) < 0.5 if settings.flip else None,
        pad=pad,
        pad_mode="replicate" if settings.crop_border == "edge" else "constant",
        corners=torch.randint(0, 2 * pad + 1, (2, n), generator=generator) if pad else None,
        zooms=_zooms(n, settings.zoom_fraction, generator) if settings.zoom_fraction else None,
        exchange=_exchange(n, h, w, generator, rng) if rng.random() < settings.cutmix_share else None,
        jitter=_jitter(n, settings, scale, generator) if settings.colour_jitter else None,
    )


def _zooms(n: int, least_area: float, generator: torch.Generator) -> Tensor:
    """A random crop per image with an area between `least_area` and 1, as (N, 2, 3) matrices for `affine_grid`."""
    area_N = torch.rand(n, generator=generator) * (1 - least_area) + least_area
    aspect_N = torch.exp(torch.rand(n, generator=generator) * 2 * _LOG_ASPECT - _LOG_ASPECT)
    sides_N2 = (area_N[:, None] * torch.stack([aspect_N, 1 / aspect_N], 1)).sqrt().clamp(max=1)
    centres_N2 = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - sides_N2)
    return torch.cat([torch.diag_embed(sides_N2), centres_N2[:, :, None]], 2)


def _zoom(batch_NCHW: Tensor, zooms_N23: Tensor) -> Tensor:
    """Each image's crop, resized to the whole image."""
    grid = F.affine_grid(zooms_N23, list(batch_NCHW.shape), align_corners=False)
    return F.grid_sample(batch_NCHW, grid, padding_mode="reflection", align_corners=False)


def _exchange(n: int, h: int, w: int, generator: torch.Generator, rng: np.random.Generator) -> Exchange:
    side = float(rng.random() ** 0.5)
    height, width = round(h * side), round(w * side)
    top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
    others_N = torch.randperm(n, generator=generator)
    return Exchange(slice(top, top + height), slice(left, left + width), others_N)


def _jitter(n: int, settings: Recovery, scale: PixelScale, generator: torch.Generator) -> Jitter:
    if settings.colour_jitter == "auto":
        raise ValueError("colour_jitter is not decided yet: settle the profile first")
    changes_3N = settings.colour_jitter * (torch.rand(3, n, generator=generator) * 2 - 1)
    saturation_N, contrast_N, brightness_N = changes_3N
    return Jitter(1 + saturation_N, 1 + contrast_N, brightness_N / 2, scale)
