"""What the stages found, put into the report that is shown, stored and gated on."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover import __version__
from edgerecover.artifacts import (
    Exported,
    Int8Sums,
    ModelFacts,
    Precision,
    Race,
    RecordFacts,
    Report,
    Rung,
    Sheet,
    Sparsity,
    StageTime,
    SyntheticFacts,
    TaskKind,
)
from edgerecover.export.onnx import frozen_values
from edgerecover.models.network.sparsity import measure
from edgerecover.validation.evidence import Claims, decisions_of, doubts, doubts_of_file
from edgerecover.validation.gates import Measured, judge
from edgerecover.validation.limits import limits_of
from edgerecover.validation.scores import Scale
from edgerecover.validation.scoring import int8_sums_for
from edgerecover.validation.sparsity import sparsity_verdict

if TYPE_CHECKING:
    from edgerecover.recovery.ladder import Recovered
    from edgerecover.stages.load import Loaded
    from edgerecover.stages.load_file import LoadedFile
    from edgerecover.stages.npu import NpuFiles
    from edgerecover.stages.request import FileRequest, Request
    from edgerecover.stages.synthesize import Evidence, Images
    from edgerecover.stages.validate import Judged, Made
    from edgerecover.synthesis.record.values import Record
    from edgerecover.validation.evidence import Decisions


@dataclass(frozen=True)
class _Findings:
    """What every report is about, whether the file was made here or elsewhere."""

    device: str
    student: ModelFacts
    teacher: ModelFacts
    classes: tuple[str, ...] | None
    sparsity: Sparsity
    """Of the network or file that is judged."""
    record: Record | None
    synthetic: SyntheticFacts
    exported: Exported
    """The file that is judged."""
    float32: Exported
    """What its zeros are weighed by."""
    judged: Judged
    warnings: tuple[str, ...]
    int8_sums: Int8Sums | None
    rungs: tuple[Rung, ...] = ()
    race: Race | None = None
    same_architecture: bool = True
    is_from_elsewhere: bool = False


def report_of_run(
    request: Request,
    loaded: Loaded,
    images: Images,
    recovered: Recovered,
    made: Made,
    judged: Judged,
    decisions: Decisions | None,
    sheet: Sheet,
    times: list[StageTime],
) -> Report:
    """The report of a whole run.

    Args:
        request: of the user, with the profile that was run.
        loaded: networks and what a trial of them showed.
        images: synthetic ones.
        recovered: student and rungs.
        made: files, engines and their race.
        judged: the file that ships.
        decisions: of the teacher on the dreams to learn from; None for tasks without classes.
        sheet: the picture of dreams.
        times: of the stages so far; those that end later are added to the list.
    """
    models, race = loaded.models, made.race
    named = tuple(
        replace(variant, file=replace(variant.file, path=race.path_in_bundle(variant.precision)))
        for variant in made.variants.made
    )
    shipped = next(variant for variant in named if variant.precision is race.shipped.precision)
    findings = _Findings(
        device=str(loaded.compute),
        student=models.student_facts,
        teacher=models.teacher_facts,
        classes=models.classes,
        sparsity=measure(recovered.student, narrower=models.student_facts.macs_kept is not None),
        record=loaded.record,
        synthetic=images.facts,
        exported=shipped.file,
        float32=made.float32,
        judged=judged,
        warnings=_warnings(loaded, images, recovered, made, judged, decisions),
        int8_sums=int8_sums_for(request.target) if race.judged(Precision.INT8) else None,
        rungs=recovered.rungs,
        race=race,
        same_architecture=models.same_architecture,
    )
    return replace(
        _report(request, findings, times),
        lineage=recovered.lineage,
        variants=named,
        race=race,
        engines=made.engines.built,
        npu=made.npu.made,
        sheet=sheet,
    )


def _warnings(
    loaded: Loaded, images: Images, recovered: Recovered, made: Made, judged: Judged, decisions: Decisions | None
) -> tuple[str, ...]:
    models = loaded.models
    return (
        *models.warnings,
        *loaded.probed.warnings,
        *images.facts.warnings,
        *recovered.warnings,
        *frozen_values(made.float32),
        *judged.notes,
        *made.engines.notes,
        *made.npu.notes,
        *doubts(
            Claims(decisions, images.facts, judged.fidelity, judged.accuracy, models.classes, models.output.task),
            models.student_facts,
            models.teacher_facts,
            recovered.rungs,
            recovered.lineage,
            same_architecture=models.same_architecture,
            has_record=loaded.record is not None,
        ),
    )


def report_of_file(
    request: FileRequest,
    loaded: LoadedFile,
    evidence: Evidence,
    judged: Judged,
    npu: NpuFiles,
    times: list[StageTime],
) -> Report:
    """The report of a file from elsewhere.

    Args:
        request: of the user.
        loaded: file, teacher, and the networks it came from where they are known.
        evidence: what it was judged on.
        judged: the file.
        npu: what was compiled from it.
        times: of the stages so far; those that end later are added to the list.
    """
    file, teacher = loaded.file, loaded.teacher
    decisions = decisions_of(judged.teacher_scores, teacher.reference.measure, evidence.facts.source)
    exported = file.exported(loaded.session.batch)
    findings = _Findings(
        device=str(teacher.probed.compute),
        student=file.facts,
        teacher=teacher.facts,
        classes=teacher.classes,
        sparsity=file.sparsity,
        record=loaded.record,
        synthetic=evidence.facts,
        exported=exported,
        float32=exported,
        judged=judged,
        warnings=(
            *teacher.probed.warnings,
            *_remarks(loaded, evidence, judged),
            *judged.notes,
            *npu.notes,
            *doubts_of_file(
                Claims(
                    decisions, evidence.facts, judged.fidelity, judged.accuracy, teacher.classes, teacher.output.task
                )
            ),
        ),
        int8_sums=int8_sums_for(request.target) if file.is_quantized else None,
        is_from_elsewhere=True,
    )
    return replace(_report(request, findings, times), npu=npu.made)


def _report(request: Request | FileRequest, found: _Findings, times: list[StageTime]) -> Report:
    judged, target = found.judged, request.target
    measured = Measured(
        judged.fidelity,
        judged.parity,
        judged.zeros,
        found.exported,
        judged.latency,
        judged.accuracy,
        judged.two_four,
        is_from_elsewhere=found.is_from_elsewhere,
        same_architecture=found.same_architecture,
        precision_loss=judged.precision_loss,
        task=found.teacher.output.task if found.teacher.output else TaskKind.ONE_LABEL,
    )
    return Report(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seed=request.seed,
        device=found.device,
        data_used=data_used(found.record is not None, judged.accuracy is not None),
        target=target.name,
        target_description=target.description,
        profile=request.profile.name,
        student=_without_folder(found.student),
        teacher=_without_folder(found.teacher),
        recovered_sparsity=found.sparsity,
        record=_record_facts(found.record, request.record),
        synthetic=found.synthetic,
        rungs=found.rungs,
        exported=found.exported,
        parity=judged.parity,
        fidelity=judged.fidelity,
        latency=judged.latency,
        accuracy=judged.accuracy,
        sparsity_verdict=sparsity_verdict(
            found.sparsity.pattern,
            found.sparsity.sparsity,
            target.sparse.value,
            (target.runtime.value, *target.deployment.also_runtimes),
            found.float32,
            found.race,
            found.sparsity.zero_channels,
        ),
        gates=judge(limits_of(request.profile, target), measured),
        stages=tuple(times),
        warnings=found.warnings,
        tool_versions=tool_versions(),
        same_architecture=found.same_architecture,
        precision_loss=judged.precision_loss,
        int8_sums=found.int8_sums,
        classes=found.classes or (),
    )


def _remarks(loaded: LoadedFile, evidence: Evidence, judged: Judged) -> Iterator[str]:
    """What is odd about the file, and what that means for the numbers."""
    file, session = loaded.file, loaded.session
    if loaded.teacher.network is None:
        yield (
            f"the teacher is an ONNX file, which gives no gradients for dreams: the file was judged on "
            f"{len(evidence.images):,} {evidence.facts.source}"
            + ("" if judged.accuracy else ", which is much weaker evidence; give --eval-data or a PyTorch teacher")
        )
    if len(session.outputs) > len(session.output_indices):
        names = " and ".join(session.outputs[index] for index in session.output_indices)
        verb = "was" if len(session.output_indices) == 1 else "were"
        yield f"the file has {len(session.outputs)} outputs ({', '.join(session.outputs)}); {names} {verb} judged"
    if judged.scale is not Scale.LOGITS:
        scale = judged.scale.value
        yield f"the file gives {scale}, not logits: decisions are the same; differences are measured on that scale"
    if session.layout.channels_last:
        yield "the file takes its images channels last (N, H, W, C); the golden inputs are (N, C, H, W)"
    if file.is_quantized:
        yield "the file is quantized: weights that dequantize to 0 count as zeros"
    if file.facts.uncounted:
        yield f"weights of these layers were not counted: {'; '.join(file.facts.uncounted[:5])}"
    if not file.sparsity.num_weights:
        yield "no Conv, Gemm or MatMul weight found in the file: its sparsity is unknown"


def _without_folder(facts: ModelFacts) -> ModelFacts:
    """A report travels: it names the user's files, not where they lay."""
    return replace(facts, path=Path(facts.path).name)


def _record_facts(record: Record | None, path: Path | None) -> RecordFacts | None:
    """A record as a report shows it; None where there is none."""
    if record is None or path is None:
        return None
    return RecordFacts(path.name, record.sha256, path.stat().st_size, record.kind, record.num_images, record.noise)


def data_used(has_record: bool, has_real_images: bool) -> str:
    """What of real data had a part in a result: "none", "record", "eval-only" or both."""
    used = [name for name, is_used in (("record", has_record), ("eval-only", has_real_images)) if is_used]
    return ", ".join(used) or "none"


def tool_versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    packages = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy")
    own = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    with suppress(PackageNotFoundError):
        own["MNN"] = version("MNN")
    return own
