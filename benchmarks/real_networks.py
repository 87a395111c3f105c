"""Small networks as people have them beyond one label, as factories for benchmarks/real_tasks.py.

Shapes: N images, H×W pixels, C channels, K classes, A candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FACE_WIDTHS = (64, 64, 128, 256, 512)
_FACE_BLOCKS = ((128, 5, 2, 2), (128, 1, 2, 4), (128, 6, 1, 2), (128, 1, 2, 4), (128, 2, 1, 2))
"""Of MobileFaceNet: channels, blocks, the first one's stride, how many times wider a block is inside."""
_STRIDES = (8, 16)
_NUM_BINS = 16


def conv(inputs: int, outputs: int, side: int = 3, stride: int = 1, activation: nn.Module | None = None) -> nn.Module:
    """A convolution with batch norm and an activation, ReLU if none is given."""
    layers = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outputs)
    return nn.Sequential(*layers, activation or nn.ReLU())


def call(module: nn.Module, x: Tensor) -> Tensor:
    """What a module gives."""
    return cast(Tensor, module(x))


# --- faces ------------------------------------------------------------------------------------------------------


class Inverted(nn.Module):
    """MobileFaceNet's block: wide inside, PReLU, no activation last."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        self.layers = nn.Sequential(
            conv(inputs, wide, 1, activation=nn.PReLU(wide)),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return call(self.layers, maps_NCHW) + (maps_NCHW if self.adds else 0)


class MobileFaceNet(nn.Module):
    """Chen et al. 2018 (arXiv 1804.07573): a depthwise convolution over the whole map, and batch norm last."""

    def __init__(self, *, normalises: bool = False) -> None:
        super().__init__()
        layers, inputs = [conv(3, 64, 3, 2, nn.PReLU(64))], 64
        for outputs, num, stride, factor in _FACE_BLOCKS:
            for number in range(num):
                layers.append(Inverted(inputs, outputs, stride if number == 0 else 1, factor))
                inputs = outputs
        layers.append(conv(inputs, 512, 1, activation=nn.PReLU(512)))
        self.body = nn.Sequential(*layers)
        self.whole = nn.Sequential(nn.Conv2d(512, 512, 7, groups=512, bias=False), nn.BatchNorm2d(512))
        self.last = nn.Sequential(nn.Conv2d(512, 128, 1, bias=False), nn.BatchNorm2d(128))
        self.normalises = normalises

    def forward(self, images_NCHW: Tensor) -> Tensor:
        vectors_ND = call(self.last, call(self.whole, call(self.body, images_NCHW))).flatten(1)
        return F.normalize(vectors_ND) if self.normalises else vectors_ND


class FaceBlock(nn.Module):
    """Of the ResNets of face recognition: batch norm first, PReLU in the middle."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            conv(inputs, outputs, activation=nn.PReLU(outputs)),
            nn.Conv2d(outputs, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return call(self.layers, maps_NCHW) + call(self.shortcut, maps_NCHW)


class FaceResNet(nn.Module):
    """As InsightFace's iresnet: a linear layer over the whole map after dropout, and batch norm last."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [FaceBlock(inputs, outputs) for inputs, outputs in pairwise(_FACE_WIDTHS)]
        self.body = nn.Sequential(conv(3, 64, activation=nn.PReLU(64)), *blocks, nn.BatchNorm2d(512), nn.Dropout(0.4))
        self.fc, self.norm = nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return call(self.norm, call(self.fc, call(self.body, images_NCHW).flatten(1)))


# --- from images to maps ----------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Two levels with shortcuts, enlarged by transposed convolutions or by interpolation."""

    def __init__(
        self, num_maps: int, last: Callable[[Tensor], Tensor] | None = None, *, transposed: bool = True
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(conv(a, b), conv(b, b)) for a, b in ((3, 16), (16, 32), (32, 64)))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * a, a, 2, 2) if transposed else nn.Conv2d(2 * a, a, 1) for a in (32, 16)
        )
        self.joint = nn.ModuleList(conv(2 * a, a) for a in (32, 16))
        self.maps = nn.Conv2d(16, num_maps, 1)
        self.last = last or nn.Identity()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        levels = [call(self.down[0], images_NCHW)]
        for layer in list(self.down)[1:]:
            levels.append(call(layer, F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, joint in zip(self.up, self.joint, strict=True):
            beside = levels.pop()
            x = F.interpolate(call(up, x), size=beside.shape[2:], mode="bilinear", align_corners=False)
            x = call(joint, torch.cat([x, beside], 1))
        return self.last(call(self.maps, x))


class Denoiser(nn.Module):
    """Subtracts the noise that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = UNet(3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return images_NCHW - call(self.noise, images_NCHW)


class SuperResolution(nn.Module):
    """An image twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 24), conv(24, 24), nn.Conv2d(24, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return call(self.body, images_NCHW)


# --- rows and points --------------------------------------------------------------------------------------------


class Row(nn.Module):
    """A few convolutions, pooled, and what is made of their numbers."""

    def __init__(self, num_outputs: int, last: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 24, stride=2), conv(24, 48, stride=2), conv(48, 96, stride=2), conv(96, 96))
        self.fc = nn.Linear(96, num_outputs)
        self.last = last or nn.Identity()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.last(call(self.fc, call(self.body, images_NCHW).mean((2, 3))))


def quantiles_of(values_ND: Tensor) -> Tensor:
    """The first value, and the others as steps up."""
    steps = [values_ND[:, :1], F.softplus(values_ND[:, 1:])]
    return torch.cat(steps, 1).cumsum(1)


class Ordinal(nn.Module):
    """One score against seven thresholds, as CORAL has them (Cao et al. 2020, arXiv 1901.07884)."""

    def __init__(self) -> None:
        super().__init__()
        self.score = Row(1)
        self.thresholds_K = nn.Parameter(torch.linspace(2, -2, 7))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return call(self.score, images_NCHW) + self.thresholds_K


# --- detectors --------------------------------------------------------------------------------------------------


class HeatMaps(nn.Module):
    """Heads at an eighth of the size: heat maps after a sigmoid, and as CenterNet has it sizes and offsets."""

    def __init__(self, num_maps: int, *, joins: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 24, stride=2), conv(24, 48, stride=2), conv(48, 96, stride=2))
        self.heat = nn.Conv2d(96, num_maps, 1)
        self.boxes = nn.Conv2d(96, 4, 1) if joins else None

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps_NCHW = call(self.body, images_NCHW)
        heat_NKHW = call(self.heat, maps_NCHW).sigmoid()
        return heat_NKHW if self.boxes is None else torch.cat([heat_NKHW, call(self.boxes, maps_NCHW)], 1)


class Backbone(nn.Module):
    """Maps at an eighth and a sixteenth of the size."""

    def __init__(self) -> None:
        super().__init__()
        layers = [conv(a, b, stride=2, activation=nn.SiLU()) for a, b in ((3, 16), (16, 32), (32, 64))]
        self.eighth, self.sixteenth = nn.Sequential(*layers), conv(64, 128, stride=2, activation=nn.SiLU())

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        eighth = call(self.eighth, images_NCHW)
        return eighth, call(self.sixteenth, eighth)


def cells_of(maps_NCHW: Tensor) -> Tensor:
    """Centres x and y of the cells of a map, in cells (2, H, W)."""
    height, width = maps_NCHW.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y]).to(maps_NCHW)


class YoloV8(nn.Module):
    """Two scales without anchors; distances to the sides as means of distributions (DFL). Output (N, 4 + K, A)."""

    def __init__(self, num_classes: int = 20) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.sides = nn.ModuleList(nn.Conv2d(width, 4 * _NUM_BINS, 1) for width in (64, 128))
        self.classes = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in (64, 128))
        self.mean = nn.Conv2d(_NUM_BINS, 1, 1, bias=False).requires_grad_(False)
        self.mean.weight.data[:] = torch.arange(float(_NUM_BINS)).view(1, -1, 1, 1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        parts = []
        for maps, stride, sides, classes in zip(
            self.backbone(images_NCHW), _STRIDES, self.sides, self.classes, strict=True
        ):
            bins_N4BA = call(sides, maps).flatten(2).view(len(maps), 4, _NUM_BINS, -1)
            left_top, right_bottom = call(self.mean, bins_N4BA.transpose(1, 2).softmax(1)).squeeze(1).chunk(2, 1)
            middle = cells_of(maps).flatten(1) + (right_bottom - left_top) / 2
            scores_NKA = call(classes, maps).flatten(2).sigmoid()
            parts.append(torch.cat([middle * stride, (left_top + right_bottom) * stride, scores_NKA], 1))
        return torch.cat(parts, 2)


class YoloV5(nn.Module):
    """Two scales with three anchors each; a score before the classes says whether there is an object. (N, A, 5 + K)."""

    anchors_px = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)))

    def __init__(self, num_classes: int = 20, *, multiplies: bool = False) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * (5 + num_classes), 1) for width in (64, 128))
        self.multiplies = multiplies

    def forward(self, images_NCHW: Tensor) -> Tensor:
        parts = []
        for maps, stride, head, anchors in zip(
            self.backbone(images_NCHW), _STRIDES, self.heads, self.anchors_px, strict=True
        ):
            values = call(head, maps).unflatten(1, (3, -1)).sigmoid()
            middle = (values[:, :, :2] * 2 - 1 + cells_of(maps)) * stride
            sides = (values[:, :, 2:4] * 2) ** 2 * torch.tensor(anchors).view(1, 3, 2, 1, 1).to(maps)
            scores = values[:, :, 4:5] * values[:, :, 5:] if self.multiplies else values[:, :, 4:]
            parts.append(torch.cat([middle, sides, scores], 2).permute(0, 1, 3, 4, 2).flatten(1, 3))
        return torch.cat(parts, 1)
