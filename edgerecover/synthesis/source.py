"""What synthetic images are made from."""

# ruff: noqa: TID253 - holds a network; only stages import it, never the CLI's help

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.compute import Compute
from edgerecover.synthesis.record.values import Record


@dataclass(frozen=True)
class Source:
    """A dense teacher, and how it is computed."""

    teacher: nn.Module
    """From (N, C, H, W) inputs to (N, K) logits."""
    input: InputSpec
    """Shape and preprocessing of the teacher's inputs; its pixel range bounds the images."""
    num_classes: int
    """K."""
    compute: Compute
    """Device and precision."""
    record: Record | None = None
    """Statistics of the teacher's activations on real data, to match beside batch norm's."""
