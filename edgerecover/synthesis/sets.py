"""The synthesis stage: three disjoint sets of dreams on disk, shard by shard, reused where they are already whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, SyntheticFacts, to_json
from edgerecover.distributed import ALONE, Ranks, wait_for_file
from edgerecover.models.network.digest import weights_sha256
from edgerecover.progress import SILENT, Progress
from edgerecover.synthesis.deep_inversion import evidence_of
from edgerecover.synthesis.image_set import (
    ImageSet,
    PixelScale,
    Shard,
    SyntheticSets,
    read_shard,
    require_disjoint,
    write_shard,
)
from edgerecover.synthesis.procedural import procedural_images
from edgerecover.synthesis.shards import ShardMaker, ShardPlan, pixel_scale, plan_shards, seed_of
from edgerecover.synthesis.source import Source
from edgerecover.synthesis.statistics import open_tap

if TYPE_CHECKING:
    from edgerecover.config import Synthesis
    from edgerecover.tasks.objective import Objective

SPLITS = ("train", "calibration", "held_back")
_PROCEDURAL_BATCH = 64
_FORMAT = 9
"""Raise when the same settings no longer give the same images: it is part of a set's key."""


def synthesis_key(source: Source, settings: Synthesis, seed: int) -> str:
    """Name of the sets that these values give: 16 hex digits over everything the images depend on."""
    digest = hashlib.sha256(weights_sha256(source.teacher).encode())
    described = [
        _FORMAT,
        repr(source.teacher),
        to_json(source.input),
        to_json(source.output),
        settings.model_dump(mode="json"),
        seed,
        source.compute.arithmetic,
        source.record.sha256 if source.record else None,
    ]
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def synthesize(
    source: Source,
    settings: Synthesis,
    *,
    seed: int,
    folder: Path,
    splits: Sequence[str] = SPLITS,
    progress: Progress = SILENT,
    ranks: Ranks = ALONE,
) -> tuple[SyntheticSets, SyntheticFacts]:
    """Dream the train, calibration and held-out sets, or read back what an earlier run has finished of them.

    Each shard has its own seed, made from `seed`, its set and its number: an interrupted run that is started
    again makes only the missing shards, and ends with the images of an uninterrupted one.

    Args:
        source: its teacher comes back on the device of `compute`, in eval mode, without gradients.
        settings: of the profile.
        seed: any integer.
        folder: where shards are kept; created if missing.
        splits: which of `SPLITS` to make; the others come back empty.
        progress: where to report.
        ranks: that share the work. Each makes whole shards, so the images are those that one process makes.

    Raises:
        StageError: the images diverged (not finite), or two sets share an image.
        ValueError: `flip` is still "auto".
    """
    if settings.flip == "auto":
        raise ValueError("flip is not decided yet: settle the profile first")
    folder.mkdir(parents=True, exist_ok=True)
    source.compute.place(source.teacher).eval().requires_grad_(False)
    sizes = dict(zip(SPLITS, (settings.num_train, settings.num_calibration, settings.num_held_back), strict=True))
    wanted = [split for split in SPLITS if split in splits]
    num_targets = source.objective.num_targets
    plans = [plan for split in wanted for plan in plan_shards(split, sizes[split], num_targets, settings, seed)]
    shards = {plan.name: shard for plan in plans if (shard := read_shard(folder, plan.name))}
    # What the first finds, because others may by then have made some of it.
    missing = ranks.from_first(lambda: [plan for plan in plans if plan.name not in shards])
    mine = ranks.share(missing)
    _report_reuse(plans, shards, missing, mine, folder, progress)
    scale = pixel_scale(source.input, settings)
    if mine:
        shards |= _make_all(mine, source, settings, scale, folder, progress)
    ranks.wait()
    for plan in missing:
        if plan.name not in shards:
            shards[plan.name] = wait_for_file(partial(read_shard, folder, plan.name), f"{folder}: shard {plan.name}")
    made = [shards[plan.name] for plan in plans]
    sets = SyntheticSets(
        *(ImageSet(folder, scale, tuple(s for s in made if s.name.startswith(f"{split}-"))) for split in SPLITS)
    )
    require_disjoint(sets)
    return sets, _facts(sets, made, settings, source.objective, reused=not missing)


def _report_reuse(
    plans: list[ShardPlan],
    found: dict[str, Shard],
    missing: list[ShardPlan],
    mine: list[ShardPlan],
    folder: Path,
    progress: Progress,
) -> None:
    if damaged := [plan.name for plan in missing if (folder / f"{plan.name}.json").exists()]:
        progress.note(f"{folder}: damaged shards are made again: {', '.join(damaged)}")
    if not missing:
        progress.note(f"reusing all {len(plans):,} shards of images")
    elif mine and found:
        progress.note(f"reusing {len(found):,} of {len(plans):,} shards of images; making the others")


def _make_all(
    plans: list[ShardPlan], source: Source, settings: Synthesis, scale: PixelScale, folder: Path, progress: Progress
) -> dict[str, Shard]:
    """The shards by name; once memory has run out, later ones start with the smaller batch."""
    made, batch_size = {}, settings.batch_size
    with (
        progress.task("synthesize", sum(plan.num_images for plan in plans), _unit(settings)) as task,
        open_tap(source.teacher, evidence_of(source.teacher, settings, source.record)) as tap,
    ):
        maker = ShardMaker(source, settings, scale, tap, folder, task, progress)
        for plan in plans:
            shard = made[plan.name] = maker.make(plan, batch_size)
            batch_size = shard.batch_size or batch_size
    return made


def _facts(
    sets: SyntheticSets, made: list[Shard], settings: Synthesis, objective: Objective, *, reused: bool
) -> SyntheticFacts:
    # Of the train images, or of the first set that was asked for.
    some = next(images for images in (sets.train, sets.held_back, sets.calibration) if len(images))
    is_known = some.targets() and objective.can_read_targets
    on_target = sum(shard.num_on_target for shard in some.shards) / len(some) if is_known else None
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
        f"out of memory at batch size {settings.batch_size}: "
        f"{sum(shard.num_images for shard in smaller):,} of {sum(shard.num_images for shard in made):,} synthetic "
        f"images were made in batches of {min(shard.batch_size for shard in smaller)} or more. A machine with more "
        "memory makes other images",
    )


def _unit(settings: Synthesis) -> str:
    return "dreams" if settings.source == "dream" else f"{settings.source} images"


def procedural_set(input: InputSpec, num_images: int, *, seed: int, folder: Path) -> tuple[ImageSet, SyntheticFacts]:
    """A held-out set of fractals, for a teacher that gives no gradient.

    Args:
        input: the teacher's; its mean, std and pixel range decide what a pixel can be.
        num_images: N.
        seed: of all randomness.
        folder: where they are kept; created if missing. Name it after seed and input.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scale, shards, reused = PixelScale(*input.bounds()), [], True
    for number, start in enumerate(range(0, num_images, _PROCEDURAL_BATCH)):
        name, size = f"held_back-{number:05d}", min(_PROCEDURAL_BATCH, num_images - start)
        shard = read_shard(folder, name)
        if shard is None or shard.num_images != size:
            started, reused = time.perf_counter(), False
            shard_seed = seed_of(f"{seed}/fractals/{number}")
            images_NCHW = procedural_images("fractal", size, input.shape, input.bounds(), shard_seed)
            shard = write_shard(folder, name, scale.encode(images_NCHW), (), 0, time.perf_counter() - started)
        shards.append(shard)
    images = ImageSet(folder, scale, tuple(shards))
    seconds = sum(shard.seconds for shard in shards)
    facts = SyntheticFacts(0, 0, len(images), None, len(images) / seconds if seconds else 0.0, reused, "fractals")
    return images, facts
