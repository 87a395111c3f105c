"""LeNet-5 with half the channels and units: the student of Lopes, Fenu and Starner 2017, trained from scratch.

A factory for `architecture = "half_lenet.py:half_lenet"`: the benchmark copies it beside its checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class HalfLeNet(nn.Module):
    """Input (N, 1, 28, 28); output (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 5, padding=2)
        self.conv2 = nn.Conv2d(3, 8, 5)
        self.fc1 = nn.Linear(200, 60)
        self.fc2 = nn.Linear(60, 42)
        self.fc3 = nn.Linear(42, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def half_lenet() -> nn.Module:
    return HalfLeNet()
