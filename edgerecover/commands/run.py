"""The stages in order: load, prune, synthesize, recover, export, validate, bundle.

Straight-line code from frozen values to a frozen value. What is expensive (dreams, recoveries) is kept in the run
directory under the digest of what it depends on, so the same command again, or one for another target, reuses it.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import copy
import hashlib
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from edgerecover import __version__
from edgerecover.artifacts import (
    Estimate,
    Exported,
    KeptZeros,
    Origin,
    Pattern,
    Precision,
    Race,
    RecordFacts,
    Report,
    Sheet,
    Sparsity,
    StageTime,
    SyntheticFacts,
    sha256_of,
    to_json,
)
from edgerecover.bundle.write import check_writable
from edgerecover.compute import Compute, choose_compute, is_out_of_memory, release_memory
from edgerecover.config import Profile, Target, in_batches_of
from edgerecover.distributed import ALONE, Ranks, check_same, leave
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import check_size, export, frozen_values
from edgerecover.files import replace_file
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.name.spec import read_stated
from edgerecover.models.network.digest import weights_sha256
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.network.outputs import Outputs, declared_outputs
from edgerecover.models.network.sparsity import measure
from edgerecover.models.pair.channels import match_channels
from edgerecover.models.pair.facts import macs_kept
from edgerecover.models.pair.networks import Models, open_classifier, open_models, open_network
from edgerecover.progress import SILENT, Progress
from edgerecover.prune import Pruning, multiple_for, prune
from edgerecover.recover.checkpoints import EVERY_S, Checkpoints
from edgerecover.recover.execution import Execution
from edgerecover.recover.ladder import Recovered, numpy_logits, recover
from edgerecover.recover.pair import Pair
from edgerecover.recover.store import read_recovered, recovery_key, weights_of, write_recovered
from edgerecover.report.picture import contact_sheet
from edgerecover.run_folder import SCRATCH_PREFIX, discard, held
from edgerecover.runtime.surfaces import surfaces_of
from edgerecover.stages.bundle import (
    GOLDEN_IMAGES,
    Provenance,
    checkpoint_origins,
    data_used,
    export_origins,
    golden_files,
    image_origins,
    model_files,
    pack,
    path_in_bundle,
    record_facts,
    tool_versions,
    without_folder,
)
from edgerecover.stages.engine import Engines, build_engines, require_builder
from edgerecover.stages.estimate import (
    Clock,
    as_numbers,
    asks_for_mirroring,
    estimate,
    few_images_for_classes,
    in_words,
    is_worth_a_trial,
    mirrored_later,
)
from edgerecover.stages.export import TwinFile, Write, export_dense, export_twins
from edgerecover.stages.precision import Variants, make_all, precisions_of
from edgerecover.stages.probe import STUDENT, TEACHER, Probed, probe_networks
from edgerecover.stages.race import hold_race, open_runner
from edgerecover.stages.stage import stage
from edgerecover.stages.validate import Beside, Judged, int8_sums_for, judge_file, open_on_cpu, scorer_of
from edgerecover.synthesize.image_set import SyntheticSets
from edgerecover.synthesize.record.file import read_record_of, write_record
from edgerecover.synthesize.record.make import Recording
from edgerecover.synthesize.record.values import Record
from edgerecover.synthesize.sets import synthesis_key, synthesize
from edgerecover.synthesize.settle import Settled, settle
from edgerecover.synthesize.source import Source
from edgerecover.validate.evaluation import EvalSet, read_eval_data
from edgerecover.validate.evidence import Decisions, decisions_over, doubts
from edgerecover.validate.gates import Measured, judge
from edgerecover.validate.limits import limits_of
from edgerecover.validate.sparsity import sparsity_verdict
from edgerecover.validate.zeros import kept_zeros


@dataclass(frozen=True)
class Request:
    """What a user asks of a run; the command line's flags, resolved."""

    model_path: Path
    target: Target
    profile: Profile
    out: Path
    work: Path
    """Where dreams and recoveries are kept between runs."""
    flags: ModelFlags = NO_FLAGS
    """How to open the model and its teacher."""
    teacher: Path | None = None
    teacher_arch: str | None = None
    """The teacher's architecture where it is not the student's."""
    pruning: Pruning | None = None
    """How to prune a dense model; None takes the model as it is."""
    eval_data: Path | None = None
    record: Path | None = None
    """Activation record of the teacher."""
    seed: int = 0
    device: str = "auto"
    batch: int | None = 1
    """Static batch size of the exported file; None exports a dynamic one."""
    precisions: tuple[Precision, ...] = ()
    """That may be shipped, beside float32; none names all that the target can use."""
    fresh: bool = False
    """Make everything anew, also what an earlier run has finished."""
    checkpoint_every_s: float = EVERY_S
    """Within a stage, how often what is half done is written to `work`."""


def run(request: Request, progress: Progress = SILENT, ranks: Ranks = ALONE) -> Report:
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


def assist(request: Request, ranks: Ranks) -> None:
    """The part of every process but the first: a share of the images and of the recovery, in step with `run`.

    Raises:
        EdgeRecoverError: as `run` does.
    """
    times: list[StageTime] = []
    with stage("load", times):
        models, record = _opened(request)
        compute = ranks.from_first(lambda: _probed(request, models)).compute
        if request.pruning is not None:
            models = _pruned(models, request.pruning, request.target)
        _check_same(models, ranks)
    with stage("synthesize", times):
        settled = ranks.from_first(lambda: _settled(request, models, record, compute))
        request = replace(request, profile=settled.profile)
        sets, _ = _synthesized(request, _key_of(request, models, record, compute), models, record, compute, ranks)
    with stage("recover", times):
        _recovered(request, models, record, sets, "", compute, SILENT, ranks)
    leave(ranks)


def _run(request: Request, folder: Path, progress: Progress, ranks: Ranks) -> Report:
    check_writable(request.out)
    require_builder(request.target)
    _check_batch(request)
    precisions = precisions_of(request.target, request.precisions)
    times: list[StageTime] = []
    write = _exporter(request)

    with stage("load", times, progress):
        models, record, eval_set, probed, dense = _loaded(request, folder, write, progress, ranks)
    compute = probed.compute

    if request.pruning is not None:
        with stage("prune", times, progress):
            models = _pruned(models, request.pruning, request.target)
    _check_same(models, ranks)

    with stage("synthesize", times, progress) as clock:
        settled = ranks.from_first(partial(_settled, request, models, record, compute, progress))
        request = replace(request, profile=settled.profile)
        key = _key_of(request, models, record, compute)
        if request.fresh:
            discard(request.work / f"dreams-{key}")
        if ranks.size == 1 and not (request.work / f"dreams-{key}").exists():
            _tell_estimate(request, models, record, compute, progress)
        sets, synthetic = _synthesized(request, key, models, record, compute, ranks, progress)
        synthetic = replace(synthetic, mirror_correlation=settled.mirror_correlation)
        clock.reused = synthetic.reused
        decisions = decisions_over(numpy_logits(models.teacher, sets.train, compute))

    with stage("recover", times, progress) as clock:
        request, recovered, clock.reused = _recovered(request, models, record, sets, key, compute, progress, ranks)
    leave(ranks)

    with stage("export", times, progress):
        exported = write(recovered.student, models.input, folder / "fp32.onnx")
        twins = export_twins(
            dense, models.teacher, models.student_facts.sparsity.pattern, models.input, folder, write,
            multiple=multiple_for(request.target), progress=progress,
        )  # fmt: skip

    with stage("precision", times, progress):
        variants = make_all(
            precisions, exported, recovered, models, sets, request.target,
            request.profile, folder, seed=request.seed, compute=compute,
            checkpoints=Checkpoints(None if request.fresh else request.work, request.checkpoint_every_s, progress),
            progress=progress,
        )  # fmt: skip

    with stage("engine", times, progress):
        engines = build_engines(
            variants.made, request.target, folder, open_batch=request.batch is None, progress=progress
        )

    golden_NCHW = sets.held_back.images_of(range(min(GOLDEN_IMAGES, len(sets.held_back))))
    with stage("race", times, progress):
        alone = bool(probed.by_batch)
        teacher = scorer_of(models.teacher, compute, one_by_one=alone)
        race = hold_race(
            variants,
            twins,
            teacher,
            sets.held_back,
            golden_NCHW,
            request.target,
            request.profile,
            engines.unfit,
            progress,
        )
        shipped = next(variant for variant in variants.made if variant.precision is race.shipped.precision)

    with stage("validate", times, progress):
        float32 = open_on_cpu(Path(exported.path), models.input.shape, models.num_classes)
        is_float32 = shipped.precision is Precision.FP32
        sums = int8_sums_for(request.target)
        on_cpu = open_on_cpu(Path(shipped.file.path), models.input.shape, models.num_classes, sums)
        zeros = kept_zeros(recovered.student, models.masks, models.input.shape, Path(shipped.file.path))
        judged = judge_file(
            open_runner(race.shipped, shipped, request.target, models.input.shape, models.num_classes),
            Beside(
                teacher,
                scorer_of(models.student, compute, one_by_one=alone),
                scorer_of(recovered.student, compute, one_by_one=alone),
                float32.run,
            ),
            sets.held_back,
            eval_set,
            race.latency,
            is_two_four=models.student_facts.sparsity.pattern is Pattern.TWO_FOUR,
            # Measured on students of their teacher's architecture, on dreams that batch norm guides; of those that
            # others have trained far too little is predicted (docs/adr/0009).
            is_predictable=models.same_architecture
            and bool(batch_norms_of(models.teacher))
            and declared_outputs(models.teacher) is not Outputs.SIGMOIDS
            and not alone
            and not recovered.handed_back,
            is_float32=is_float32,
            progress=progress,
        )

    sheet_png, sheet = contact_sheet(sets.train)
    made = _Made(exported, variants, engines, race, judged, zeros, sheet)
    report = _report(request, probed, models, record, synthetic, decisions, recovered, made, times)
    with stage("bundle", times, progress):
        weights = weights_of(recovered.student)
        content: dict[str, Path | bytes | str] = {
            **model_files(variants.made, race, engines),
            "recovered.safetensors": weights,
            **golden_files(on_cpu.run, teacher, golden_NCHW),
            sheet.path: sheet_png,
        }
        lineage = {
            **_origins(request, models, report, sets, weights),
            **export_origins(variants.made, content, race),
        }
        pack(
            report,
            request.out,
            content,
            _resolved_configuration(request, models),
            request.target,
            request.profile,
            shipped.precision,
            Provenance(lineage, read_stated(request.model_path), models.input, models.num_classes),
        )
    return report


@dataclass(frozen=True)
class PrunedFile:
    """What `prune_file` wrote."""

    sparsity: Sparsity
    macs_kept: float
    """Multiply-accumulates as a fraction of the dense network's; 1 where no channel went or the input is not known."""
    notes: tuple[str, ...]


def prune_file(
    model_path: Path,
    out: Path,
    pruning: Pruning,
    flags: ModelFlags,
) -> PrunedFile:
    """Prune a dense checkpoint by magnitude and write its weights; masks are its zeros, channels its shapes.

    Raises:
        BadInputError: the checkpoint cannot be opened or pruned so, or `out` cannot be written.
        MissingError: channels are to be pruned without Torch-Pruning.
    """
    network, known_input = open_network(model_path, flags)
    dense = copy.deepcopy(network)
    pruned = prune(network, pruning, known_input)
    try:
        replace_file(out, weights_of(pruned.network, out.suffix.lower()))
    except OSError as error:
        raise BadInputError(f"--out {out}: {error.strerror or error}", hint="name a file you can write") from error
    narrower = pruning.pattern == "channel"
    kept = macs_kept(pruned.network, dense, known_input) if narrower else None
    return PrunedFile(measure(pruned.network, narrower=narrower), 1.0 if kept is None else kept, pruned.notes)


def make_record(
    model_path: Path,
    data: Path,
    out: Path,
    recording: Recording,
    flags: ModelFlags,
    progress: Progress = SILENT,
) -> RecordFacts:
    """Write the activation record of a dense network from its owner's labelled images.

    Raises:
        BadInputError: the checkpoint or the images cannot be used, or `out` cannot be written.
    """
    teacher = open_classifier(model_path, flags)
    images = read_eval_data(data, teacher.input, teacher.num_classes, teacher.classes, progress)
    record = recording.record(teacher.network, images, teacher.num_classes, progress)
    try:
        size_bytes = write_record(out, record)
    except OSError as error:
        raise BadInputError(f"--out {out}: {error.strerror or error}", hint="name a file you can write") from error
    return RecordFacts(out.name, sha256_of(out), size_bytes, record.kind, record.num_images, record.noise)


def dry_run(request: Request, progress: Progress = SILENT, clock: Clock = time.perf_counter) -> Estimate:
    """What `run` would take; everything that it would refuse before the first image is refused here too.

    Nothing is written but in a temporary folder, which is gone afterwards.

    Raises:
        EdgeRecoverError: as `run` does.
    """
    check_writable(request.out)
    require_builder(request.target)
    _check_batch(request)
    times: list[StageTime] = []
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX) as folder:
        with stage("load", times, progress):
            models, record, _, probed, _ = _loaded(request, Path(folder), _exporter(request), progress, ALONE)
        if request.pruning is not None:
            with stage("prune", times, progress):
                models = _pruned(models, request.pruning, request.target)
        with stage("estimate", times, progress):
            asked = request.profile
            request = replace(request, profile=mirrored_later(asked))
            settled = _settled(request, models, record, probed.compute, progress)
            if said := few_images_for_classes(settled.profile.synthesis, models.num_classes):
                progress.note(said)
            return estimate(
                models, settled.profile, request.seed, probed.compute, record,
                num_variants=_num_variants(request), is_mirroring_open=asks_for_mirroring(asked), clock=clock,
            )  # fmt: skip


def _tell_estimate(
    request: Request, models: Models, record: Record | None, compute: Compute, progress: Progress
) -> None:
    """Say what the run will take, where that is long enough to be worth a trial."""
    if said := few_images_for_classes(request.profile.synthesis, models.num_classes):
        progress.note(said)
    if is_worth_a_trial(request.profile):
        told = estimate(models, request.profile, request.seed, compute, record, num_variants=_num_variants(request))
        release_memory()
        *lines, total = in_words(told)
        for line in lines:
            progress.note(line)
        progress.note(total, **as_numbers(told))


def _num_variants(request: Request) -> int:
    """That the race runs: every precision on every runtime."""
    return len(precisions_of(request.target, request.precisions)) * len(surfaces_of(request.target.deployment))


def _check_batch(request: Request) -> None:
    static = request.target.static_batch
    if request.batch is None and static is not None and static.value:
        raise BadInputError(
            f"--batch 0: target {request.target.name} takes no file that leaves the batch size open ({static.source})",
            hint="name the batch size that it will run, e.g. --batch 1",
        )


def _exporter(request: Request) -> Write:
    return partial(
        export,
        opset=request.target.opset.value,
        batch=request.batch,
        ir_version=request.target.ir_version.value if request.target.ir_version else None,
    )


def _loaded(
    request: Request, folder: Path, write: Write, progress: Progress, ranks: Ranks
) -> tuple[Models, Record | None, EvalSet | None, Probed, TwinFile]:
    """All that can be known of a request before anything is made."""
    models, record = _opened(request)
    for warning in models.warnings:
        progress.note(warning)
    eval_set = _eval_set(request, models, progress)
    probed = ranks.from_first(partial(_probed, request, models, progress))
    probed = replace(probed, compute=replace(probed.compute, num_processes=ranks.size))
    for warning in probed.warnings:
        progress.note(warning)
    return models, record, eval_set, probed, _exported_on_trial(models, folder, write)


def _opened(request: Request) -> tuple[Models, Record | None]:
    models = open_models(
        request.model_path,
        request.flags,
        teacher=request.teacher,
        teacher_arch=request.teacher_arch,
        will_prune=request.pruning is not None,
    )
    return models, read_record_of(request.record, models.teacher, models.input.shape)


def _check_same(models: Models, ranks: Ranks) -> None:
    if ranks.size > 1:
        for what, network in (("the teacher", models.teacher), ("the student", models.student)):
            check_same(ranks, what, weights_sha256(network))


def _probed(request: Request, models: Models, progress: Progress = SILENT) -> Probed:
    """What a trial of the networks shows; refuses those that no file of this request can stand for."""
    networks = {TEACHER: models.teacher, STUDENT: models.student}
    probed = probe_networks(networks, models.input, choose_compute(request.device), progress)
    if probed.by_batch and request.batch != 1:
        size = "leaves the batch size open" if request.batch is None else f"takes {request.batch} images at once"
        raise BadInputError(
            f"{probed.by_batch}; of a file that {size}, nobody could say how it decides",
            hint="export with --batch 1: it is judged one image at a time then; or give the network running statistics",
        )
    return probed


def _exported_on_trial(models: Models, folder: Path, write: Write) -> TwinFile:
    """The dense network as a file: an operator that cannot be exported is found before anything is made."""
    for network in (models.teacher, models.student):
        check_size(network)
    if models.student_facts.macs_kept is not None or not models.same_architecture:
        trial = folder / "trial.onnx"
        write(models.student, models.input, trial)
        trial.unlink()
    return export_dense(models.teacher, models.input, folder, write)


def _settled(
    request: Request, models: Models, record: Record | None, compute: Compute, progress: Progress = SILENT
) -> Settled:
    source = Source(models.teacher, models.input, models.num_classes, compute, record)
    return settle(request.profile, source, progress)


def _key_of(request: Request, models: Models, record: Record | None, compute: Compute) -> str:
    """Of the images of a request whose profile is settled."""
    source = Source(models.teacher, models.input, models.num_classes, compute, record)
    return synthesis_key(source, request.profile.synthesis, request.seed)


def _synthesized(
    request: Request,
    key: str,
    models: Models,
    record: Record | None,
    compute: Compute,
    ranks: Ranks,
    progress: Progress = SILENT,
) -> tuple[SyntheticSets, SyntheticFacts]:
    ranks.wait()  # until the first has discarded what is not to be used again
    return synthesize(
        Source(models.teacher, models.input, models.num_classes, compute, record),
        request.profile.synthesis,
        seed=request.seed,
        folder=request.work / f"dreams-{key}",
        progress=progress,
        ranks=ranks,
    )


def _eval_set(request: Request, models: Models, progress: Progress) -> EvalSet | None:
    if request.eval_data is None:
        return None
    return read_eval_data(request.eval_data, models.input, models.num_classes, models.classes, progress)


def _pruned(models: Models, pruning: Pruning, target: Target) -> Models:
    """The student as magnitude pruning leaves it; the dense network stays the teacher."""
    narrower = pruning.pattern == "channel"
    dense = copy.deepcopy(models.student) if narrower else None
    pruned = prune(models.student, pruning, models.input, multiple_for(target))
    student_facts = replace(
        models.student_facts,
        num_parameters=sum(parameter.numel() for parameter in pruned.network.parameters()),
        sparsity=measure(pruned.network, narrower=narrower),
        macs_kept=macs_kept(pruned.network, dense, models.input) if dense else None,
    )
    # What came as zero and is no weight that magnitude ranks stays zero too.
    masks = {} if narrower else {**models.masks, **pruned.masks}
    return replace(
        models,
        student=pruned.network,
        masks=masks,
        channels=match_channels(models.teacher, pruned.network, models.input.shape)
        if narrower and models.same_architecture
        else models.channels,
        student_facts=student_facts,
        warnings=(*models.warnings, *pruned.notes),
    )


def _recovered(
    request: Request,
    models: Models,
    record: Record | None,
    sets: SyntheticSets,
    sets_key: str,
    compute: Compute,
    progress: Progress,
    ranks: Ranks,
) -> tuple[Request, Recovered, bool]:
    """The request with the batch size that memory sufficed for, what came of it, and whether it was there already.

    A recovery in smaller batches is another one: it has a key of its own, and the report names its batch.
    """
    asked = request.profile.recovery.batch_size
    while True:
        settings, synthesis = request.profile.recovery, request.profile.synthesis
        key = recovery_key(models.student, models.masks, f"{sets_key} {sets.sha256}", settings, request.seed)
        folder = request.work / f"recovered-{key}"
        checkpoints = Checkpoints(folder / "steps", request.checkpoint_every_s, progress)
        if request.fresh and ranks.is_first:
            discard(folder)
        found = read_recovered(folder, models.student) if ranks.is_first else None
        if ranks.from_first(partial(bool, found)):
            progress.note("this recovery is there already")
            return request, found or Recovered(models.student, ()), True
        try:
            made = recover(
                Pair(models.student, models.teacher, models.masks, models.channels), sets, settings,
                Execution(compute, progress, checkpoints, ranks),
                seed=request.seed,
                # Refreshes dream too, in batches of their own.
                synthesis=in_batches_of(synthesis, max(1, synthesis.batch_size * settings.batch_size // asked)),
                record=record,
            )  # fmt: skip
            break
        except Exception as error:
            # Of several processes the others have still enough, and wait: this one says so, and the run ends.
            if not is_out_of_memory(error) or settings.batch_size < 4 or ranks.size > 1:
                raise
        release_memory()
        smaller = in_batches_of(settings, settings.batch_size // 2)
        request = replace(request, profile=request.profile.model_copy(update={"recovery": smaller}))
        progress.note(f"memory does not suffice to recover in batches of {settings.batch_size}: half of it is tried")
    if request.profile.recovery.batch_size < asked:
        made = replace(
            made,
            warnings=(
                f"memory did not suffice to recover in batches of {asked}: it was done in batches of "
                f"{request.profile.recovery.batch_size}, which has another result",
                *made.warnings,
            ),
        )
    if ranks.is_first:
        write_recovered(folder, made)
        checkpoints.discard()
    return request, made, False


@dataclass(frozen=True)
class _Made:
    """The second half of a run: files, and what was measured of them."""

    exported: Exported
    """In float32."""
    variants: Variants
    engines: Engines
    race: Race
    judged: Judged
    zeros: KeptZeros
    """In the file that is shipped."""
    sheet: Sheet


def _report(
    request: Request,
    probed: Probed,
    models: Models,
    record: Record | None,
    synthetic: SyntheticFacts,
    decisions: Decisions,
    recovered: Recovered,
    made: _Made,
    times: list[StageTime],
) -> Report:
    sparsity = measure(recovered.student, narrower=models.student_facts.macs_kept is not None)
    judged, race = made.judged, made.race
    named = tuple(
        replace(variant, file=replace(variant.file, path=path_in_bundle(variant, race)))
        for variant in made.variants.made
    )
    shipped = next(variant for variant in named if variant.precision is race.shipped.precision)
    return Report(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seed=request.seed,
        device=str(probed.compute),
        data_used=data_used(record is not None, judged.accuracy is not None),
        target=request.target.name,
        target_description=request.target.description,
        profile=request.profile.name,
        student=without_folder(models.student_facts),
        teacher=without_folder(models.teacher_facts),
        recovered_sparsity=sparsity,
        record=record_facts(record, request.record),
        synthetic=synthetic,
        rungs=recovered.rungs,
        exported=shipped.file,
        parity=judged.parity,
        fidelity=judged.fidelity,
        latency=judged.latency,
        accuracy=judged.accuracy,
        sparsity_verdict=sparsity_verdict(
            sparsity.pattern,
            sparsity.sparsity,
            request.target.sparse.value,
            request.target.runtime.value,
            made.exported,
            race,
            sparsity.zero_channels,
        ),
        gates=judge(
            limits_of(request.profile, request.target),
            Measured(
                judged.fidelity,
                judged.parity,
                made.zeros,
                shipped.file,
                judged.latency,
                judged.accuracy,
                judged.two_four,
                same_architecture=models.same_architecture,
                precision_loss=judged.precision_loss,
            ),
        ),
        stages=tuple(times),
        warnings=(
            *models.warnings,
            *probed.warnings,
            *synthetic.warnings,
            *recovered.warnings,
            *frozen_values(made.exported),
            *judged.notes,
            *made.engines.notes,
            *doubts(
                decisions,
                synthetic,
                models.student_facts,
                models.teacher_facts,
                recovered.rungs,
                recovered.lineage,
                judged.fidelity,
                judged.accuracy,
                models.classes,
                same_architecture=models.same_architecture,
                has_record=record is not None,
            ),
        ),
        tool_versions=tool_versions(),
        lineage=recovered.lineage,
        same_architecture=models.same_architecture,
        precision_loss=judged.precision_loss,
        int8_sums=int8_sums_for(request.target) if race.judged(Precision.INT8) else None,
        variants=named,
        race=race,
        engines=made.engines.built,
        classes=models.classes or (),
        sheet=made.sheet,
    )


def _origins(
    request: Request, models: Models, report: Report, sets: SyntheticSets, weights: bytes
) -> dict[str, Origin]:
    """All that the exported files were made from."""
    origins = checkpoint_origins(report.student, report.teacher, report.record)
    if request.pruning is not None:
        sha256 = hashlib.sha256(weights_of(models.student)).hexdigest()
        origins["pruned"] = Origin(f"pruned in this run, {request.pruning.pattern}", sha256, ("dense",))
    seen = ("dense", "record") if report.record else ("dense",)
    splits = {"train": sets.train, "calibration": sets.calibration, "held_back": sets.held_back}
    parents = (*seen, "pruned", "dreams/train", "dreams/calibration")
    recovered = Origin("recovered network", hashlib.sha256(weights).hexdigest(), parents, file="recovered.safetensors")
    return {**origins, **image_origins(splits, seen), "recovered": recovered}


def _resolved_configuration(request: Request, models: Models) -> dict[str, Any]:
    """Everything that decided the result, with no path of the user's machine in it."""
    return {
        "model": request.model_path.name,
        "architecture": models.student_facts.architecture,
        "teacher_architecture": models.teacher_facts.architecture,
        "input": to_json(models.input),
        "classes": list(models.classes) if models.classes else None,
        "pruned_to": request.pruning.sparsity if request.pruning else None,
        "pattern": request.pruning.pattern if request.pruning else None,
        "seed": request.seed,
        "batch": request.batch,
        "target": request.target.model_dump(mode="json", exclude_none=True),
        "profile": request.profile.model_dump(mode="json"),
    }
