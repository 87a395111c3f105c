"""One shard of synthetic images: what is to be in it, and how it is made."""

# Shapes: N images, C channels, H height, W width, P pixel values of an image.
# ruff: noqa: TID253 - works on tensors throughout; only stages import it, never the CLI's help

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgerecover.artifacts import InputSpec
from edgerecover.compute import is_out_of_memory, release_memory
from edgerecover.errors import StageError
from edgerecover.progress import Progress, Task
from edgerecover.synthesis.deep_inversion import Aim, dream
from edgerecover.synthesis.image_set import PixelScale, Shard, write_shard
from edgerecover.synthesis.procedural import procedural_images
from edgerecover.synthesis.source import Source
from edgerecover.synthesis.statistics import Tap

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.config import Synthesis
    from edgerecover.synthesis.image_set import Bytes_NCHW


@dataclass(frozen=True)
class ShardPlan:
    """A shard to make; everything random about it follows from `seed`."""

    name: str
    seed: int
    num_images: int
    targets: tuple[int, ...]


def plan_shards(split: str, num_images: int, num_targets: int, settings: Synthesis, seed: int) -> list[ShardPlan]:
    """The shards of one set, each with its own seed; targets are balanced, and left out where there are none."""
    random = _generator(f"{seed}/{split}/targets")
    # With fewer images than targets each split shows other ones: the first ones alone would leave the rest out of all.
    chosen = torch.randperm(num_targets, generator=random).tolist() if num_images < num_targets else range(num_targets)
    order = torch.randperm(num_images, generator=random).tolist()
    has_targets = num_targets and settings.source == "dream" and settings.class_term == "target"
    targets = [chosen[i % num_targets] for i in order] if has_targets else []
    starts = range(0, num_images, settings.batch_size)
    return [
        ShardPlan(
            name=f"{split}-{number:05d}",
            seed=seed_of(f"{seed}/{split}/{number}"),
            num_images=min(settings.batch_size, num_images - start),
            targets=tuple(targets[start : start + settings.batch_size]),
        )
        for number, start in enumerate(starts)
    ]


def seed_of(text: str) -> int:
    """A seed that follows from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(text))


def pixel_scale(input: InputSpec, settings: Synthesis) -> PixelScale:
    """How network inputs are stored as bytes."""
    if settings.clamp == "pixel-range":
        return PixelScale(*input.bounds())
    channels = input.shape[0]
    return PixelScale((-settings.clamp,) * channels, (settings.clamp,) * channels)


@dataclass(frozen=True)
class ShardMaker:
    """Makes shards into a folder, one after the other."""

    source: Source
    settings: Synthesis
    scale: PixelScale
    tap: Tap
    """On the teacher, with everything known of its activations."""
    folder: Path
    task: Task
    progress: Progress

    def make(self, plan: ShardPlan, batch_size: int) -> Shard:
        """Make one shard in batches of at most this size, halved each time that memory runs out.

        Raises:
            StageError: the images diverged.
        """
        started = time.perf_counter()
        while True:
            pieces = _pieces(plan, batch_size)
            try:
                made = [self._make_piece(piece) for piece in pieces]
                break
            except Exception as error:
                if not is_out_of_memory(error) or pieces[0].num_images == 1:
                    raise
            # Outside the handler, whose error holds on to everything that is to be freed.
            self.tap.clear()
            release_memory()
            batch_size = pieces[0].num_images // 2
            self.progress.note(f"out of memory at batch size {pieces[0].num_images}; retrying with {batch_size}")
        pixels = np.concatenate([pixels_NCHW for pixels_NCHW, _ in made])
        num_on_target = sum(num_right for _, num_right in made)
        seconds = time.perf_counter() - started
        smaller = batch_size if len(pieces) > 1 else 0
        return write_shard(self.folder, plan.name, pixels, plan.targets, num_on_target, seconds, smaller)

    def _make_piece(self, plan: ShardPlan) -> tuple[Bytes_NCHW, int]:
        """Pixels of the planned images, and how many of them the teacher reads as their target."""
        source, settings, scale, input = self.source, self.settings, self.scale, self.source.input
        targets_N = torch.tensor(plan.targets, device=source.compute.device) if plan.targets else None
        if settings.source == "dream":
            images_NCHW = dream(
                source.teacher,
                self.tap,
                (torch.tensor(scale.low), torch.tensor(scale.high)),
                (plan.num_images, *input.shape),
                Aim(source.objective, targets_N),
                settings,
                torch.Generator().manual_seed(plan.seed),
                source.compute,
                on_step=lambda loss: self.task.advance(plan.num_images / settings.num_steps, loss=loss),
            )
        else:
            made_NCHW = procedural_images(settings.source, plan.num_images, input.shape, input.bounds(), plan.seed)
            images_NCHW = torch.from_numpy(made_NCHW)
            self.task.advance(plan.num_images)
        if not bool(torch.isfinite(images_NCHW).all()):
            raise StageError(
                f"synthesis diverged: shard {plan.name} has pixels that are not numbers",
                hint="the teacher's statistics may be extreme (see `edgerecover inspect`); try a lower synthesis.lr",
            )
        pixels = _without_flat_images(scale.encode(images_NCHW.numpy()), plan, input, scale)
        num_on_target = 0 if targets_N is None else self._num_on_target(pixels, targets_N)
        self.tap.clear()
        return pixels, num_on_target

    @torch.no_grad()
    def _num_on_target(self, pixels_NCHW: Bytes_NCHW, targets_N: Tensor) -> int:
        teacher, compute, size = self.source.teacher, self.source.compute, self.settings.at_once(len(pixels_NCHW))
        starts = range(0, len(pixels_NCHW), size)
        outputs = [teacher(compute.images(self.scale.decode(pixels_NCHW[i : i + size]))) for i in starts]
        found_N = self.source.objective.targets_of(torch.cat(outputs))
        return 0 if found_N is None else int((found_N == targets_N).sum())


def _pieces(plan: ShardPlan, batch_size: int) -> list[ShardPlan]:
    """The plan itself where it fits in one batch, else pieces of it, each with its own seed."""
    if plan.num_images <= batch_size:
        return [plan]
    starts = range(0, plan.num_images, batch_size)
    return [
        ShardPlan(
            plan.name,
            seed_of(f"{plan.seed}/{batch_size}/{start}"),
            min(batch_size, plan.num_images - start),
            plan.targets[start : start + batch_size],
        )
        for start in starts
    ]


def _without_flat_images(pixels_NCHW: Bytes_NCHW, plan: ShardPlan, input: InputSpec, scale: PixelScale) -> Bytes_NCHW:
    """Replace images of a single value by fractals: they teach nothing, and two of them are alike.

    Where most are like that they stay, for the check for duplicates to find: such a teacher prefers no image at all.
    """
    flat_NP = pixels_NCHW.reshape(len(pixels_NCHW), -1)
    is_flat_N = flat_NP.min(1) == flat_NP.max(1)
    if input.shape[1] * input.shape[2] > 1 and 0 < is_flat_N.mean() < 0.5:
        made = procedural_images("fractal", int(is_flat_N.sum()), input.shape, input.bounds(), plan.seed)
        pixels_NCHW[is_flat_N] = scale.encode(made)
    return pixels_NCHW
