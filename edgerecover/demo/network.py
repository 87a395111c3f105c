"""The demo's classifier: a small residual BN convnet for 8×8 grey digits (19,706 parameters).

Shapes: N images, C channels, H×W pixels, K classes.
"""

# The module is an nn.Module; only a run that builds the demo's network imports it.
# ruff: noqa: TID253

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 16
NUM_CLASSES = 10


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each with BN, and a shortcut that is projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, features_NCHW: Tensor) -> Tensor:
        """Features in, features out; H and W shrink by the stride."""
        inner_NCHW = torch.relu(self.bn1(self.conv1(features_NCHW)))
        return torch.relu(self.bn2(self.conv2(inner_NCHW)) + self.shortcut(features_NCHW))


class DigitsNet(nn.Module):
    """Stem, two residual blocks, global average pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.block1 = ResidualBlock(WIDTH, WIDTH, stride=1)
        self.block2 = ResidualBlock(WIDTH, 2 * WIDTH, stride=2)
        self.fc = nn.Linear(2 * WIDTH, NUM_CLASSES)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalized images, (N, 1, 8, 8), to logits, (N, 10)."""
        features_NCHW = self.block2(self.block1(self.stem(images_NCHW)))
        logits_NK: Tensor = self.fc(features_NCHW.mean(dim=(2, 3)))
        return logits_NK


def digits_net() -> DigitsNet:
    """Build the network with fresh random weights."""
    return DigitsNet()
