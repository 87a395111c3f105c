"""The batches that a distillation shows: views of dreams, and of fresh dreams once there are any."""

# Shapes: N images in a batch, M places in it, H half of a batch, C channels, H height, W width.
# ruff: noqa: TID253 - tensors throughout; only distillation imports it

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgerecover.config import Recovery, Synthesis
from edgerecover.distributed import wait_for_file
from edgerecover.progress import Progress
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.refresh import FreshDreams
from edgerecover.recovery.training import Training
from edgerecover.recovery.views import augment, draw_views
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.record.values import Record


class Batches:
    """Draws one batch after another; with several processes, each makes its own rows of it."""

    def __init__(
        self,
        images: ImageSet,
        settings: Recovery,
        training: Training,
        fresh: FreshDreams | None,
        execution: Execution,
    ) -> None:
        """Draw from `images` in the order and with the random numbers of `training`."""
        self._images, self._settings, self._training = images, settings, training
        self._fresh, self._compute, self._ranks = fresh, execution.compute, execution.ranks

    def next(self) -> Tensor:
        """Network inputs (N, C, H, W), this process's rows of the next batch."""
        chosen = Chosen(self._images, self._training.next_batch(), self._fresh)
        views = draw_views(
            chosen.shape_NCHW, self._settings, self._images.scale, self._training.generator, self._training.rng
        )
        rows = self._ranks.rows(chosen.shape_NCHW[0])
        return self._compute.images(views.of(chosen.images_at(views.needed(rows)), rows))

    def refresh(self, pair: Pair, progress: Progress) -> None:
        """Make fresh images where they are due: the first process makes them, and all of them then have them."""
        if self._fresh is None or not self._fresh.is_due(self._training.step, self._settings.num_steps):
            return
        if self._ranks.is_first:
            self._fresh.refresh(pair, self._view, progress)
        self._share(self._fresh)

    def _view(self, batch_NCHW: Tensor) -> Tensor:
        return augment(batch_NCHW, self._settings, self._images.scale, self._training.generator, self._training.rng)

    def _share(self, fresh: FreshDreams) -> None:
        """Give the other processes the first one's fresh images and random numbers."""
        if self._ranks.size == 1:
            return
        state, random_state = self._ranks.from_first(lambda: (fresh.state(), self._training.random_state()))
        if self._ranks.is_first:
            return
        wait_for_file(lambda: fresh.has(state) or None, f"{fresh.folder}: the fresh images")
        fresh.restore(state)
        self._training.set_random_state(random_state)


def fresh_dreams(
    settings: Recovery,
    synthesis: Synthesis | None,
    record: Record | None,
    images: ImageSet,
    seed: int,
    execution: Execution,
) -> FreshDreams | AbstractContextManager[None]:
    """Fresh images as the settings ask for them, in one folder for all processes; None where they ask for none."""
    if settings.refresh is None or synthesis is None:
        return nullcontext()
    folder = execution.checkpoints.folder / "fresh" if execution.checkpoints.folder else None
    if not execution.ranks.is_first:
        folder = execution.ranks.from_first(lambda: folder)
        return FreshDreams(settings.refresh, synthesis, record, images, execution.compute, seed, folder)
    fresh = FreshDreams(settings.refresh, synthesis, record, images, execution.compute, seed, folder)
    execution.ranks.from_first(lambda: fresh.folder)
    return fresh


class Chosen:
    """The images of one batch, of which each process reads only those that its rows need."""

    def __init__(self, dreams: ImageSet, chosen_N: NDArray[np.int64], fresh: FreshDreams | None) -> None:
        """Fresh images replace the first half of the chosen ones, once there are any."""
        self._dreams, self._chosen_N = dreams, chosen_N
        self._fresh_H = fresh.draw(len(chosen_N) // 2) if fresh else chosen_N[:0]
        self._fresh_images = fresh.images if fresh else dreams

    @property
    def shape_NCHW(self) -> tuple[int, int, int, int]:
        """The shape of the whole batch."""
        return len(self._chosen_N), *self._dreams.shape_CHW

    def images_at(self, places_M: Tensor) -> Tensor:
        """Network inputs (M, C, H, W) at these places of the batch, in ascending order."""
        places = places_M.numpy()
        is_fresh = places < len(self._fresh_H)
        parts = []
        if is_fresh.any():
            parts.append(self._fresh_images.images_of(self._fresh_H[places[is_fresh]]))
        if not is_fresh.all():
            parts.append(self._dreams.images_of(self._chosen_N[places[~is_fresh]]))
        return torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])
