"""The second half alone: judging, and packing, an ONNX file that was recovered elsewhere.

The same judgement, gates and bundle as at the end of `edgerecover run`. What needs a network that is not there is left
out; the report says with what evidence it works.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgerecover import __version__
from edgerecover.artifacts import (
    InputSpec,
    KeptZeros,
    ModelFacts,
    Origin,
    Pattern,
    Precision,
    Report,
    StageTime,
    SyntheticFacts,
    to_json,
)
from edgerecover.bundle.manifest import check_paths
from edgerecover.bundle.write import check_writable
from edgerecover.compute import Compute, choose_compute
from edgerecover.config import Profile, Target
from edgerecover.errors import BadInputError
from edgerecover.models.name.flags import NO_FLAGS, ModelFlags
from edgerecover.models.name.spec import read_stated, resolve
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.onnx.file import OnnxFile, is_onnx, own_operators, read_onnx
from edgerecover.models.pair.networks import Classifier, open_classifier
from edgerecover.progress import SILENT, Progress
from edgerecover.report.picture import contact_sheet
from edgerecover.run_folder import held
from edgerecover.runtime.session.onnxruntime import Session
from edgerecover.runtime.session.probe import probe
from edgerecover.stages.bundle import (
    GOLDEN_IMAGES,
    RESERVED_NAMES,
    Provenance,
    checkpoint_origins,
    data_used,
    golden_files,
    image_origins,
    pack,
    record_facts,
    tool_versions,
    without_folder,
)
from edgerecover.stages.probe import TEACHER, Probed, probe_networks
from edgerecover.stages.stage import stage
from edgerecover.stages.validate import (
    Beside,
    Images,
    Judged,
    Scorer,
    int8_sums_for,
    judge_file,
    latency_of,
    open_on_cpu,
    scorer_of,
)
from edgerecover.synthesize.image_set import ImageSet
from edgerecover.synthesize.record.file import read_record_of
from edgerecover.synthesize.record.values import Record
from edgerecover.synthesize.sets import procedural_set, synthesis_key, synthesize
from edgerecover.synthesize.settle import settle
from edgerecover.synthesize.source import Source
from edgerecover.validate.evaluation import EvalSet, read_eval_data
from edgerecover.validate.evidence import Decisions, decisions_of, doubts_of_file
from edgerecover.validate.gates import Measured, judge
from edgerecover.validate.limits import limits_of
from edgerecover.validate.scores import Scale
from edgerecover.validate.sparsity import sparsity_verdict
from edgerecover.validate.zeros import kept_zeros


@dataclass(frozen=True)
class FileRequest:
    """What a user asks of a validation; the command line's flags, resolved."""

    model_path: Path
    """The ONNX file."""
    target: Target
    profile: Profile
    work: Path
    """Where dreams are kept between runs."""
    out: Path | None = None
    """Where the bundle goes; None packs none."""
    teacher: Path | None = None
    """PyTorch checkpoint or ONNX file; None: the TOML file beside the model says."""
    student: Path | None = None
    """The PyTorch checkpoint that the file was exported from."""
    pruned: Path | None = None
    """The PyTorch checkpoint before its recovery."""
    flags: ModelFlags = NO_FLAGS
    """How to open the PyTorch networks."""
    teacher_arch: str | None = None
    """Of the teacher, where it is another."""
    eval_data: Path | None = None
    record: Path | None = None
    """Of the teacher's activations, for its dreams."""
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class _Teacher:
    """A teacher of either kind."""

    score: Scorer
    network: Classifier | None
    """None when it is an ONNX file: there is no gradient to dream along."""
    input: InputSpec
    num_classes: int
    classes: tuple[str, ...] | None
    facts: ModelFacts
    probed: Probed
    """What a trial of it showed, where it is a network."""


@dataclass(frozen=True)
class _Evidence:
    """What a file is judged on."""

    images: Images
    golden: ImageSet
    """Synthetic images, of which some go into the bundle."""
    facts: SyntheticFacts


def validate_file(request: FileRequest, progress: Progress = SILENT) -> Report:
    """Judge an ONNX file beside its teacher; the bundle, if one was asked for, is at `request.out` afterwards.

    A failed gate is in the report, not an exception.

    Raises:
        EdgeRecoverError: with the exit code and hint of what went wrong; no half-written bundle is left.
    """
    with held(request.work, request.out, progress):
        return _validate_file(request, progress)


def _validate_file(request: FileRequest, progress: Progress) -> Report:
    if request.out is not None:
        check_writable(request.out)
    compute = choose_compute(request.device)
    times: list[StageTime] = []
    with stage("load", times, progress):
        file = read_onnx(request.model_path)
        if request.out is not None:
            _check_names(file)
        teacher = _open_teacher(request, compute, progress)
        session = _open_file(file, teacher.input, teacher.num_classes, request.target)
        if teacher.probed.by_batch and session.layout.batch != 1:
            raise BadInputError(
                f"{teacher.probed.by_batch}; how a file decides that takes more than one image at once, "
                "nobody could say",
                hint="export the file for a batch of one: it is judged one image at a time then",
            )
        student, pruned = (_open_beside(request, path, teacher) for path in (request.student, request.pruned))
        eval_set = _eval_set(request, teacher, progress)
        record = _record(request, teacher)

    with stage("synthesize", times, progress) as clock:
        evidence = _evidence(request, teacher, record, eval_set, progress)
        clock.reused = evidence.facts.reused

    origin, alone = student or pruned, bool(teacher.probed.by_batch)
    with stage("validate", times, progress):
        golden_NCHW = evidence.golden.images_of(range(min(GOLDEN_IMAGES, len(evidence.golden))))
        zeros = None
        if origin:
            zeros = kept_zeros(origin.network, origin.masks, teacher.input.shape, file.path, is_from_elsewhere=True)
        judged = judge_file(
            session,
            Beside(
                teacher.score,
                pruned=scorer_of(pruned.network, one_by_one=alone) if pruned else None,
                recovered=scorer_of(student.network, one_by_one=alone) if student else None,
            ),
            evidence.images,
            eval_set,
            latency_of(file.path, golden_NCHW, request.target, request.profile.latency, progress),
            is_two_four=origin is not None and origin.facts.sparsity.pattern is Pattern.TWO_FOUR,
            is_predictable=teacher.network is not None and bool(batch_norms_of(teacher.network.network)),
            is_float32=not file.is_quantized and session.layout.dtype != "float16" and not file.is_half,
            progress=progress,
        )
        decisions = decisions_of(judged.teacher_scores, evidence.facts.source)

    device = str(teacher.probed.compute)
    report = _report(request, device, file, teacher, record, session, evidence, decisions, judged, origin, zeros, times)
    if request.out is not None:
        sheet_png, sheet = contact_sheet(evidence.golden)
        report = replace(report, sheet=sheet)
        with stage("bundle", times, progress):
            content: dict[str, Path | bytes | str] = {
                "model.onnx": file.path,
                **{name: file.path.parent / name for name in file.external},
                **golden_files(session.run, teacher.score, golden_NCHW),
                sheet.path: sheet_png,
            }
            pack(
                report,
                request.out,
                content,
                _configuration(request, teacher),
                request.target,
                request.profile,
                _precision(file),
                Provenance(
                    _lineage(report, evidence, student, pruned),
                    read_stated(request.model_path),
                    teacher.input,
                    teacher.num_classes,
                ),
            )
    return report


# --- opening --------------------------------------------------------------------------------------------------


def _open_teacher(request: FileRequest, compute: Compute, progress: Progress) -> _Teacher:
    said = resolve(request.model_path, request.flags, teacher=request.teacher)
    path = said.teacher_path
    if path is None:
        raise BadInputError(
            f"{request.model_path}: no teacher is named, and without one there is nothing to compare with",
            hint="give the dense network with --teacher (a checkpoint, or an .onnx file), or as teacher in model.toml",
        )
    if not path.exists():
        raise BadInputError(f"teacher {path}: no such file", hint="correct --teacher, or teacher in model.toml")
    if is_onnx(path):
        return _open_onnx_teacher(request, path, compute)
    opened = open_classifier(
        path,
        replace(request.flags, arch=request.teacher_arch or request.flags.arch),
        belongs_to=request.model_path,
        is_teacher=True,
    )
    probed = probe_networks({TEACHER: opened.network}, opened.input, compute, progress)
    score = scorer_of(opened.network, probed.compute, one_by_one=bool(probed.by_batch))
    return _Teacher(score, opened, opened.input, opened.num_classes, opened.classes, opened.facts, probed)


def _open_onnx_teacher(request: FileRequest, path: Path, compute: Compute) -> _Teacher:
    """An ONNX file that decides; its input is what flags or a TOML file say, for the file says no mean and std."""
    said = [
        # An ONNX file has no code to run, so none needs trust.
        resolve(file, replace(request.flags, arch=None, trust_code=True), teacher=None)
        for file in (path, request.model_path)
    ]
    input = next((spec.input for spec in said if spec.input), None)
    if input is None:
        raise BadInputError(
            f"teacher {path}: what its input looks like is not known; an ONNX file does not say mean and std",
            hint="give --input-shape, --mean and --std, or an [input] table in model.toml beside it",
        )
    file = read_onnx(path)
    session = _open_file(file, input, None, request.target)
    num_classes = session.num_classes
    classes = next((spec.classes for spec in said if spec.classes), None)
    if classes and len(classes) != num_classes:
        raise BadInputError(
            f"teacher {path}: {num_classes} classes come out, but model.toml names {len(classes)}",
            hint="correct `classes` in model.toml",
        )
    return _Teacher(session.run, None, input, num_classes, classes, file.facts, Probed(compute))


def _open_file(file: OnnxFile, input: InputSpec, num_classes: int | None, target: Target) -> Session:
    """The file in this process, once it has lived through a first run in another."""
    try:
        probe(file.path, input.shape, num_classes)
    except BadInputError as error:
        if foreign := own_operators(file.model):
            raise BadInputError(
                f"{error.message}; it uses operators of its own: {', '.join(foreign[:5])}",
                hint="export it with standard ONNX operators: what onnxruntime cannot run cannot be judged here",
            ) from error
        raise
    return open_on_cpu(file.path, input.shape, num_classes, int8_sums_for(target))


def _check_names(file: OnnxFile) -> None:
    """Weight files keep their names in a bundle, where some names are taken."""
    taken = {*RESERVED_NAMES, "model.onnx"}
    try:
        check_paths(dict.fromkeys(file.external))
        clash = next((name for name in file.external if name.partition("/")[0].casefold() in taken), None)
    except ValueError as error:
        clash = str(error)
    if clash is not None:
        raise BadInputError(
            f"{file.path}: its weights lie in {clash}, a name that a bundle cannot hold beside its own files",
            hint="save the model anew with its weights inside, or under another name",
        )


def _open_beside(request: FileRequest, path: Path | None, teacher: _Teacher) -> Classifier | None:
    if path is None:
        return None
    opened = open_classifier(
        path,
        request.flags,
        belongs_to=request.model_path,
        teacher=teacher.network.network if teacher.network else None,
    )
    if (opened.num_classes, opened.input.shape) != (teacher.num_classes, teacher.input.shape):
        raise BadInputError(
            f"{path}: takes {list(opened.input.shape)} and tells {opened.num_classes} classes apart, the teacher "
            f"{list(teacher.input.shape)} and {teacher.num_classes}",
            hint="name the network that this file was made from",
        )
    return opened


def _eval_set(request: FileRequest, teacher: _Teacher, progress: Progress) -> EvalSet | None:
    if request.eval_data is None:
        return None
    return read_eval_data(request.eval_data, teacher.input, teacher.num_classes, teacher.classes, progress)


# --- what it is judged on -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RealImages:
    """Labelled images without their labels."""

    labelled: EvalSet

    def __len__(self) -> int:
        return len(self.labelled)

    def batches(self, batch_size: int) -> Iterator[Any]:
        return (images_NCHW for images_NCHW, _ in self.labelled.batches(batch_size))


def _record(request: FileRequest, teacher: _Teacher) -> Record | None:
    if teacher.network is None and request.record is not None:
        raise BadInputError(
            f"--record {request.record}: a record steers dreams, and an ONNX teacher has none",
            hint="give the teacher's PyTorch checkpoint",
        )
    return read_record_of(request.record, teacher.network.network, teacher.input.shape) if teacher.network else None


def _evidence(
    request: FileRequest, teacher: _Teacher, record: Record | None, eval_set: EvalSet | None, progress: Progress
) -> _Evidence:
    """Held-back dreams; of an ONNX teacher, real images where there are some, else fractals."""
    if teacher.network is not None:
        compute, network = teacher.probed.compute, teacher.network.network
        source = Source(network, teacher.input, teacher.num_classes, compute, record)
        settled = settle(request.profile, source, progress)
        settings = settled.profile.synthesis
        folder = request.work / f"dreams-{synthesis_key(source, settings, request.seed)}"
        sets, facts = synthesize(
            source, settings, seed=request.seed, folder=folder, splits=("held_back",), progress=progress
        )
        network.cpu()
        facts = replace(facts, mirror_correlation=settled.mirror_correlation)
        return _Evidence(sets.held_back, sets.held_back, facts)
    described = json.dumps([to_json(teacher.input), request.seed], sort_keys=True)
    folder = request.work / f"fractals-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    fractals, facts = procedural_set(
        teacher.input, request.profile.synthesis.num_held_back, seed=request.seed, folder=folder
    )
    if eval_set is None:
        return _Evidence(fractals, fractals, facts)
    real = SyntheticFacts(0, 0, len(eval_set), None, 0.0, facts.reused, "real images")
    return _Evidence(_RealImages(eval_set), fractals, real)


# --- the report -----------------------------------------------------------------------------------------------


def _report(
    request: FileRequest,
    device: str,
    file: OnnxFile,
    teacher: _Teacher,
    record: Record | None,
    session: Session,
    evidence: _Evidence,
    decisions: Decisions,
    judged: Judged,
    origin: Classifier | None,
    zeros: KeptZeros | None,
    times: list[StageTime],
) -> Report:
    exported = file.exported(session.batch)
    return Report(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seed=request.seed,
        device=device,
        data_used=data_used(record is not None, judged.accuracy is not None),
        target=request.target.name,
        target_description=request.target.description,
        profile=request.profile.name,
        student=without_folder(file.facts),
        teacher=without_folder(teacher.facts),
        recovered_sparsity=file.sparsity,
        record=record_facts(record, request.record),
        synthetic=evidence.facts,
        rungs=(),
        exported=exported,
        parity=judged.parity,
        fidelity=judged.fidelity,
        latency=judged.latency,
        accuracy=judged.accuracy,
        sparsity_verdict=sparsity_verdict(
            file.sparsity.pattern,
            file.sparsity.sparsity,
            request.target.sparse.value,
            request.target.runtime.value,
            exported,
            zero_channels=file.sparsity.zero_channels,
        ),
        gates=judge(
            limits_of(request.profile, request.target),
            Measured(
                judged.fidelity,
                judged.parity,
                zeros,
                exported,
                judged.latency,
                judged.accuracy,
                judged.two_four,
                is_from_elsewhere=True,
                precision_loss=judged.precision_loss,
            ),
        ),
        stages=tuple(times),
        warnings=(
            *teacher.probed.warnings,
            *_remarks(file, teacher, session, evidence, judged),
            *judged.notes,
            *doubts_of_file(decisions, evidence.facts, judged.fidelity, judged.accuracy, teacher.classes),
        ),
        tool_versions=tool_versions(),
        precision_loss=judged.precision_loss,
        int8_sums=int8_sums_for(request.target) if file.is_quantized else None,
        classes=teacher.classes or (),
    )


def _remarks(
    file: OnnxFile,
    teacher: _Teacher,
    session: Session,
    evidence: _Evidence,
    judged: Judged,
) -> Iterator[str]:
    """What is odd about the file, and what that means for the numbers."""
    if teacher.network is None:
        yield (
            f"the teacher is an ONNX file, which gives no gradients to dream along: the file was judged on "
            f"{len(evidence.images):,} {evidence.facts.source}"
            + ("" if judged.accuracy else ", which is much less evidence; give --eval-data or a PyTorch teacher")
        )
    if len(session.outputs) > 1:
        name = session.outputs[session.output_index]
        yield f"the file has {len(session.outputs)} outputs ({', '.join(session.outputs)}); {name} was judged"
    if judged.scale is not Scale.LOGITS:
        yield f"the file gives {judged.scale.value}, not logits: decisions are the same, differences are on that scale"
    if session.layout.channels_last:
        yield "the file takes its images channels last (N, H, W, C); the golden inputs are (N, C, H, W)"
    if file.is_quantized:
        yield "the file is quantized: zeros were counted where a weight stands for 0"
    if file.facts.uncounted:
        yield f"weights of these layers were not counted: {'; '.join(file.facts.uncounted[:5])}"
    if not file.sparsity.num_weights:
        yield "no Conv, Gemm or MatMul weight was found in the file: its sparsity is not known"


def _precision(file: OnnxFile) -> Precision:
    """The coarsest that it computes in."""
    if file.is_quantized:
        return Precision.INT8
    return Precision.FP16 if file.is_half else Precision.FP32


def _lineage(
    report: Report, evidence: _Evidence, student: Classifier | None, pruned: Classifier | None
) -> dict[str, Origin]:
    """What came from outside, and the images that were made here. How the file was made is not known."""
    origins = checkpoint_origins(report.student, report.teacher, report.record)
    del origins["pruned"]
    for name, what, network in (("pruned", "pruned", pruned), ("student", "recovered", student)):
        if network is not None:
            facts = network.facts
            origins[name] = Origin(f"{what} checkpoint, as named by the user", facts.sha256, name=Path(facts.path).name)
    origins["given"] = Origin(
        "ONNX file from elsewhere", report.student.sha256, name=report.student.path, file="model.onnx"
    )
    parents = tuple(name for name in ("dense", "record") if name in origins)
    is_dreamt = evidence.facts.source == "dreams"
    return {**origins, **image_origins({"held_back": evidence.golden}, parents if is_dreamt else ())}


def _configuration(request: FileRequest, teacher: _Teacher) -> dict[str, Any]:
    return {
        "model": request.model_path.name,
        "teacher": Path(teacher.facts.path).name,
        "student": request.student.name if request.student else None,
        "pruned": request.pruned.name if request.pruned else None,
        "architecture": teacher.facts.architecture,
        "input": to_json(teacher.input),
        "classes": list(teacher.classes) if teacher.classes else None,
        "seed": request.seed,
        "target": request.target.model_dump(mode="json", exclude_none=True),
        "profile": request.profile.model_dump(mode="json"),
    }
