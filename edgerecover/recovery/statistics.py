"""Statistics repair: a pruned network's batch norm layers still hold the dense network's means and variances.

They are re-estimated on synthetic images and corrected for the gap between those and real images: the teacher's
statistics on the same images are compared with its stored ones, which came from real data.

    r      = stored var_t / var_t(synthetic)
    var_s  ← var_s(synthetic) · r
    mean_s ← mean_s(synthetic) + (stored mean_t - mean_t(synthetic)) · √(var_s(synthetic) / var_t(synthetic))

So the gap between synthetic and real images, which the teacher makes visible, is applied in units of each network's own
standard deviation: a student's channel that pruning left with a tenth of its scale also moves by a tenth. (Moving
it by the teacher's whole shift destroys the student; docs/adr/0005 has the measurement.) All
variances are taken with BN's eps, as BN divides by them: a teacher repaired against itself does not change.
"""

# ruff: noqa: TID253 - works on tensors throughout; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from edgerecover.compute import Compute
from edgerecover.distributed import Ranks
from edgerecover.models.network.norms import Normalisation, batch_norms_of, eps_of, normalising, stored_by
from edgerecover.progress import Task
from edgerecover.recovery.checkpoints import Checkpoint, State
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.statistics import Moments, moments_of

_MAX_RATIO = 4.0
"""Largest correction of a variance, either way: channels that are nearly dead on dreams would explode without it."""


def repair_statistics(pair: Pair, images: ImageSet, batch_size: int, execution: Execution) -> None:
    """Give the student's BN layers the statistics of what they really see, in place.

    Args:
        pair: on the device of `execution`; only the student's BN running statistics change. A teacher of another
            architecture is not consulted; where a layer's channels are not known, its statistics are taken as measured.
        images: synthetic train set.
        batch_size: images per forward; batches have equal weight, so a short last one is skipped.
        execution: its processes share the batches; each sees whole ones, as a single process does.
    """
    student, teacher, channels, checkpoints = pair.student, pair.teacher, pair.channels, execution.checkpoints
    kept = checkpoints.of("statistics-of-student"), checkpoints.of("statistics-of-teacher")
    num_passes = 2 if channels.related else 1
    teacher_statistics: dict[str, Tensor] = {}
    with execution.progress.task("statistics", num_passes * len(_starts(images, batch_size)), "batches") as task:
        student_statistics = _statistics_on(student, images, batch_size, execution, kept[0], task)
        if channels.related:
            teacher_statistics = _teacher_statistics(teacher, images, batch_size, execution, kept[1], task)
    for name, layer in batch_norms_of(student).items():
        if name not in student_statistics or (channels.related and name not in teacher_statistics):
            continue  # a layer that inference does not reach (an auxiliary head) keeps what it has
        own_mean, own_var = stored_by(layer)
        mean_s, var_s = student_statistics[name]
        kept_4C = channels.of_teacher(name, teacher_statistics[name], dim=1) if name in teacher_statistics else None
        if kept_4C is None:
            own_mean.copy_(mean_s)
            own_var.copy_(var_s)
            continue
        mean_C, var_C = correct_statistics(mean_s, var_s, kept_4C, eps_of(layer))
        own_mean.copy_(mean_C)
        own_var.copy_(var_C)
    for checkpoint in kept:
        checkpoint.discard()


def correct_statistics(mean_s: Tensor, var_s: Tensor, taught_4C: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Estimate the statistics (C,) of a student's layer on real images from those on synthetic ones.

    Args:
        mean_s: mean on the synthetic images.
        var_s: biased variance on the synthetic images.
        taught_4C: stored mean and variance of the teacher's layer, then its mean and variance on the same images.
        eps: of the layer.
    """
    stored_mean, stored_var, mean_t, var_t = taught_4C
    ratio = ((stored_var + eps) / (var_t + eps)).clamp(1 / _MAX_RATIO, _MAX_RATIO)
    scale = ((var_s + eps) / (var_t + eps)).sqrt()
    return mean_s + (stored_mean - mean_t) * scale, ((var_s + eps) * ratio - eps).clamp_min(0)


def _teacher_statistics(
    teacher: nn.Module,
    images: ImageSet,
    batch_size: int,
    execution: Execution,
    checkpoint: Checkpoint,
    task: Task,
) -> dict[str, Tensor]:
    """Per BN layer that images reach, (4, C): stored mean and variance, then mean and variance on the images."""
    layers = batch_norms_of(teacher)
    statistics = {}
    for name, measured in _statistics_on(teacher, images, batch_size, execution, checkpoint, task).items():
        statistics[name] = torch.stack([*(values_C.float() for values_C in stored_by(layers[name])), *measured])
    return statistics


@torch.no_grad()
def _statistics_on(
    network: nn.Module,
    images: ImageSet,
    batch_size: int,
    execution: Execution,
    checkpoint: Checkpoint,
    task: Task,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance at each BN's input over all images, while BN normalises with each batch's own statistics."""
    compute, ranks = execution.compute, execution.ranks
    found: dict[str, Moments] = {}
    num_done = 0
    if state := checkpoint.read():
        counts = state.facts["counts"]
        found = {name: Moments(counts[name], *both.to(compute.device)) for name, both in state.tensors.items()}
        num_done = state.facts["num_done"]
        task.advance(num_done)

    def add(name: str, moments: Moments) -> None:
        found[name] = found[name] + moments if name in found else moments

    batch_size, starts = min(batch_size, len(images)), _starts(images, batch_size)
    with normalising_by_batch(network, add):
        for number, start in enumerate(ranks.share(starts)[num_done:], num_done):
            if checkpoint.is_due():
                both = {name: torch.stack([moments.mean_C, moments.var_C]) for name, moments in found.items()}
                counts = {name: moments.count for name, moments in found.items()}
                checkpoint.write(State(both, {"num_done": number, "counts": counts}))
            with compute.autocast():
                network(compute.images(images.images_of(range(start, start + batch_size))))
            task.advance()
    return {name: (moments.mean_C, moments.var_C) for name, moments in _combine(ranks, found, compute).items()}


def _combine(ranks: Ranks, found: dict[str, Moments], compute: Compute) -> dict[str, Moments]:
    """Combine the moments of all processes; some may have had no batch."""
    if ranks.size == 1:
        return found
    together: dict[str, Moments] = {}
    own = {name: Moments(moments.count, moments.mean_C.cpu(), moments.var_C.cpu()) for name, moments in found.items()}
    for part in ranks.gathered(own):
        for name, moments in part.items():
            together[name] = together[name] + moments if name in together else moments
    return {
        name: Moments(moments.count, moments.mean_C.to(compute.device), moments.var_C.to(compute.device))
        for name, moments in together.items()
    }


def _starts(images: ImageSet, batch_size: int) -> range:
    batch_size = min(batch_size, len(images))
    return range(0, len(images) - batch_size + 1, batch_size)


@contextmanager
def normalising_by_batch(
    network: nn.Module,
    watch: Callable[[str, Moments], None] = lambda _name, _moments: None,
    names: Collection[str] | None = None,
) -> Iterator[None]:
    """BN layers use each input's own statistics and store nothing; `watch` gets each call's layer and moments.

    `names` are of the layers that do; None stands for all.
    """

    def by_batch(name: str, layer: nn.Module) -> Callable[[Tensor], Normalisation]:
        def measure(x_NC: Tensor) -> Normalisation:
            moments = moments_of(layer, x_NC)
            watch(name, moments)
            return Normalisation(x_NC, moments.mean_C, moments.var_C)

        return measure

    with ExitStack() as stack:
        for name, layer in batch_norms_of(network).items():
            if names is None or name in names:
                stack.enter_context(normalising(layer, by_batch(name, layer)))
        yield
