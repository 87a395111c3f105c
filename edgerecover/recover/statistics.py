"""Statistics repair: a pruned network's batch norm layers still hold the dense network's means and variances.

Re-estimated on synthetic images, and corrected for what those images are not: the teacher's own statistics on the
same images are compared with its stored ones, which came from real data.

    r      = stored var_t / var_t(synthetic)
    var_s  ← var_s(synthetic) · r
    mean_s ← mean_s(synthetic) + (stored mean_t - mean_t(synthetic)) · √(var_s(synthetic) / var_t(synthetic))

So the gap between synthetic and real images, which the teacher makes visible, is taken over in units of each network's
own standard deviation: a student's channel that pruning left with a tenth of its scale also moves by a tenth. (Moving
it by the teacher's whole shift destroys the student; docs/adr/0005 has the measurement.) All
variances are taken with BN's eps, as BN divides by them: a teacher repaired against itself does not change.
"""

# ruff: noqa: TID253 - works on tensors throughout; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgerecover.device import Compute
from edgerecover.models.channels import SAME_CHANNELS, ChannelMap
from edgerecover.progress import SILENT, Progress, Task
from edgerecover.ranks import ALONE, Ranks
from edgerecover.recover.checkpoints import NO_CHECKPOINTS, Checkpoint, Checkpoints, State
from edgerecover.synthesize.image_set import ImageSet
from edgerecover.synthesize.statistics import batch_norms_of, batch_statistics

_MAX_RATIO = 4.0
"""Largest correction of a variance, either way: channels that are nearly dead on dreams would explode without it."""


def repair_statistics(
    student: nn.Module,
    teacher: nn.Module,
    images: ImageSet,
    batch_size: int,
    compute: Compute,
    channels: ChannelMap = SAME_CHANNELS,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> None:
    """Give the student's BN layers the statistics of what they really see, in place.

    Args:
        student: on the device of `compute`; only its BN running statistics change.
        teacher: same device, unchanged; of another architecture, it has no say.
        images: synthetic train set.
        batch_size: images per forward; batches weigh alike, so a short last one is left out.
        compute: device and precision.
        channels: of a narrower student; where a layer's are not known, its statistics are taken as measured.
        checkpoints: where to go on from, and where to write how far it got.
        progress: where to report.
        ranks: that share the batches; each sees whole ones, as one process does.
    """
    kept = checkpoints.of("statistics-of-student"), checkpoints.of("statistics-of-teacher")
    num_passes = 2 if channels.related else 1
    taught_by_name: dict[str, Tensor] = {}
    with progress.task("statistics", num_passes * len(_starts(images, batch_size)), "batches") as task:
        student_statistics = _statistics_on(student, images, batch_size, compute, kept[0], task, ranks)
        if channels.related:
            taught_by_name = _stored_and_measured(teacher, images, batch_size, compute, kept[1], task, ranks)
    for name, layer in batch_norms_of(student).items():
        if name not in student_statistics or (channels.related and name not in taught_by_name):
            continue  # a layer that inference does not reach (an auxiliary head) keeps what it has
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean_s, var_s = student_statistics[name]
        kept_4C = channels.of_teacher(name, taught_by_name[name], dim=1) if name in taught_by_name else None
        if kept_4C is None:
            layer.running_mean.copy_(mean_s)
            layer.running_var.copy_(var_s)
            continue
        stored_mean, stored_var, mean_t, var_t = kept_4C
        eps = layer.eps
        ratio = ((stored_var + eps) / (var_t + eps)).clamp(1 / _MAX_RATIO, _MAX_RATIO)
        scale = ((var_s + eps) / (var_t + eps)).sqrt()
        layer.running_mean.copy_(mean_s + (stored_mean - mean_t) * scale)
        layer.running_var.copy_(((var_s + eps) * ratio - eps).clamp_min(0))
    for checkpoint in kept:
        checkpoint.discard()


def _stored_and_measured(
    teacher: nn.Module,
    images: ImageSet,
    batch_size: int,
    compute: Compute,
    checkpoint: Checkpoint,
    task: Task,
    ranks: Ranks,
) -> dict[str, Tensor]:
    """Of each BN layer that images reach, (4, C): stored mean and variance, and those on the images."""
    layers = batch_norms_of(teacher)
    taught = {}
    for name, measured in _statistics_on(teacher, images, batch_size, compute, checkpoint, task, ranks).items():
        mean_C, var_C = layers[name].running_mean, layers[name].running_var
        assert mean_C is not None
        assert var_C is not None
        taught[name] = torch.stack([mean_C, var_C, *measured])
    return taught


@torch.no_grad()
def _statistics_on(
    network: nn.Module,
    images: ImageSet,
    batch_size: int,
    compute: Compute,
    checkpoint: Checkpoint,
    task: Task,
    ranks: Ranks,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance at each BN's input over all images, while BN normalises with each batch's own statistics."""
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    num_done = 0
    if state := checkpoint.read():
        moments = {name: tuple(both.to(compute.device)) for name, both in state.tensors.items()}
        num_done = state.facts["num_done"]
        task.advance(num_done)

    def add(name: str, inputs: tuple[Tensor, ...]) -> None:
        mean_C, var_C = batch_statistics(inputs[0])
        first_C, second_C = moments.get(name, (torch.zeros_like(mean_C), torch.zeros_like(var_C)))
        moments[name] = first_C + mean_C, second_C + var_C + mean_C.square()

    batch_size, starts = min(batch_size, len(images)), _starts(images, batch_size)
    with normalising_by_batch(network, add):
        for number, start in enumerate(ranks.share(starts)[num_done:], num_done):
            if checkpoint.is_due():
                both = {name: torch.stack(pair) for name, pair in moments.items()}
                checkpoint.write(State(both, {"num_done": number}))
            with compute.autocast():
                network(compute.images(images.images_of(range(start, start + batch_size))))
            task.advance()
    moments = _sums_over(ranks, moments, compute)
    n = len(starts)
    return {
        name: (first_C / n, (second_C / n - (first_C / n).square()).clamp_min(0))
        for name, (first_C, second_C) in moments.items()
    }


def _sums_over(
    ranks: Ranks, moments: dict[str, tuple[Tensor, Tensor]], compute: Compute
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of all processes; one of them may have had no batch."""
    if ranks.size == 1:
        return moments
    sums: dict[str, Tensor] = {}
    for found in ranks.gathered({name: torch.stack(pair).cpu() for name, pair in moments.items()}):
        for name, pair in found.items():
            sums[name] = sums[name] + pair if name in sums else pair
    return {name: (pair[0].to(compute.device), pair[1].to(compute.device)) for name, pair in sums.items()}


def _starts(images: ImageSet, batch_size: int) -> range:
    batch_size = min(batch_size, len(images))
    return range(0, len(images) - batch_size + 1, batch_size)


@contextmanager
def normalising_by_batch(
    network: nn.Module, watch: Callable[[str, tuple[Tensor, ...]], None] = lambda _name, _inputs: None
) -> Iterator[None]:
    """BN layers use batch statistics and store nothing; `watch` gets each one's name and input."""
    layers = batch_norms_of(network)
    before = {name: (layer.momentum, layer.training) for name, layer in layers.items()}
    hooks = {name: (lambda _layer, inputs, name=name: watch(name, inputs)) for name in layers}
    handles = [layer.register_forward_pre_hook(hooks[name]) for name, layer in layers.items()]
    counts = {name: layer.num_batches_tracked for name, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.momentum = 0.0
            layer.num_batches_tracked = None
            layer.train()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, layer in layers.items():
            layer.momentum, training = before[name]
            layer.num_batches_tracked = counts[name]
            layer.train(training)
