"""The synthesis stage: three disjoint sets of dreams on disk, shard by shard, reused where they are already whole."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - works on tensors throughout; only the pipeline imports it

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgerecover.artifacts import InputSpec, SyntheticFacts, to_json
from edgerecover.compute import is_out_of_memory, release_memory
from edgerecover.distributed import ALONE, Ranks, wait_for_file
from edgerecover.errors import StageError
from edgerecover.models.network.digest import weights_sha256
from edgerecover.progress import SILENT, Progress, Task
from edgerecover.synthesize.deep_inversion import dream, evidence_of
from edgerecover.synthesize.image_set import (
    ImageSet,
    PixelScale,
    Shard,
    SyntheticSets,
    read_shard,
    require_disjoint,
    write_shard,
)
from edgerecover.synthesize.procedural import procedural_images
from edgerecover.synthesize.statistics import Tap, tapped

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.compute import Compute
    from edgerecover.config import Synthesis
    from edgerecover.synthesize.image_set import Bytes_NCHW
    from edgerecover.synthesize.record.values import Record

SPLITS = ("train", "calibration", "held_back")
_PROCEDURAL_BATCH = 64
_FORMAT = 8
"""Raise when the same settings no longer give the same images: it is part of a set's key."""


def synthesis_key(
    teacher: nn.Module,
    input: InputSpec,
    num_classes: int,
    settings: Synthesis,
    seed: int,
    arithmetic: str,
    record: Record | None = None,
) -> str:
    """Name of the sets that these values give: 16 hex digits over everything the images depend on.

    `arithmetic` is that of `Compute`.
    """
    digest = hashlib.sha256(weights_sha256(teacher).encode())
    described = [
        _FORMAT,
        repr(teacher),
        to_json(input),
        num_classes,
        settings.model_dump(mode="json"),
        seed,
        arithmetic,
        record.sha256 if record else None,
    ]
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def synthesize(
    teacher: nn.Module,
    input: InputSpec,
    num_classes: int,
    settings: Synthesis,
    *,
    seed: int,
    folder: Path,
    compute: Compute,
    record: Record | None = None,
    progress: Progress = SILENT,
    splits: Sequence[str] = SPLITS,
    ranks: Ranks = ALONE,
) -> tuple[SyntheticSets, SyntheticFacts]:
    """Dream the train, calibration and held-back sets, or read back what an earlier run has finished of them.

    Each shard has a seed of its own, made from `seed`, its set and its number: an interrupted run that is started
    again makes only the missing shards, and ends with the images of an uninterrupted one.

    Args:
        teacher: dense network, (N, C, H, W) inputs to (N, K) logits.
        input: its preprocessing; dreams stay inside its pixel range when the settings say so.
        num_classes: K.
        settings: of the profile.
        seed: any integer.
        folder: where shards are kept; made when missing.
        compute: device and precision.
        record: of the teacher's activations on real data, to be matched beside batch norm's statistics.
        progress: where to report.
        splits: those of `SPLITS` that are wanted; the others come back empty.
        ranks: that share the work. Each makes whole shards of its own, so the images are those that one process makes.

    Raises:
        StageError: the images diverged (not finite), or two sets share an image.
        ValueError: `flip` is still "auto".
    """
    if settings.flip == "auto":
        raise ValueError("flip is not decided yet: settle the profile first")
    folder.mkdir(parents=True, exist_ok=True)
    teacher = compute.place(teacher).eval().requires_grad_(False)
    sizes = dict(zip(SPLITS, (settings.num_train, settings.num_calibration, settings.num_held_back), strict=True))
    plans = [
        plan for split in SPLITS if split in splits for plan in _plans(split, sizes[split], num_classes, settings, seed)
    ]
    shards = {plan.name: shard for plan in plans if (shard := read_shard(folder, plan.name))}
    # What the first finds, because others may by then have made some of it.
    missing = ranks.from_first(lambda: [plan for plan in plans if plan.name not in shards])
    damaged = [plan.name for plan in missing if (folder / f"{plan.name}.json").exists()]
    if damaged:
        progress.note(f"{folder}: not as they were written, and made again: {', '.join(damaged)}")
    if not missing:
        progress.note(f"all {len(plans):,} shards of images are there already")
    scale = _pixel_scale(input, settings)
    if mine := ranks.share(missing):
        if shards:
            progress.note(f"{len(shards):,} of {len(plans):,} shards of images are there already; the others are made")
        total = sum(plan.num_images for plan in mine)
        batch_size = settings.batch_size
        with (
            progress.task("synthesize", total, _unit(settings)) as task,
            tapped(teacher, evidence_of(teacher, settings, record)) as tap,
        ):
            for plan in mine:
                shard = _make(plan, teacher, tap, input, scale, settings, folder, compute, task, batch_size, progress)
                shards[plan.name], batch_size = shard, shard.batch_size or batch_size
    ranks.wait()
    for plan in missing:
        if plan.name not in shards:
            shards[plan.name] = wait_for_file(partial(read_shard, folder, plan.name), f"{folder}: shard {plan.name}")
    made = [shards[plan.name] for plan in plans]
    sets = SyntheticSets(
        *(ImageSet(folder, scale, tuple(s for s in made if s.name.startswith(f"{split}-"))) for split in SPLITS)
    )
    require_disjoint(sets)
    return sets, _facts(sets, made, settings, reused=not missing)


@dataclass(frozen=True)
class _Plan:
    """A shard to be made: everything random about it follows from `seed`."""

    name: str
    seed: int
    num_images: int
    targets: tuple[int, ...]


def _plans(split: str, num_images: int, num_classes: int, settings: Synthesis, seed: int) -> list[_Plan]:
    random = _generator(f"{seed}/{split}/targets")
    # With fewer images than classes each split shows other ones: the first ones alone would leave the rest out of all.
    classes = torch.randperm(num_classes, generator=random).tolist() if num_images < num_classes else range(num_classes)
    order = torch.randperm(num_images, generator=random).tolist()
    has_targets = settings.source == "dream" and settings.class_term == "target"
    targets = [classes[i % num_classes] for i in order] if has_targets else []
    starts = range(0, num_images, settings.batch_size)
    return [
        _Plan(
            name=f"{split}-{number:05d}",
            seed=_seed_of(f"{seed}/{split}/{number}"),
            num_images=min(settings.batch_size, num_images - start),
            targets=tuple(targets[start : start + settings.batch_size]),
        )
        for number, start in enumerate(starts)
    ]


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(_seed_of(text))


def _pixel_scale(input: InputSpec, settings: Synthesis) -> PixelScale:
    if settings.clamp == "pixel-range":
        return PixelScale(*input.bounds())
    channels = input.shape[0]
    return PixelScale((-settings.clamp,) * channels, (settings.clamp,) * channels)


def _make(
    plan: _Plan,
    teacher: nn.Module,
    tap: Tap,
    input: InputSpec,
    scale: PixelScale,
    settings: Synthesis,
    folder: Path,
    compute: Compute,
    task: Task,
    batch_size: int,
    progress: Progress,
) -> Shard:
    """One shard on disk, all at once or, where memory does not suffice, in batches half as large, and so on."""
    started = time.perf_counter()
    while True:
        pieces = _pieces(plan, batch_size)
        try:
            made = [_made(piece, teacher, tap, input, scale, settings, compute, task) for piece in pieces]
            break
        except Exception as error:
            if not is_out_of_memory(error) or pieces[0].num_images == 1:
                raise
        # Outside the handler, whose error holds on to everything that is to be freed.
        tap.clear()
        release_memory()
        batch_size = pieces[0].num_images // 2
        progress.note(f"memory does not suffice for {pieces[0].num_images} images at once: {batch_size} are tried")
    pixels = np.concatenate([pixels_NCHW for pixels_NCHW, _ in made])
    num_on_target = sum(num_right for _, num_right in made)
    seconds = time.perf_counter() - started
    smaller = batch_size if len(pieces) > 1 else 0
    return write_shard(folder, plan.name, pixels, plan.targets, num_on_target, seconds, smaller)


def _pieces(plan: _Plan, batch_size: int) -> list[_Plan]:
    """The plan itself where the batch holds it; else pieces of it, each with a seed of its own."""
    if plan.num_images <= batch_size:
        return [plan]
    starts = range(0, plan.num_images, batch_size)
    return [
        _Plan(
            plan.name,
            _seed_of(f"{plan.seed}/{batch_size}/{start}"),
            min(batch_size, plan.num_images - start),
            plan.targets[start : start + batch_size],
        )
        for start in starts
    ]


def _made(
    plan: _Plan,
    teacher: nn.Module,
    tap: Tap,
    input: InputSpec,
    scale: PixelScale,
    settings: Synthesis,
    compute: Compute,
    task: Task,
) -> tuple[Bytes_NCHW, int]:
    """Pixels of the images planned, and how many of them the teacher reads as their class."""
    targets_N = torch.tensor(plan.targets, device=compute.device) if plan.targets else None
    if settings.source == "dream":
        images_NCHW = dream(
            teacher,
            tap,
            (torch.tensor(scale.low), torch.tensor(scale.high)),
            (plan.num_images, *input.shape),
            targets_N,
            settings,
            torch.Generator().manual_seed(plan.seed),
            compute,
            on_step=lambda loss: task.advance(plan.num_images / settings.num_steps, loss=loss),
        )
    else:
        made_NCHW = procedural_images(settings.source, plan.num_images, input.shape, input.bounds(), plan.seed)
        images_NCHW = torch.from_numpy(made_NCHW)
        task.advance(plan.num_images)
    if not bool(torch.isfinite(images_NCHW).all()):
        raise StageError(
            f"synthesis diverged: shard {plan.name} has pixels that are not numbers",
            hint="the teacher's statistics may be extreme (`edgerecover inspect` it); a lower synthesis.lr may help",
        )
    pixels = _without_flat_images(scale.encode(images_NCHW.numpy()), plan, input, scale)
    num_on_target = _num_on_target(teacher, pixels, scale, targets_N, settings, compute)
    tap.clear()
    return pixels, num_on_target


def _without_flat_images(pixels_NCHW: Bytes_NCHW, plan: _Plan, input: InputSpec, scale: PixelScale) -> Bytes_NCHW:
    """Images that came out in a single value give way to fractals: they teach nothing, and two of them are alike.

    Where most of them did, that is left to be found out: such a teacher wants no image at all.
    """
    flat_NP = pixels_NCHW.reshape(len(pixels_NCHW), -1)
    is_flat_N = flat_NP.min(1) == flat_NP.max(1)
    if input.shape[1] * input.shape[2] > 1 and 0 < is_flat_N.mean() < 0.5:
        made = procedural_images("fractal", int(is_flat_N.sum()), input.shape, input.bounds(), plan.seed)
        pixels_NCHW[is_flat_N] = scale.encode(made)
    return pixels_NCHW


@torch.no_grad()
def _num_on_target(
    teacher: nn.Module,
    pixels: Bytes_NCHW,
    scale: PixelScale,
    targets_N: Tensor | None,
    settings: Synthesis,
    compute: Compute,
) -> int:
    if targets_N is None:
        return 0
    size = settings.at_once(len(pixels))
    decided = [
        teacher(compute.images(scale.decode(pixels[i : i + size]))).argmax(1) for i in range(0, len(pixels), size)
    ]
    return int((torch.cat(decided) == targets_N).sum())


def _facts(sets: SyntheticSets, made: list[Shard], settings: Synthesis, *, reused: bool) -> SyntheticFacts:
    # Of the train images; of the first set there is where these were not asked for.
    some = next(images for images in (sets.train, sets.held_back, sets.calibration) if len(images))
    on_target = sum(shard.num_on_target for shard in some.shards) / len(some) if some.targets() else None
    seconds = sum(shard.seconds for shard in made)
    return SyntheticFacts(
        num_train=len(sets.train),
        num_calibration=len(sets.calibration),
        num_held_back=len(sets.held_back),
        teacher_agrees_with_target=on_target,
        images_per_s=sum(shard.num_images for shard in made) / seconds if seconds else 0.0,
        reused=reused,
        source=_unit(settings),
        mirrored=settings.flip is True,
        warnings=_warnings(made, settings),
    )


def _warnings(made: list[Shard], settings: Synthesis) -> tuple[str, ...]:
    smaller = [shard for shard in made if shard.batch_size]
    if not smaller:
        return ()
    return (
        f"memory did not suffice for {settings.batch_size} images at once: "
        f"{sum(shard.num_images for shard in smaller):,} of {sum(shard.num_images for shard in made):,} synthetic "
        f"images were made in batches of {min(shard.batch_size for shard in smaller)} or more. They are not those that "
        "a machine with more memory makes",
    )


def _unit(settings: Synthesis) -> str:
    return "dreams" if settings.source == "dream" else f"{settings.source} images"


def procedural_set(input: InputSpec, num_images: int, *, seed: int, folder: Path) -> tuple[ImageSet, SyntheticFacts]:
    """Fractals for a teacher that gives no gradient: a held-back set made from formulas alone.

    Args:
        input: the teacher's; its mean, std and pixel range decide what a pixel can be.
        num_images: N.
        seed: of all randomness.
        folder: where they are kept; made when missing. Name it after seed and input.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scale, shards, reused = PixelScale(*input.bounds()), [], True
    for number, start in enumerate(range(0, num_images, _PROCEDURAL_BATCH)):
        name, size = f"held_back-{number:05d}", min(_PROCEDURAL_BATCH, num_images - start)
        shard = read_shard(folder, name)
        if shard is None or shard.num_images != size:
            started, reused = time.perf_counter(), False
            shard_seed = _seed_of(f"{seed}/fractals/{number}")
            images_NCHW = procedural_images("fractal", size, input.shape, input.bounds(), shard_seed)
            shard = write_shard(folder, name, scale.encode(images_NCHW), (), 0, time.perf_counter() - started)
        shards.append(shard)
    images = ImageSet(folder, scale, tuple(shards))
    seconds = sum(shard.seconds for shard in shards)
    facts = SyntheticFacts(0, 0, len(images), None, len(images) / seconds if seconds else 0.0, reused, "fractals")
    return images, facts
