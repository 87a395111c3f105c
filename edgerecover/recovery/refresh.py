"""Refresh: dreams made while distilling, on which the teacher and the current student disagree.

Adaptive DeepInversion (Yin et al. 2020, arXiv 1912.08795, equations 6 and 7), started from mixed views of earlier
dreams, which are closer to a result than noise is. The images are kept on disk, so memory does not grow with them.
"""

# Shapes: N images, C channels, H height, W width.
# ruff: noqa: TID253 - works on tensors throughout; only distillation imports it

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgerecover.compute import Compute
from edgerecover.config import Refresh, Synthesis
from edgerecover.progress import SILENT, Progress, Task
from edgerecover.recovery.checkpoints import State
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.deep_inversion import Aim, Rival, dream, evidence_of
from edgerecover.synthesis.image_set import ImageSet, Shard, read_shard, write_shard
from edgerecover.synthesis.record.values import Record
from edgerecover.synthesis.statistics import open_tap


class FreshDreams:
    """The images of all refreshes so far; a context manager, because their folder may be temporary."""

    def __init__(
        self,
        settings: Refresh,
        synthesis: Synthesis,
        record: Record | None,
        images: ImageSet,
        compute: Compute,
        seed: int,
        folder: Path | None = None,
    ) -> None:
        """Keep images in `folder`, to resume from after an interruption; None uses a temporary one."""
        self._settings, self._record, self._images, self._compute = settings, record, images, compute
        self._synthesis = synthesis.model_copy(
            update={
                "num_steps": settings.num_steps,
                "lr": settings.lr,
                "schedule": "cosine",
                "class_term": "target",
                "coarse_fraction": 0.0,  # they start where the coarse steps would lead
            }
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="refresh-", dir=images.folder)
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._shards: list[Shard] = []

    @property
    def folder(self) -> Path:
        """The folder that holds the fresh images."""
        return self._folder

    def __enter__(self) -> FreshDreams:
        return self

    def state(self) -> State:
        """The number of images, and the state of the random numbers that make the next ones."""
        return State(
            {"generator": self._generator.get_state()},
            {"rng": self._rng.bit_generator.state, "num_shards": len(self._shards)},
        )

    def has(self, state: State) -> bool:
        """Whether the images that `state` refers to are whole on disk."""
        return all(read_shard(self._folder, _name(number)) for number in range(state.facts["num_shards"]))

    def restore(self, state: State) -> None:
        """Continue from `state`; images made after it are made again, identically."""
        found = [read_shard(self._folder, _name(number)) for number in range(state.facts["num_shards"])]
        self._shards = [shard for shard in found if shard is not None]
        self._generator.set_state(state.tensors["generator"])
        self._rng.bit_generator.state = state.facts["rng"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether a refresh is due: neither while the student still changes fast, nor when it is about to converge."""
        return step % self._settings.every_steps == 0 and num_steps / 8 <= step <= num_steps * 7 / 8

    def refresh(
        self,
        pair: Pair,
        view: Callable[[Tensor], Tensor],
        progress: Progress = SILENT,
    ) -> None:
        """Add images on which the two disagree; every layer of the student comes back in the mode it had."""
        student = pair.student
        modes = {module: module.training for module in student.modules()}
        student.eval()
        try:
            remaining = self._settings.num_images
            with progress.task("refresh", remaining, "dreams") as task:
                while remaining > 0:
                    size = min(remaining, self._synthesis.batch_size, len(self._images))
                    self._add(pair, view, size, task)
                    remaining -= size
        finally:
            for module, training in modes.items():
                module.training = training

    @property
    def images(self) -> ImageSet:
        """All images made so far."""
        return ImageSet(self._folder, self._images.scale, tuple(self._shards))

    def draw(self, count: int) -> NDArray[np.int64]:
        """Indices of `count` random images; empty while there are none."""
        num_images = len(self.images)
        return self._rng.integers(num_images, size=count) if num_images else np.zeros(0, np.int64)

    def _add(self, pair: Pair, view: Callable[[Tensor], Tensor], size: int, task: Task) -> None:
        started, teacher = time.perf_counter(), pair.teacher
        scale = self._images.scale
        chosen = self._rng.choice(len(self._images), size=size, replace=False)
        start_NCHW = view(torch.from_numpy(self._images.images_of(chosen)))
        with torch.no_grad():
            # The target of a view of two dreams is what the teacher sees in it, not what either was made for.
            targets_N = pair.objective.targets_of(teacher(self._compute.images(start_NCHW)))
        with open_tap(teacher, evidence_of(teacher, self._synthesis, self._record)) as tap:
            images_NCHW = dream(
                teacher,
                tap,
                (torch.tensor(scale.low), torch.tensor(scale.high)),
                (size, *start_NCHW.shape[1:]),
                Aim(pair.objective, targets_N),
                self._synthesis,
                self._generator,
                self._compute,
                on_step=lambda loss: task.advance(size / self._synthesis.num_steps, loss=loss),
                rival=Rival(pair.student, start_NCHW, self._settings.weight),
            )
        pixels = scale.encode(images_NCHW.nan_to_num().numpy())
        seconds = time.perf_counter() - started
        self._shards.append(write_shard(self._folder, _name(len(self._shards)), pixels, (), 0, seconds))


def _name(number: int) -> str:
    return f"fresh-{number:05d}"
