"""What a run will take, told before it is spent: a few images go through the stages themselves, and are scaled up.

The trial calls what the run calls, and reads its times from the same tasks that the progress bars are drawn from, so
that a stage which becomes faster is estimated faster. What is read is how long a few images or steps took; what is
scaled by is how many the settings ask for.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgerecover.artifacts import Estimate, OutputSpec, StageEstimate, TaskKind
from edgerecover.compute import Compute, release_memory
from edgerecover.config import Profile, Recovery, Synthesis, in_batches_of
from edgerecover.models.pair.networks import Models
from edgerecover.progress import Progress, Silent, Task
from edgerecover.recovery.curve import LOOKS
from edgerecover.recovery.distill import pieces_of
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.layerwise import MAX_IMAGES
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.machine.memory import peak_bytes
from edgerecover.runtime.surfaces import surfaces_of
from edgerecover.stages.load import Loaded
from edgerecover.stages.precision import precisions_of
from edgerecover.stages.request import Request
from edgerecover.synthesis.at_once import BESIDE, bytes_per_image
from edgerecover.synthesis.image_set import ImageSet, SyntheticSets
from edgerecover.synthesis.mirror import IMAGE_STEPS
from edgerecover.synthesis.record.values import Record
from edgerecover.synthesis.sets import synthesize
from edgerecover.synthesis.source import Source

FACTOR = 2.0
"""Within which the estimate of a run has been: docs/explanation/benchmarks.md has the runs."""
_FEW, _LEAST = 2, 8
"""Images: two numbers, to separate what grows with them from what does not."""
_PIXELS = 32 * 32 * 32
"""In a batch of the trial, or as many as a batch of the run has: of small images a few say little of many."""
_NUM_DREAM_STEPS = 4
_NUM_STEPS = 3
_WORTH_IMAGE_STEPS = 10_000
"""Steps of dreams: below, the run is over before anybody wants to know."""
_LONG_S = 15 * 60
_FASTER = {"quality": "balanced", "balanced": "fast"}
"""Shipped profiles, by the shipped profile that takes longer."""
_NUM_TWINS = 2
_START_S = 1.5
"""Of a fresh process with its imports, and of exporting a file."""
Clock = Callable[[], float]
_RIVAL = 1.7
"""A step of a refresh runs the student too."""


@dataclass(frozen=True)
class _Trial:
    """Seconds of each part, on one thread's worth of whatever else the machine is doing."""

    dream_step_s: float
    """Of one image."""
    statistics_s: float
    """Of one image, through both networks."""
    fit_s: float
    """Least squares of all layers, whatever the number of images;"""
    fit_image_s: float
    """and for each image more."""
    block_step_s: float
    """Of block-wise reconstruction, of one image in all blocks."""
    step_s: float
    """Of distillation, of one image."""
    kept_bytes: int
    """By autograd, of one image."""


def estimate(
    models: Models,
    profile: Profile,
    seed: int,
    compute: Compute,
    record: Record | None,
    *,
    num_variants: int,
    is_mirroring_open: bool = False,
    clock: Clock = time.perf_counter,
) -> Estimate:
    """Seconds of each stage and the peak of memory, for a profile that is settled.

    Args:
        models: as the run will use them; not changed.
        profile: without open questions.
        seed: of the trial's images.
        compute: device and precision.
        record: of the teacher's activations.
        num_variants: of the recovered network that the race times, beside two twins.
        is_mirroring_open: what decides on it is still to come.
        clock: in whose seconds.
    """
    started_s = clock()
    with tempfile.TemporaryDirectory(prefix="edgerecover-estimate-") as folder:
        trial = _try(models, profile, seed, compute, record, Path(folder), clock)
    synthesis, recovery = profile.synthesis, profile.recovery
    num_images = synthesis.num_train + synthesis.num_calibration + synthesis.num_held_back
    stages = [StageEstimate("mirrored?", trial.dream_step_s * IMAGE_STEPS)] if is_mirroring_open else []
    dreamt_s = trial.dream_step_s * _steps_per_image(synthesis, synthesis.num_steps) * num_images
    stages.append(StageEstimate("synthesize", dreamt_s))
    if recovery.repair_statistics and trial.statistics_s:
        stages.append(StageEstimate("statistics repair", trial.statistics_s * synthesis.num_train))
    if recovery.layerwise and trial.fit_s:
        fitted = min(synthesis.num_train, MAX_IMAGES)
        more_s = trial.statistics_s * (synthesis.num_train - fitted)
        stages.append(StageEstimate("least squares", trial.fit_s + trial.fit_image_s * fitted + more_s))
    if recovery.blockwise and trial.block_step_s:
        walk_s = 2 * trial.statistics_s * synthesis.num_train  # and a repair of the statistics
        steps = recovery.blockwise.num_steps * recovery.blockwise.batch_size
        stages.append(StageEstimate("block by block", trial.block_step_s * steps + walk_s))
    if recovery.num_steps:
        stages.append(StageEstimate("distill", _distillation_s(trial, synthesis, recovery)))
    stages.append(StageEstimate("export and race", _race_s(trial, profile, num_variants + _NUM_TWINS)))
    dreamt_at_once = synthesis.at_once(synthesis.batch_size)
    learnt_at_once = math.ceil(recovery.batch_size / pieces_of(recovery.batch_size, synthesis))
    at_once = max(dreamt_at_once, learnt_at_once)
    return Estimate(
        stages=tuple(stages),
        memory_bytes=peak_bytes() + int(BESIDE * trial.kept_bytes * at_once),
        num_images=num_images,
        num_steps=recovery.num_steps,
        measured_s=clock() - started_s,
    )


def estimate_run(
    request: Request,
    profile: Profile,
    loaded: Loaded,
    *,
    is_mirroring_open: bool = False,
    clock: Clock = time.perf_counter,
) -> Estimate:
    """The same for what a user asked, with the profile settled."""
    num_variants = len(precisions_of(request.target, request.precisions)) * len(surfaces_of(request.target.deployment))
    return estimate(
        loaded.models, profile, request.seed, loaded.compute, loaded.record,
        num_variants=num_variants, is_mirroring_open=is_mirroring_open, clock=clock,
    )  # fmt: skip


def tell_estimate(request: Request, loaded: Loaded, progress: Progress, profile: Profile) -> None:
    """Say what a run will take, where that is long enough to be worth a trial."""
    if said := few_images_for_classes(profile.synthesis, loaded.models.output):
        progress.note(said)
    if is_worth_a_trial(profile):
        estimated = estimate_run(request, profile, loaded)
        release_memory()
        *lines, total = in_words(estimated, profile.name)
        for line in lines:
            progress.note(line)
        progress.note(total, **as_numbers(estimated))


def mirrored_later(profile: Profile) -> Profile:
    """The profile with mirroring settled, so that a trial need not find out about it."""
    synthesis, recovery = (
        part.model_copy(update={"flip": True}) if part.flip == "auto" else part
        for part in (profile.synthesis, profile.recovery)
    )
    return profile.model_copy(update={"synthesis": synthesis, "recovery": recovery})


def asks_for_mirroring(profile: Profile) -> bool:
    """Whether the run has to find out first whether images may be mirrored."""
    return "auto" in (profile.synthesis.flip, profile.recovery.flip)


def is_worth_a_trial(profile: Profile) -> bool:
    """Whether a trial is a few hundredths of the run, or less."""
    synthesis = profile.synthesis
    num_images = synthesis.num_train + synthesis.num_calibration + synthesis.num_held_back
    return _steps_per_image(synthesis, synthesis.num_steps) * num_images >= _WORTH_IMAGE_STEPS


def in_words(estimated: Estimate, profile_name: str = "") -> tuple[str, ...]:
    """One line for each stage that takes a second or more, and one for all; a long run names a faster profile."""
    lines = [f"estimate: {stage.name} {_minutes(stage.seconds)}" for stage in estimated.stages if stage.seconds >= 1]
    total = (
        f"estimate: {_minutes(estimated.seconds)} in all and {estimated.memory_bytes / 1e9:.1f} GB of memory, "
        f"at this machine's current load; it may be off by a factor of {FACTOR:g}"
    )
    if estimated.seconds > _LONG_S and profile_name in _FASTER:
        total += f". Faster: --profile {_FASTER[profile_name]}"
    return (*lines, total)


def few_images_for_classes(synthesis: Synthesis, output: OutputSpec) -> str:
    """What it means that there are fewer images to learn from than classes; empty where there are not."""
    num_classes = output.shape[0] if output.task in (TaskKind.ONE_LABEL, TaskKind.MULTI_LABEL) else 0
    if synthesis.source != "dream" or synthesis.num_train >= num_classes:
        return ""
    return (
        f"{synthesis.num_train:,} images to learn from show {synthesis.num_train:,} of {num_classes:,} classes, drawn "
        "by the seed; what the student knows of the others comes from the teacher's scores on these"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _steps_per_image(synthesis: Synthesis, num_steps: int) -> int:
    return num_steps if synthesis.source == "dream" else 1


def _distillation_s(trial: _Trial, synthesis: Synthesis, recovery: Recovery) -> float:
    batch_size = min(recovery.batch_size, synthesis.num_train)
    seconds = trial.step_s * batch_size * recovery.num_steps
    seconds += trial.statistics_s / 2 * synthesis.num_calibration * (LOOKS + 4)
    if recovery.refresh is not None:
        times = max(0, int(0.75 * recovery.num_steps) // recovery.refresh.every_steps)
        made = times * recovery.refresh.num_images
        seconds += _RIVAL * trial.dream_step_s * made * recovery.refresh.num_steps
    return seconds


def _race_s(trial: _Trial, profile: Profile, num_entrants: int) -> float:
    """Export, judging and latencies, of which each runs a fresh process for as long as the profile says."""
    image_s = trial.statistics_s / 2
    latency = profile.latency
    timed_s = max(latency.min_duration_s, latency.min_queries * image_s) + latency.num_warmup * image_s
    judged_s = profile.synthesis.num_held_back * image_s * (num_entrants + 4)
    return num_entrants * (_START_S + timed_s) + judged_s


# --- the trial --------------------------------------------------------------------------------------------------


def _try(
    models: Models, profile: Profile, seed: int, compute: Compute, record: Record | None, folder: Path, clock: Clock
) -> _Trial:
    """Time the stages themselves on a few images."""

    source = Source(models.teacher, models.input, models.output, compute, record)

    def dreamt(split: str, num_images: int, num_steps: int) -> tuple[ImageSet, float]:
        settings = profile.synthesis.model_copy(
            update={f"num_{split}": num_images, "num_steps": num_steps, "batch_size": num_images}
        )
        watch = Stopwatch(clock)
        sets, _ = synthesize(source, settings, seed=seed, folder=folder / split, splits=(split,), progress=watch)
        return getattr(sets, split), watch.per_step("synthesize") or watch.seconds("synthesize")

    def recovered(train: ImageSet, calibration: ImageSet, settings: Recovery) -> Stopwatch:
        watch = Stopwatch(clock)
        recover(
            Pair.of(models),
            SyntheticSets(train, calibration, calibration),
            in_batches_of(settings, len(train)).model_copy(update={"refresh": None, "fine_tuned": "recover"}),
            Execution(compute, watch), seed=seed, record=record,
        )  # fmt: skip
        return watch

    height, width = models.input.shape[1:]
    batch_size = min(profile.synthesis.batch_size, profile.synthesis.num_train, profile.recovery.batch_size)
    more = max(_FEW + 1, min(batch_size, max(_LEAST, _PIXELS // (height * width))))
    two, _ = dreamt("calibration", _FEW, 1)  # warms up too
    many, dream_s = dreamt("train", more, _NUM_DREAM_STEPS)
    recovery = profile.recovery
    shorter = {"num_steps": min(_NUM_STEPS, recovery.num_steps)}
    blockwise = recovery.blockwise and recovery.blockwise.model_copy(
        update={"num_steps": min(_NUM_STEPS, recovery.blockwise.num_steps)}
    )
    watch = recovered(many, two, recovery.model_copy(update={**shorter, "blockwise": blockwise}))
    statistics_s = watch.seconds("statistics") / max(1, watch.times("statistics")) / more
    fit_s = fit_image_s = 0.0
    if more_s := watch.seconds("least squares"):
        only = {"repair_statistics": False, "blockwise": None, "num_steps": 0}
        few_s = recovered(two, two, recovery.model_copy(update=only)).seconds("least squares")
        fit_image_s = max(0.0, more_s - few_s) / (more - _FEW)
        fit_s = max(0.0, few_s - _FEW * fit_image_s)
        fit_image_s += statistics_s  # batch norm is repaired after it
    block_step_s = 0.0
    if blockwise and (seconds := watch.seconds("block by block")):
        block_step_s = max(0.0, seconds - statistics_s * more) / (
            blockwise.num_steps * min(blockwise.batch_size, more // 2)
        )
    return _Trial(
        dream_step_s=dream_s / more,
        statistics_s=statistics_s,
        fit_s=fit_s,
        fit_image_s=fit_image_s,
        block_step_s=block_step_s,
        step_s=watch.per_step("distill") / more,
        kept_bytes=bytes_per_image(source, profile.synthesis),
    )


class Stopwatch(Silent):
    """A `Progress` that times the tasks it is told of."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._marks_s: dict[str, list[list[float]]] = {}

    @contextmanager
    def task(self, title: str, total: float, unit: str) -> Iterator[Task]:
        """Time it."""
        marks_s = [self._clock()]
        self._marks_s.setdefault(title, []).append(marks_s)
        yield _Lap(marks_s, self._clock)
        marks_s.append(self._clock())

    def times(self, title: str) -> int:
        """How often there was such a task."""
        return len(self._marks_s.get(title, []))

    def seconds(self, title: str) -> float:
        """Of all tasks of that name; 0 where there was none."""
        return sum(marks_s[-1] - marks_s[0] for marks_s in self._marks_s.get(title, []))

    def per_step(self, title: str) -> float:
        """Between two advances, what is before the first apart, which warms up; 0 where there were not two."""
        laps_s = [marks_s[1:-1] for marks_s in self._marks_s.get(title, [])]
        steps = [(end_s - start_s) for lap_s in laps_s for start_s, end_s in pairwise(lap_s)]
        return sum(steps) / len(steps) if steps else 0.0


class _Lap:
    def __init__(self, marks_s: list[float], clock: Clock) -> None:
        self._marks_s, self._clock = marks_s, clock

    def advance(self, steps: float = 1, **numbers: float) -> None:
        self._marks_s.append(self._clock())


def as_numbers(estimated: Estimate) -> Mapping[str, float]:
    """For whoever reads events."""
    found = {f"{stage.name.replace(' ', '_')}_s": stage.seconds for stage in estimated.stages}
    return {
        **found,
        "measured_s": estimated.measured_s,
        "seconds": estimated.seconds,
        "memory_bytes": float(estimated.memory_bytes),
    }
