"""Any number of K labels. Shapes: N images, K labels."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.tasks.objective.base import Objective


class MultiLabelObjective(Objective):
    """Each of K labels for itself. Targets are sets of one label, then of two."""

    @property
    def num_targets(self) -> int:
        """K labels and K · (K - 1) / 2 pairs."""
        num_labels = self.output.shape[0]
        return num_labels * (num_labels + 1) // 2

    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """Binary cross entropy to the target set; without one, the entropy of each label. Summed over labels."""
        if targets_N is not None:
            softened, labels_NK = outputs_ND / temperature, self.labels_of(targets_N).to(outputs_ND)
            costs_NK = temperature * F.binary_cross_entropy_with_logits(softened, labels_NK, reduction="none")
        else:
            costs_NK = F.binary_cross_entropy_with_logits(outputs_ND, outputs_ND.sigmoid(), reduction="none")
        return costs_NK.sum(1).mean()

    def labels_of(self, targets_N: Tensor) -> Tensor:
        """Whether each label is in a target (N, K).

        Target t is label t modulo K, with the label t // K further on, round the end: any K targets in a row have
        every label equally often.
        """
        num_labels = self.output.shape[0]
        first_N, step_N = targets_N % num_labels, targets_N // num_labels
        labels_N2 = torch.stack([first_N, (first_N + step_N) % num_labels], 1)
        chosen_NK = torch.zeros(len(targets_N), num_labels, dtype=torch.bool, device=targets_N.device)
        return chosen_NK.scatter(1, labels_N2, True)

    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """The likeliest label, with the second likeliest where it holds."""
        num_labels = self.output.shape[0]
        if num_labels == 1:
            return torch.zeros(len(outputs_ND), dtype=torch.int64, device=outputs_ND.device)
        logits_N2, labels_N2 = outputs_ND.topk(2, dim=1)
        low_N, high_N = labels_N2.amin(1), labels_N2.amax(1)
        step_N = high_N - low_N
        # The shorter way round from one to the other.
        goes_round_N = 2 * step_N > num_labels
        first_N = torch.where(goes_round_N, high_N, low_N)
        step_N = torch.where(goes_round_N, num_labels - step_N, step_N)
        return torch.where(logits_N2[:, 1] > 0, first_N + num_labels * step_N, labels_N2[:, 0])

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """KL(teacher ‖ student) of each label's softened yes or no, in nats, summed over labels."""
        return divergence(student_ND, teacher_ND, temperature).sum(1)

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """How much surer of each label than the reference is on average: most labels are off in most images."""
        return outputs_ND - reference_ND.mean(0)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) of the softened yes or no that each logit stands for, in nats, in the shape of both."""
    # Two classes for each logit, whose logits are 0 and its own.
    log_q, log_p = (F.logsigmoid(torch.stack([-x, x]) / temperature) for x in (student, teacher))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(0)
