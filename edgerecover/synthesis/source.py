"""What synthetic images are made from."""

# ruff: noqa: TID253 - holds a network; only stages import it, never the CLI's help

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.compute import Compute
from edgerecover.synthesis.record.values import Record
from edgerecover.tasks.objective import Objective, objective_of


@dataclass(frozen=True)
class Source:
    """A dense teacher, and how it is computed."""

    teacher: nn.Module
    """From (N, C, H, W) inputs to (N, D) logits."""
    input: InputSpec
    """Shape and preprocessing of the teacher's inputs; its pixel range bounds the images."""
    output: OutputSpec
    """Of the teacher, which says what its images aim at."""
    compute: Compute
    """Device and precision."""
    record: Record | None = None
    """Statistics of the teacher's activations on real data, to match beside batch norm's."""

    @property
    def objective(self) -> Objective:
        """What its images aim at."""
        return objective_of(self.output.as_logits)
