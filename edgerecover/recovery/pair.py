"""What every rung of recovery works on: a pruned student and the teacher it learns from."""

# ruff: noqa: TID253 - works on networks; only the recovery stage imports it

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from edgerecover.artifacts import OutputSpec
from edgerecover.compute import Compute
from edgerecover.models.pair.channels import SAME_CHANNELS, ChannelMap
from edgerecover.tasks.measure import Measure, measure_of
from edgerecover.tasks.objective import Objective, objective_of

if TYPE_CHECKING:
    from edgerecover.models.pair.networks import Models


@dataclass(frozen=True)
class Pair:
    """A pruned student and its teacher, on one device and in eval mode."""

    student: nn.Module
    """Rungs change its weights in place."""
    teacher: nn.Module
    """Never changed; both give logits. It may be wider than the student or, where `channels` says so, of another
    architecture."""
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """Weight name to kept positions (bool); weights outside are zero and stay exactly zero."""
    channels: ChannelMap = SAME_CHANNELS
    """Which of the teacher's channels a narrower student has kept."""
    output: OutputSpec = field(kw_only=True)
    """Of both networks, as logits: it says what agreement means, and what teaches."""

    @property
    def measure(self) -> Measure:
        """What agreement of the two means."""
        return measure_of(self.output)

    @property
    def objective(self) -> Objective:
        """What teaches the student."""
        return objective_of(self.output)

    @classmethod
    def of(cls, models: Models) -> Pair:
        """The student of opened models with its teacher."""
        return cls(models.student, models.teacher, models.masks, models.channels, output=models.output.as_logits)

    def copy_to(self, compute: Compute) -> Pair:
        """Copy both networks and the masks to the device of `compute`, in eval mode and without gradients."""
        student, teacher = (
            compute.place(copy.deepcopy(network)).eval().requires_grad_(False)
            for network in (self.student, self.teacher)
        )
        masks = {name: mask.to(compute.device) for name, mask in self.masks.items()}
        return replace(self, student=student, teacher=teacher, masks=masks)
