"""The validate stage: an ONNX file beside its teacher, beside what it was made from, and against the clock."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - runs networks; only what calls the stages imports it

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgerecover.artifacts import (
    Accuracy,
    Activation,
    ByClass,
    Decisions,
    Exported,
    Fidelity,
    KeptZeros,
    Latency,
    Parity,
    Pattern,
    Precision,
    PrecisionLoss,
    Race,
    TaskKind,
    TwoFour,
    Variant,
)
from edgerecover.export.two_four import check_two_four
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.progress import SILENT, Progress
from edgerecover.recovery.ladder import Recovered
from edgerecover.runtime.session.opened import Opened
from edgerecover.stages.engine import Engines
from edgerecover.stages.load import Loaded
from edgerecover.stages.load_file import LoadedFile
from edgerecover.stages.npu import NpuFiles
from edgerecover.stages.precision import Variants
from edgerecover.stages.race import latency_of, open_runner
from edgerecover.stages.request import FileRequest, Request
from edgerecover.stages.synthesize import Evidence, Images
from edgerecover.tasks.measure import Answers, Measure, Outputs, at_once
from edgerecover.validation.by_class import by_class
from edgerecover.validation.constants import notes_of_constants
from edgerecover.validation.evaluation import EvalSet
from edgerecover.validation.fidelity import only_first, proportion
from edgerecover.validation.parity import compare, precision_loss
from edgerecover.validation.prediction import predict
from edgerecover.validation.scores import Scale, as_logits, on_scale, scale_of
from edgerecover.validation.scoring import BATCH, Reference, Scorer, Scores, open_on_cpu, outputs_of, scorer_of
from edgerecover.validation.scoring import Images as ScoredImages
from edgerecover.validation.zeros import kept_zeros


@dataclass(frozen=True)
class Made:
    """The files of a recovered network, and how they raced."""

    float32: Exported
    variants: Variants
    engines: Engines
    npu: NpuFiles
    race: Race

    @property
    def shipped(self) -> Variant:
        """The winner, its path in full."""
        return next(one for one in self.variants.made if one.precision is self.race.shipped.precision)


@dataclass(frozen=True)
class Beside:
    """What a file is judged beside."""

    teacher: Reference
    pruned: Scorer | None = None
    """The network before its recovery, where it is known."""
    recovered: Scorer | None = None
    """The PyTorch network that the file was made from, where it is known."""
    float32: Scorer | None = None
    """The float32 file that a file of lower precision was made from, where it is known."""


@dataclass(frozen=True)
class Judged:
    """All that was measured of one file."""

    fidelity: Fidelity
    parity: Parity | None
    """Of the float32 file with the PyTorch network that it was made from; None where either is not known."""
    precision_loss: PrecisionLoss | None
    """Of a file of lower precision, against the float32 file or, where that is not known, the PyTorch network."""
    latency: Latency
    accuracy: Accuracy | None
    """None without real images."""
    two_four: TwoFour | None
    """Of the file's own weights; None where nothing says that they are to be 2:4."""
    scale: Scale
    """Of the file's scores."""
    teacher_scores: Scores
    """On the held-out images, (N, D); of maps, on the first of them."""
    notes: tuple[str, ...] = ()
    """What was left out of the real images, or converted."""
    zeros: KeptZeros | None = None
    """Of the student's pruned weights, in the file; None where no such student is known."""


def judge_run(
    request: Request,
    loaded: Loaded,
    images: Images,
    recovered: Recovered,
    made: Made,
    teacher: Reference,
    progress: Progress = SILENT,
) -> Judged:
    """Judge the file that ships beside teacher, pruned and recovered network.

    Args:
        request: of the user.
        loaded: networks and real images.
        images: of which the held-out ones decide.
        recovered: what the file was made from.
        made: the files, and which of them ships.
        teacher: whose answers are the reference.
        progress: where to report.

    Raises:
        EdgeRecoverError: the file no longer opens.
    """
    models, shipped, alone = loaded.models, made.shipped, loaded.one_by_one
    shape_CHW, output = models.input.shape, models.output
    judged = judge_file(
        open_runner(made.race.shipped, shipped, request.target, shape_CHW, output.num_values_in_file),
        Beside(
            teacher,
            scorer_of(models.student, loaded.compute, one_by_one=alone),
            scorer_of(recovered.student, loaded.compute, one_by_one=alone),
            open_on_cpu(Path(made.float32.path), shape_CHW, output.num_values_in_file).run,
        ),
        images.sets.held_back,
        loaded.eval_set,
        made.race.latency,
        two_four=Path(shipped.file.path) if models.student_facts.sparsity.pattern is Pattern.TWO_FOUR else None,
        # Measured on students of their teacher's architecture, on dreams that batch norm guides; of those that others
        # have trained far too little is predicted (docs/adr/0009).
        is_predictable=models.same_architecture
        and bool(batch_norms_of(models.teacher))
        and output.task is TaskKind.ONE_LABEL
        and models.teacher_facts.output is not None
        and models.teacher_facts.output.activation is not Activation.SIGMOID
        and not alone
        and not recovered.handed_back,
        is_float32=shipped.precision is Precision.FP32,
        progress=progress,
    )
    zeros = kept_zeros(recovered.student, models.masks, shape_CHW, Path(shipped.file.path))
    return replace(judged, zeros=zeros)


def judge_given(
    request: FileRequest, loaded: LoadedFile, evidence: Evidence, golden_NCHW: Scores, progress: Progress = SILENT
) -> Judged:
    """Judge a file from elsewhere beside its teacher and what else of its origin is known.

    Args:
        request: of the user.
        loaded: file, teacher, and the networks it came from.
        evidence: images.
        golden_NCHW: network inputs that latency is measured with.
        progress: where to report.

    Raises:
        EdgeRecoverError: the file does not run.
    """
    file, teacher, origin = loaded.file, loaded.teacher, loaded.origin
    pruned, recovered = (
        scorer_of(known.network, one_by_one=loaded.one_by_one) if known else None
        for known in (loaded.pruned, loaded.student)
    )
    judged = judge_file(
        loaded.session,
        Beside(teacher.reference, pruned, recovered),
        evidence.images,
        loaded.eval_set,
        latency_of(file.path, golden_NCHW, request.target, request.profile.latency, progress),
        two_four=file.path if origin is not None and origin.facts.sparsity.pattern is Pattern.TWO_FOUR else None,
        is_predictable=teacher.output.task is TaskKind.ONE_LABEL
        and teacher.network is not None
        and bool(batch_norms_of(teacher.network.network)),
        is_float32=not file.is_quantized and loaded.session.layout.dtype != "float16" and not file.is_half,
        progress=progress,
    )
    if origin is None:
        return judged
    zeros = kept_zeros(origin.network, origin.masks, teacher.input.shape, file.path, is_from_elsewhere=True)
    return replace(judged, zeros=zeros)


def judge_file(
    session: Opened,
    beside: Beside,
    held_back: ScoredImages,
    eval_set: EvalSet | None,
    latency: Latency,
    *,
    two_four: Path | None,
    is_predictable: bool,
    is_float32: bool = True,
    progress: Progress = SILENT,
) -> Judged:
    """Measure everything that gates and report ask of a file.

    Args:
        session: the file, opened.
        beside: teacher and, where they are known, the networks it came from.
        held_back: images that nothing has touched.
        eval_set: real labelled images, or None.
        latency: of the file.
        two_four: the ONNX file, where its weights are to be 2:4.
        is_predictable: the held-out images are dreams that real accuracy can be predicted from.
        is_float32: the file is; one of lower precision is meant to differ from what it was made from.
        progress: where to report.
    """
    measure = beside.teacher.measure
    scorers = (beside.teacher.score, session.run, beside.pruned, beside.recovered, beside.float32)
    total = len(held_back) * sum(scorer is not None for scorer in scorers)
    with progress.task("judge", total, measure.words.answers) as task:
        teacher = outputs_of(beside.teacher.score, held_back, measure, task)
        exported = outputs_of(session.run, held_back, measure, task)
        pruned, recovered, float32 = (
            outputs_of(scorer, held_back, measure, task) if scorer else None
            for scorer in (beside.pruned, beside.recovered, beside.float32)
        )
    if is_float32:
        float32 = exported
    scale = scale_of(exported.scores) if measure.output.task is TaskKind.ONE_LABEL else Scale.LOGITS
    reference = recovered if float32 is None else float32
    found = (("exported", exported), ("pruned", pruned), ("recovered", recovered))
    known = {name: outputs.answers for name, outputs in found if outputs is not None}
    fidelity = _with_decisions(_fidelity(known, teacher.answers, measure), exported, teacher, held_back, measure)
    if is_predictable:
        fidelity = replace(fidelity, predicted=predict(as_logits(exported.scores), as_logits(teacher.scores)))
    stuck = notes_of_constants(teacher.scores, recovered.scores, measure.output) if recovered else ()
    lost = None
    if not is_float32 and reference is not None:
        lost = precision_loss(teacher.answers, reference.answers, exported.answers, measure)
    return Judged(
        fidelity=fidelity,
        parity=compare(on_scale(recovered.scores, scale), float32.scores, measure) if recovered and float32 else None,
        precision_loss=lost,
        accuracy=_on_real_images(session, beside, eval_set, progress),
        latency=latency,
        two_four=check_two_four(two_four) if two_four else None,
        scale=scale,
        teacher_scores=teacher.scores,
        notes=(*(eval_set.notes if eval_set is not None else ()), *stuck),
    )


def _fidelity(found: Mapping[str, Answers], teacher: Answers, measure: Measure) -> Fidelity:
    """Agreement of each, "exported", "pruned" and "recovered" as far as they are known, with the teacher."""
    agreeing = {name: measure.share(answers, teacher) for name, answers in found.items()}
    proportions = {name: proportion(shares_N) for name, shares_N in agreeing.items()}
    return Fidelity(
        pruned=proportions.get("pruned"),
        recovered=proportions.get("recovered"),
        exported=proportions["exported"],
        by_class=_by_class(teacher, found, measure),
        chance=None if measure.has_classes else measure.chance(teacher),
        by_output={
            name: _fidelity(_of_output(found, name), teacher[name], one) for name, _, one in measure.parts if name
        },
    )


def _with_decisions(
    fidelity: Fidelity, exported: Outputs, teacher: Outputs, images: ScoredImages, measure: Measure
) -> Fidelity:
    whole = decisions(measure.share(exported.answers, teacher.answers), images.batches(BATCH), measure)
    by_output = {
        name: replace(
            fidelity.by_output[name],
            decisions=_decisions(whole.images_sha256, one.share(exported.answers[name], teacher.answers[name]), one),
        )
        for name, _, one in measure.parts
        if name
    }
    return replace(fidelity, decisions=whole, by_output=by_output)


def _of_output(found: Mapping[str, Answers], name: str) -> dict[str, Answers]:
    """Answers of one of several outputs."""
    return {who: answers[name] for who, answers in found.items()}


def _by_class(expected: Answers, found: Mapping[str, Answers], measure: Measure) -> ByClass | None:
    num_classes = measure.output.num_classes
    if not measure.has_classes or num_classes is None:
        return None
    return by_class(expected, found["exported"], found.get("pruned"), num_classes)


def _on_real_images(session: Opened, beside: Beside, eval_set: EvalSet | None, progress: Progress) -> Accuracy | None:
    """How right all there are on the same real images, streamed."""
    if eval_set is None:
        return None
    measure = beside.teacher.measure
    named = {
        "teacher": beside.teacher.score, "pruned": beside.pruned, "recovered": beside.recovered,
        "exported": session.run,
    }  # fmt: skip
    scorers = {name: scorer for name, scorer in named.items() if scorer is not None}
    parts: dict[str, list[Any]] = {name: [] for name in scorers}
    truths: list[Any] = []
    digest = hashlib.sha256()
    with progress.task("real images", len(eval_set), "images") as task:
        for images_NCHW, truth_n in eval_set.batches(at_once(measure.output, BATCH)):
            digest.update(np.ascontiguousarray(images_NCHW).tobytes())
            truths.append(truth_n)
            for name, scorer in scorers.items():
                parts[name].append(measure.read(scorer(images_NCHW)))
            task.advance(len(truth_n))
    truth = np.concatenate(truths)
    answers = {name: np.concatenate(batches) for name, batches in parts.items()}
    of_truth = hashlib.sha256(np.ascontiguousarray(truth).tobytes()).digest()
    return _accuracy(answers, truth, measure, eval_set.source, _joint(digest.digest(), of_truth))


def _accuracy(answers: Mapping[str, Answers], truth: Any, measure: Measure, source: str, sha256: str) -> Accuracy:
    """How right the answers of each are, `sha256` being of the images and their truth."""
    right = {name: measure.share_of_truth(found, truth) for name, found in answers.items()}
    proportions = {name: proportion(right_N) for name, right_N in right.items()}
    return Accuracy(
        source=source,
        num_images=len(truth),
        teacher=proportions["teacher"],
        pruned=proportions.get("pruned"),
        recovered=proportions.get("recovered"),
        exported=proportions["exported"],
        teacher_only=only_first(right["teacher"], right["exported"]),
        exported_only=only_first(right["exported"], right["teacher"]),
        by_class=_by_class(truth, answers, measure),
        decisions=_decisions(sha256, right["exported"], measure),
        by_output={
            name: _accuracy(_of_output(answers, name), truth[name], one, source, sha256)
            for name, _, one in measure.parts
            if name
        },
    )


def _joint(*digests: bytes) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def decisions(right_N: Any, batches_NCHW: Iterable[Any], measure: Measure) -> Decisions:
    """Which images a model has right, or how much each counts, and which images they are."""
    digest = hashlib.sha256()
    for batch_NCHW in batches_NCHW:
        digest.update(np.ascontiguousarray(batch_NCHW).tobytes())
    return _decisions(digest.hexdigest(), right_N, measure)


def _decisions(images_sha256: str, right_N: Any, measure: Measure) -> Decisions:
    if measure.words.is_graded:
        return Decisions(images_sha256, "", tuple(round(float(share), 6) for share in right_N))
    return Decisions(images_sha256, "".join("1" if right else "0" for right in right_N))
