"""Networks without batch norm for benchmarks/no_batch_norm.py, as factories; copied beside their checkpoints.

Three kinds of what keeps to a scale without norms: plain ReLUs with max pooling, saturating activations, and squeezes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainVGG(nn.Module):
    """Six convolutions and two linear layers. Input (N, 1, 28, 28); output (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(64 * 9, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.classifier(self.features(images_NCHW).flatten(1))
        return logits_NK


class TanhLeNet(nn.Module):
    """LeNet with tanh and max pooling. Input (N, 1, 28, 28); output (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 5, padding=2)
        self.conv2 = nn.Conv2d(12, 24, 5)
        self.fc1 = nn.Linear(600, 120)
        self.fc2 = nn.Linear(120, 10)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        x = F.max_pool2d(torch.tanh(self.conv1(images_NCHW)), 2)
        x = F.max_pool2d(torch.tanh(self.conv2(x)), 2).flatten(1)
        logits_NK: Tensor = self.fc2(torch.tanh(self.fc1(x)))
        return logits_NK


class Fire(nn.Module):
    """SqueezeNet's block: 1×1 squeeze, then 1×1 and 3×3 side by side (Iandola et al. 2016, arXiv 1602.07360)."""

    def __init__(self, before: int, squeezed: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.one = nn.Conv2d(squeezed, width, 1)
        self.three = nn.Conv2d(squeezed, width, 3, padding=1)

    def forward(self, features_NCHW: Tensor) -> Tensor:
        x = F.relu(self.squeeze(features_NCHW))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class TinySqueezeNet(nn.Module):
    """A stem, four fires and a convolution over classes. Input (N, 3, 32, 32); output (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.fire1, self.fire2 = Fire(32, 12, 32), Fire(64, 16, 32)
        self.fire3, self.fire4 = Fire(64, 16, 48), Fire(96, 24, 64)
        self.head = nn.Conv2d(128, 10, 1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(images_NCHW)), 2)
        x = F.max_pool2d(self.fire2(self.fire1(x)), 2)
        logits_NK: Tensor = self.head(self.fire4(self.fire3(x))).mean((2, 3))
        return logits_NK


def plain_vgg() -> nn.Module:
    return PlainVGG()


def tanh_lenet() -> nn.Module:
    return TanhLeNet()


def tiny_squeezenet() -> nn.Module:
    return TinySqueezeNet()
