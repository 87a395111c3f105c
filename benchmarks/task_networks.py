"""Small networks with batch norm for benchmarks/tasks.py, one factory per task; copied beside their checkpoints.

Shapes: N images, C channels, H height, W width, D outputs, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions and a shortcut; the first one may halve height and width."""

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(num_inputs, num_outputs, 1, stride, bias=False), nn.BatchNorm2d(num_outputs)
        )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        within = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps_NCHW)))))
        return F.relu(within + self.shortcut(maps_NCHW))


def _stem(num_channels: int, num_outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(num_channels, num_outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(num_outputs), nn.ReLU())


class Pooled(nn.Module):
    """A small ResNet. Input (N, 1, H, W); output (N, D), from the mean over what is left of height and width."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.stem = _stem(1, 16)
        self.blocks = nn.Sequential(Block(16, 24, 2), Block(24, 40, 2), Block(40, 56, 2))
        self.head = nn.Linear(56, num_outputs)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        outputs_ND: Tensor = self.head(self.blocks(self.stem(images_NCHW)).mean((2, 3)))
        return outputs_ND


class Decoded(nn.Module):
    """Down to an eighth of the size and back up. Input (N, 3, H, W), multiples of 8; output (N, K, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = _stem(3, 16, stride=2)
        self.down1 = Block(16, 32, 2)
        self.down2 = Block(32, 48, 2)
        self.from2 = nn.Sequential(nn.Conv2d(48, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.up1 = _stem(32, 32)
        self.from1 = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.up0 = _stem(16, 16)
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps0 = self.stem(images_NCHW)
        maps1 = self.down1(maps0)
        maps2 = self.down2(maps1)
        maps1 = self.up1(F.relu(maps1 + _doubled(self.from2(maps2))))
        maps0 = self.up0(F.relu(maps0 + _doubled(self.from1(maps1))))
        return _doubled(self.head(maps0))


def _doubled(maps_NCHW: Tensor) -> Tensor:
    return F.interpolate(maps_NCHW, scale_factor=2.0, mode="bilinear", align_corners=False)


def binary() -> Pooled:
    return Pooled(1)


def multi_label() -> Pooled:
    return Pooled(10)


def embedding() -> Pooled:
    return Pooled(32)


def regression() -> Pooled:
    return Pooled(3)


def segmentation() -> Decoded:
    return Decoded(4)
