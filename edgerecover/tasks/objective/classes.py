"""One of K classes, and yes or no. Shapes: N images, D numbers for each, K classes."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.tasks.objective.base import Objective


class OneLabelObjective(Objective):
    """One of K classes."""

    @property
    def num_targets(self) -> int:
        """K."""
        return self.output.shape[0]

    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """Cross entropy to the target class; without one, the entropy of the classes."""
        logits_NK = self._logits(outputs_ND)
        if targets_N is not None:
            return temperature * F.cross_entropy(logits_NK / temperature, targets_N)
        log_p = F.log_softmax(logits_NK, dim=1)
        return -(log_p.exp() * log_p).sum(1).mean()

    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """The class with the highest score."""
        return self._logits(outputs_ND).argmax(1)

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """KL(teacher ‖ student) of the softened logits, in nats (Hinton et al. 2015, arXiv 1503.02531)."""
        log_q, log_p = (F.log_softmax(self._logits(x) / temperature, 1) for x in (student_ND, teacher_ND))
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """The logit of the class that the reference chooses, minus that of each other class."""
        chosen_N1, logits_NK = self._logits(reference_ND).argmax(1, keepdim=True), self._logits(outputs_ND)
        return logits_NK.gather(1, chosen_N1) - logits_NK

    def _logits(self, outputs_ND: Tensor) -> Tensor:
        return outputs_ND


class BinaryObjective(OneLabelObjective):
    """Yes or no: the logits of two classes are 0 and the only score."""

    @property
    def num_targets(self) -> int:
        """No and yes."""
        return 2

    def _logits(self, outputs_ND: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(outputs_ND), outputs_ND], 1)
