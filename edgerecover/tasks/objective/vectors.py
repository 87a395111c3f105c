"""Embeddings and numbers. Shapes: N images, D numbers for each."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.tasks.objective.base import Objective

_CONSTANT = 1e-5
"""Of its size: a value that varies by less differs by rounding alone."""


class _WithoutTargets(Objective):
    """Dreams follow the teacher's statistics alone: no direction and no number is more likely than others."""

    @property
    def num_targets(self) -> int:
        """None."""
        return 0

    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """0, with gradients of 0.

        Raises:
            ValueError: there are targets.
        """
        if targets_N is not None:
            raise ValueError("there are no targets for this task")
        return 0 * outputs_ND.sum()

    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """None."""
        return None


class EmbeddingObjective(_WithoutTargets):
    """The direction of a vector."""

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """1 − cosine, 0 to 2."""
        return 1 - F.cosine_similarity(student_ND, teacher_ND, dim=1)

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """Directions, less what the reference's have in common."""
        return F.normalize(outputs_ND, dim=1) - F.normalize(reference_ND, dim=1).mean(0)


class RegressionObjective(_WithoutTargets):
    """Numbers."""

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """Mean of the squared errors, in variances of the teacher's values over the batch.

        A value that the teacher gives alike for the whole batch is compared with its own size.
        """
        return ((student_ND - teacher_ND) / _spread_D(teacher_ND)).square().mean(1)

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """Differences from the reference's mean values, in its standard deviations."""
        return (outputs_ND - reference_ND.mean(0)) / _spread_D(reference_ND)


def _spread_D(reference_ND: Tensor) -> Tensor:
    """Standard deviation of each value; of one that does not vary its size, and 1 if that is 0."""
    std_D, size_D = reference_ND.std(0, correction=0), reference_ND.square().mean(0).sqrt()
    return torch.where(std_D > _CONSTANT * size_D, std_D, torch.where(size_D > 0, size_D, torch.ones_like(size_D)))
