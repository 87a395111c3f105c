"""What `run` does: a pruned network in, a judged and packed file out; the stages in a straight line.

What is expensive (dreams, recoveries) is kept in the run folder under the digest of what it depends on, so the same
command again, or one for another target, reuses it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import Estimate, Report, StageTime
from edgerecover.distributed import ALONE, Ranks, leave
from edgerecover.progress import SILENT, Progress
from edgerecover.recovery.logits import numpy_logits
from edgerecover.report.picture import contact_sheet
from edgerecover.run_folder import SCRATCH_PREFIX, held
from edgerecover.stages.bundle import pack_run
from edgerecover.stages.engine import build_engines
from edgerecover.stages.estimate import (
    Clock,
    asks_for_mirroring,
    estimate_run,
    few_images_for_classes,
    mirrored_later,
    tell_estimate,
)
from edgerecover.stages.export import export_recovered
from edgerecover.stages.load import check_request, check_same_networks, load, load_to_assist
from edgerecover.stages.npu import compile_variants, that_may_ship
from edgerecover.stages.precision import make_variants_of
from edgerecover.stages.race import hold_race
from edgerecover.stages.recover import recover_student
from edgerecover.stages.report import report_of_run
from edgerecover.stages.request import Request
from edgerecover.stages.stage import stage
from edgerecover.stages.synthesize import make_images_for_run, source_of
from edgerecover.stages.validate import Made, judge_run
from edgerecover.synthesis.settle import settle
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evidence import decisions_over

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Ran:
    """What came of a run, besides the bundle."""

    report: Report
    student: nn.Module
    """The recovered network; it returns logits, as in `Models`."""


def run(request: Request, progress: Progress = SILENT, ranks: Ranks = ALONE) -> Report:
    """Recover, export, judge and pack one model; see `run_and_keep`."""
    return run_and_keep(request, progress, ranks).report


def run_and_keep(request: Request, progress: Progress = SILENT, ranks: Ranks = ALONE) -> Ran:
    """Recover, export, judge and pack one model; the bundle is at `request.out` afterwards.

    A failed gate is in the report, not an exception. Of several processes, this is for the first, while the others
    `assist` up to the recovered student.

    Raises:
        EdgeRecoverError: with the exit code and hint of what went wrong; no half-written bundle is left.
    """
    with (
        held(request.work, request.out, progress),
        tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=request.work) as scratch,
    ):
        return _run(request, Path(scratch), progress, ranks)


def _run(request: Request, folder: Path, progress: Progress, ranks: Ranks) -> Ran:
    check_request(request)
    times: list[StageTime] = []
    step = partial(stage, times=times, progress=progress)

    with step("load"):
        loaded = load(request, folder, ranks, progress)
    if request.pruning is not None:
        with step("prune"):
            loaded = loaded.pruned(request.pruning, request.target)
    check_same_networks(loaded.models, ranks)

    with step("synthesize") as clock:
        announce = partial(tell_estimate, request, loaded, progress)
        images = make_images_for_run(request, loaded, ranks, progress, announce)
        clock.reused = images.facts.reused
        measure = measure_of(loaded.models.output.as_logits)
        decisions = decisions_over(numpy_logits(loaded.models.teacher, images.sets.train, loaded.compute), measure)

    with step("recover") as clock:
        profile, recovered, clock.reused = recover_student(request, loaded, images, ranks, progress)
        request = replace(request, profile=profile)
    leave(ranks)

    with step("export"):
        exported, twins = export_recovered(request, loaded, recovered, folder, progress)
    with step("precision"):
        variants = make_variants_of(request, loaded, images, recovered, exported, folder, progress)
    teacher = loaded.reference
    with step("engine"):
        engines = build_engines(
            variants.made, request.target, folder, open_batch=request.batch is None, progress=progress
        )

        npu = compile_variants(
            variants.made, request.target, request.profile, teacher, images.sets.held_back, images.golden_NCHW(),
            folder, progress,
        )  # fmt: skip

    with step("race"):
        race = hold_race(
            variants, twins, teacher, images.sets.held_back, images.golden_NCHW(),
            request.target, request.profile, {**engines.unfit, **npu.unfit}, progress,
        )  # fmt: skip
    made = Made(exported, variants, engines, that_may_ship(npu, race), race)
    with step("validate"):
        judged = judge_run(request, loaded, images, recovered, made, teacher, progress)

    sheet_png, sheet = contact_sheet(images.sets.train)
    report = report_of_run(request, loaded, images, recovered, made, judged, decisions, sheet, times)
    with step("bundle"):
        pack_run(report, request, loaded, images, recovered, made, teacher, sheet_png)
    return Ran(report, recovered.student)


def assist(request: Request, ranks: Ranks) -> None:
    """The part of every process but the first: a share of the images and of the recovery, in step with `run`.

    Raises:
        EdgeRecoverError: as `run` does.
    """
    times: list[StageTime] = []
    with stage("load", times):
        loaded = load_to_assist(request, ranks)
        if request.pruning is not None:
            loaded = loaded.pruned(request.pruning, request.target)
        check_same_networks(loaded.models, ranks)
    with stage("synthesize", times):
        images = make_images_for_run(request, loaded, ranks)
    with stage("recover", times):
        recover_student(request, loaded, images, ranks)
    leave(ranks)


def dry_run(request: Request, progress: Progress = SILENT, clock: Clock = time.perf_counter) -> Estimate:
    """What `run` would take; everything that it would refuse before the first image is refused here too.

    Nothing is written but in a temporary folder, which is gone afterwards.

    Raises:
        EdgeRecoverError: as `run` does.
    """
    check_request(request)
    times: list[StageTime] = []
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX) as folder:
        with stage("load", times, progress):
            loaded = load(request, Path(folder), progress=progress)
        if request.pruning is not None:
            with stage("prune", times, progress):
                loaded = loaded.pruned(request.pruning, request.target)
        with stage("estimate", times, progress):
            settled = settle(mirrored_later(request.profile), source_of(loaded), progress)
            if said := few_images_for_classes(settled.profile.synthesis, loaded.models.output):
                progress.note(said)
            is_open = asks_for_mirroring(request.profile)
            return estimate_run(request, settled.profile, loaded, is_mirroring_open=is_open, clock=clock)
