"""Distillation of the dense teacher into the pruned student, under its mask, on synthetic images.

The teacher labels every view it is shown, so flips, shifts and mixtures of dreams are as good as dreams.
"""

# Shapes: N images in a batch, C channels, H height, W width.
# ruff: noqa: TID253 - a training loop over tensors; only the recovery stage imports it

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgerecover.config import Recovery, Synthesis
from edgerecover.distributed import Ranks
from edgerecover.errors import BadInputError
from edgerecover.models.network.norms import adapts, batch_norms_of
from edgerecover.pruning import apply_masks
from edgerecover.recovery.batches import Batches, fresh_dreams
from edgerecover.recovery.border import border_of
from edgerecover.recovery.checkpoints import Resumable, part_of
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.losses import comparable_blocks, loss_against_teacher
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.training import Safeguard, Training
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.record.values import Record

_MOMENTUM = 0.1
_LEAST_AT_ONCE = 16
"""Fewest images at once: batch norm normalises by them."""


@dataclass(frozen=True)
class Distilled:
    """How a distillation went."""

    num_steps: int
    """Steps behind the student: those asked for, or where it stood before its loss stopped being a number."""
    seconds: float = 0.0
    """Duration, including what an interrupted run had done."""
    diverged: bool = False
    """It was stopped because no lower learning rate helped."""
    warnings: tuple[str, ...] = ()


def distill(
    pair: Pair,
    images: ImageSet,
    settings: Recovery,
    execution: Execution,
    *,
    seed: int,
    synthesis: Synthesis | None = None,
    record: Record | None = None,
    carried: Mapping[str, Resumable] | None = None,
    watch: Callable[[int, float], Mapping[str, float]] | None = None,
    title: str = "distill",
) -> Distilled:
    """Train the student in place; it comes back in eval mode, and its pruned weights stay exactly zero.

    Where the loss or a weight stops being a number, training returns to where it last stood well and lowers the
    learning rate; after a few times it stops there.

    Args:
        pair: on the device of `execution`; across architectures, the ends of stages are compared.
        images: synthetic train set.
        settings: steps, rate, temperature and weights.
        execution: its processes share every batch and end with the same student; the first makes the fresh images,
            and it alone has checkpoints and what is `carried`.
        seed: of the order of images and their augmentation.
        synthesis: how `images` were made, so that a refresh can make more; None leaves refreshes out.
        record: of the teacher's activations, where `images` were made with one.
        carried: other state that changes with the steps, by name; it is recorded in checkpoints too.
        watch: gets every step, counted from 1, and its loss; returns more to show. It leaves the student as it is.
        title: of the progress bar.

    Raises:
        BadInputError: there are more processes than images in a batch.
        StageError: files that another process wrote do not appear on this one.
    """
    _check_shares(settings, images, execution.ranks)
    settings = _with_border(pair, images, settings, execution)
    blocks = comparable_blocks(pair, images, execution.compute) if settings.feature_weight else {}
    training = Training(pair.student, settings, len(images), seed)
    num_parts = pieces_of(training.batch_size, synthesis) if execution.ranks.size == 1 else 1
    with (
        execution.compute.without_slow_kernels(pair.student, pair.teacher),
        fresh_dreams(settings, synthesis, record, images, seed, execution) as fresh,
        _batch_norms(pair.student, settings.bn, num_parts),
        loss_against_teacher(pair, settings, execution, blocks) as loss_of,
    ):
        batches = Batches(images, settings, training, fresh, execution)

        def take_step() -> float:
            batches.refresh(pair, execution.progress)
            losses = (loss_of(x, len(x) / training.batch_size) for x in torch.chunk(batches.next(), num_parts))
            return training.learn(losses, pair.masks, execution.ranks)

        parts: dict[str, Resumable] = {"training": training, **(carried or {})}
        safeguard = Safeguard(training, parts | ({"fresh": fresh} if fresh else {}), execution)
        safeguard.resume(lambda state: fresh is None or fresh.has(part_of(state, "fresh")))
        safeguard.run(take_step, watch, title)
    pair.student.eval().requires_grad_(False)
    apply_masks(pair.student, pair.masks)
    return Distilled(training.step, safeguard.seconds, safeguard.has_given_up, tuple(safeguard.warnings))


def _check_shares(settings: Recovery, images: ImageSet, ranks: Ranks) -> None:
    if ranks.size > (batch_size := min(settings.batch_size, len(images))):
        raise BadInputError(
            f"{ranks.size} processes cannot share batches of {batch_size} images",
            hint="give the profile a larger recovery.batch_size, or start fewer processes",
        )


def _with_border(pair: Pair, images: ImageSet, settings: Recovery, execution: Execution) -> Recovery:
    """The settings with a border for shifted images, chosen by the teacher where they leave it to `auto`."""
    if settings.crop_border != "auto":
        return settings
    border = execution.ranks.from_first(lambda: border_of(pair.teacher, images, settings, execution.compute))
    return settings.model_copy(update={"crop_border": border})


def pieces_of(batch_size: int, synthesis: Synthesis | None) -> int:
    """In how many parts a batch goes through the networks: as many images at once as for dreams, but enough for BN."""
    at_once = batch_size if synthesis is None else synthesis.at_once(batch_size)
    return math.ceil(batch_size / max(_LEAST_AT_ONCE, at_once))


@contextmanager
def _batch_norms(student: nn.Module, bn: str, num_pieces: int = 1) -> Iterator[None]:
    """BN layers adapt or stay frozen, as the settings ask; adapting ones use PyTorch's default momentum.

    A network's own momentum is for its own training: None averages over all of it, and 0 never moves.
    """
    layers: list[Any] = [layer for layer in batch_norms_of(student).values() if adapts(layer)]
    own = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = _MOMENTUM / num_pieces
            layer.train(bn == "adapt")
        yield
    finally:
        for layer, momentum in zip(layers, own, strict=True):
            layer.momentum = momentum
            layer.eval()
