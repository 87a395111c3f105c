"""What a student's outputs and activations cost where they differ from its teacher's.

loss = kd_weight · T² · cost(student, teacher at temperature T)           of classes: Hinton et al. 2015, 1503.02531
     + feature_weight · mean over blocks of ‖f_s - f_t‖² / ‖f_t‖²         FitNets' idea, Romero et al. 2015
"""

# Shapes: N images in a batch, C channels, H height, W width, D outputs for each image.
# ruff: noqa: TID253 - losses over tensors; only distillation imports it

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.compute import Compute
from edgerecover.config import Recovery
from edgerecover.distributed import ALONE, Ranks
from edgerecover.models.pair.channels import SAME_CHANNELS, ChannelMap
from edgerecover.recovery.blocks import block_names, capture_outputs, stage_ends
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.matched_norms import matched_norms
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.tasks.objective import Objective

Loss = Callable[[Tensor, float], Tensor]
"""From part of a batch (N, C, H, W) and its share of the batch, 0 to 1, to its part of the batch's loss."""


@contextmanager
def loss_against_teacher(
    pair: Pair, settings: Recovery, execution: Execution, blocks: Mapping[str, str]
) -> Iterator[Loss]:
    """Inside, BN layers of both networks normalise by the batch, and both networks' block outputs are captured.

    Args:
        pair: on the device of `execution`.
        settings: weights of the terms, temperature.
        execution: device, precision, and the processes that share every batch.
        blocks: as `comparable_blocks` gives them; none leaves the feature term out.
    """
    with (
        matched_norms(pair.student, pair.teacher, execution.ranks, pair.channels) as matching,
        capture_outputs(pair.student, tuple(blocks)) as student_features,
        capture_outputs(pair.teacher, tuple(blocks.values())) as teacher_features,
    ):

        def loss_of(part_NCHW: Tensor, share: float) -> Tensor:
            with matching.batch(), execution.compute.autocast():
                with torch.no_grad():
                    teacher_ND = pair.teacher(part_NCHW)
                student_ND = pair.student(part_NCHW)
            loss = settings.kd_weight * kd_loss(student_ND.float(), teacher_ND.float(), pair.objective, settings)
            if teacher_features:
                wanted = {name: teacher_features[its] for name, its in blocks.items() if its in teacher_features}
                features = feature_loss(student_features, wanted, pair.channels, share, execution.ranks)
                loss = loss + settings.feature_weight * features
            return share * loss

        yield loss_of


def comparable_blocks(pair: Pair, images: ImageSet, compute: Compute) -> dict[str, str]:
    """Names of the student's blocks, each with the teacher's block it is compared with.

    Across architectures, only the ends of stages are comparable; one image is run to find them.
    """
    if pair.channels.related:
        return {name: name for name in block_names(pair.student)}
    return stage_ends(pair.student, pair.teacher, compute.images(images.images_of(range(1))))


def kd_loss(student_ND: Tensor, teacher_ND: Tensor, objective: Objective, settings: Recovery) -> Tensor:
    """What the task's outputs cost, mean over images; times T² when the settings say so."""
    t = settings.temperature
    cost = objective.costs(student_ND, teacher_ND, t).mean()
    return cost * t * t if settings.scale_by_temperature_squared else cost


def feature_loss(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    channels: ChannelMap = SAME_CHANNELS,
    share: float = 1.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over blocks of the squared error as a fraction of the teacher's mean square, so blocks have equal weight.

    For a narrower student, the channels that both have are compared; blocks where these are unknown are skipped. For
    another architecture, all channels are compared: the student has yet to learn what its channels are for. When
    several processes share a batch, this is the error on one's `share`, as a fraction of the mean square on all of it.
    """
    errors, squares = [], []
    for name, f_s in student.items():
        f_t = teacher[name].float() if name in teacher else None
        if f_t is not None and channels.related:
            f_t = channels.of_teacher(name, f_t, dim=1)
        if f_t is not None and f_t.shape == f_s.shape:
            errors.append(F.mse_loss(f_s.float(), f_t))
            squares.append(f_t.square().mean())
    if not errors:
        return next(iter(teacher.values())).new_zeros((), dtype=torch.float32)
    square = torch.stack(squares)
    square = ranks.sum(share * square) if ranks.size > 1 else square
    return (torch.stack(errors) / square.clamp_min(1e-6)).mean()
