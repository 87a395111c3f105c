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
    """Numbers. Of maps, P pixels of a map are told in one deviation; P is 1 where there are none."""

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """Mean of the squared errors, in variances of the teacher's values over the batch.

        A value that the teacher gives alike for the whole batch is compared with its own size.
        """
        return ((student_ND - teacher_ND) / self._spread_D(teacher_ND)).square().mean(1)

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """Differences from the reference's mean values, in its standard deviations."""
        return (outputs_ND - reference_ND.mean(0)) / self._spread_D(reference_ND)

    def mirrored(self, outputs_ND: Tensor) -> Tensor:
        """Maps are mirrored left to right; values stay."""
        if len(self.output.shape) != 3:
            return outputs_ND
        return outputs_ND.reshape(-1, *self.output.shape).flip(3).flatten(1)

    def _spread_D(self, reference_ND: Tensor) -> Tensor:
        """Standard deviation of each value, or of its map; of one that does not vary its size, and 1 if that is 0."""
        reference_NCP = reference_ND.reshape(len(reference_ND), -1, self.output.pixels)
        std_C = reference_NCP.std((0, 2), correction=0)
        size_C = reference_NCP.square().mean((0, 2)).sqrt()
        spread_C = torch.where(std_C > _CONSTANT * size_C, std_C, torch.where(size_C > 0, size_C, 1.0))
        return spread_C.repeat_interleave(self.output.pixels)
