"""What a task's dreams aim at, and what teaches its student. Shapes: N images, D numbers for each."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

import abc

from torch import Tensor

from edgerecover.artifacts import OutputSpec

_RIVAL_TEMPERATURE = 4.0


class Objective(abc.ABC):
    """Targets and losses of one task, on logits or values (N, D).

    A network that ends in softmax or sigmoids gives what comes before them.
    """

    is_positional: bool = False
    """A target says what is to be where: what a dream shows may not be shifted."""
    can_read_targets: bool = True
    """`targets_of` tells which target outputs are of."""

    def __init__(self, output: OutputSpec) -> None:
        self.output = output

    @property
    @abc.abstractmethod
    def num_targets(self) -> int:
        """How many different targets a dream can be made for; 0: dreams follow the teacher's statistics alone."""

    @abc.abstractmethod
    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """What a dream's outputs cost beside its target, mean over images.

        Args:
            outputs_ND: of the teacher.
            targets_N: numbers below `num_targets`; None: no target, but outputs as sure as those of real images.
            temperature: T of T · loss(outputs / T): above 1, it goes on after the target is met.
        """

    @abc.abstractmethod
    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """The target (N,) that each image's outputs are nearest to; None where no target is near, or there are none."""

    @abc.abstractmethod
    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """What a student's outputs cost where they differ from the teacher's, for each image (N,).

        The temperature softens scores; it has no part where outputs are values.
        """

    @abc.abstractmethod
    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """How sure outputs are of what the reference answers: numbers that correlate where two networks see alike."""

    def mirrored(self, outputs_ND: Tensor) -> Tensor:
        """Outputs for the image that is mirrored left to right, where a network sees both alike: maps are mirrored."""
        return outputs_ND

    def disagreement(self, teacher_ND: Tensor, student_ND: Tensor) -> Tensor:
        """How far a student is from its teacher: mean over images of D / (1 + D), from 0 to 1.

        D is T² times the cost that teaches, with T = 4. Yin et al. 2020 (arXiv 1912.08795, equation 7) take the
        Jensen-Shannon divergence, which is bounded too; this is the quantity that distillation then lowers.
        """
        d_N = _RIVAL_TEMPERATURE**2 * self.costs(student_ND, teacher_ND, _RIVAL_TEMPERATURE)
        return (d_N / (1 + d_N)).mean()
