"""The validate stage: an ONNX file beside its teacher, beside what it was made from, and against the clock."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - runs networks; only what calls the stages imports it

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgerecover.artifacts import (
    Accuracy,
    Decisions,
    Exported,
    Fidelity,
    KeptZeros,
    Latency,
    Parity,
    Pattern,
    Precision,
    PrecisionLoss,
    Proportion,
    Race,
    TwoFour,
    Variant,
)
from edgerecover.export.two_four import check_two_four
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.network.outputs import Outputs, declared_outputs
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
from edgerecover.validation.by_class import by_class, decided
from edgerecover.validation.evaluation import EvalSet
from edgerecover.validation.fidelity import agreement, agrees
from edgerecover.validation.parity import compare, precision_loss
from edgerecover.validation.prediction import predict
from edgerecover.validation.scores import Scale, as_logits, on_scale, scale_of
from edgerecover.validation.scoring import BATCH, Scorer, Scores, open_on_cpu, scorer_of, scores_of
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

    teacher: Scorer
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
    """On the held-out images, (N, K)."""
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
    teacher: Scorer,
    progress: Progress = SILENT,
) -> Judged:
    """Judge the file that ships beside teacher, pruned and recovered network.

    Args:
        request: of the user.
        loaded: networks and real images.
        images: of which the held-out ones decide.
        recovered: what the file was made from.
        made: the files, and which of them ships.
        teacher: the teacher's scores.
        progress: where to report.

    Raises:
        EdgeRecoverError: the file no longer opens.
    """
    models, shipped, alone = loaded.models, made.shipped, loaded.one_by_one
    shape_CHW, num_classes = models.input.shape, models.num_classes
    judged = judge_file(
        open_runner(made.race.shipped, shipped, request.target, shape_CHW, num_classes),
        Beside(
            teacher,
            scorer_of(models.student, loaded.compute, one_by_one=alone),
            scorer_of(recovered.student, loaded.compute, one_by_one=alone),
            open_on_cpu(Path(made.float32.path), shape_CHW, num_classes).run,
        ),
        images.sets.held_back,
        loaded.eval_set,
        made.race.latency,
        two_four=Path(shipped.file.path) if models.student_facts.sparsity.pattern is Pattern.TWO_FOUR else None,
        # Measured on students of their teacher's architecture, on dreams that batch norm guides; of those that others
        # have trained far too little is predicted (docs/adr/0009).
        is_predictable=models.same_architecture
        and bool(batch_norms_of(models.teacher))
        and declared_outputs(models.teacher) is not Outputs.SIGMOIDS
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
        Beside(teacher.score, pruned, recovered),
        evidence.images,
        loaded.eval_set,
        latency_of(file.path, golden_NCHW, request.target, request.profile.latency, progress),
        two_four=file.path if origin is not None and origin.facts.sparsity.pattern is Pattern.TWO_FOUR else None,
        is_predictable=teacher.network is not None and bool(batch_norms_of(teacher.network.network)),
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
    scorers = (beside.teacher, session.run, beside.pruned, beside.recovered, beside.float32)
    total = len(held_back) * sum(scorer is not None for scorer in scorers)
    with progress.task("judge", total, "decisions") as task:
        teacher = scores_of(beside.teacher, held_back, task)
        exported = scores_of(session.run, held_back, task)
        pruned, recovered, float32 = (
            scores_of(scorer, held_back, task) if scorer else None
            for scorer in (beside.pruned, beside.recovered, beside.float32)
        )
    if is_float32:
        float32 = exported
    scale = scale_of(exported)
    reference = recovered if float32 is None else float32
    return Judged(
        fidelity=Fidelity(
            pruned=None if pruned is None else agreement(pruned, teacher),
            recovered=None if recovered is None else agreement(recovered, teacher),
            exported=agreement(exported, teacher),
            predicted=predict(as_logits(exported), as_logits(teacher)) if is_predictable else None,
            by_class=by_class(
                decided(teacher), decided(exported), None if pruned is None else decided(pruned), teacher.shape[1]
            ),
            decisions=decisions(agrees(exported, teacher), held_back.batches(BATCH)),
        ),
        parity=None if recovered is None or float32 is None else compare(on_scale(recovered, scale), float32),
        precision_loss=None if is_float32 or reference is None else precision_loss(teacher, reference, exported),
        accuracy=_on_real_images(session, beside, eval_set, progress),
        latency=latency,
        two_four=check_two_four(two_four) if two_four else None,
        scale=scale,
        teacher_scores=teacher,
        notes=eval_set.notes if eval_set is not None else (),
    )


def _on_real_images(session: Opened, beside: Beside, eval_set: EvalSet | None, progress: Progress) -> Accuracy | None:
    """Top-1 of all there are on the same labelled images, streamed."""
    if eval_set is None:
        return None
    named = {"teacher": beside.teacher, "pruned": beside.pruned, "recovered": beside.recovered, "exported": session.run}
    scorers = {name: scorer for name, scorer in named.items() if scorer is not None}
    parts: dict[str, list[Any]] = {name: [] for name in scorers}
    labels: list[Any] = []
    digest = hashlib.sha256()
    num_classes = 0
    with progress.task("real images", len(eval_set), "images") as task:
        num_right = num_seen = 0
        for images_NCHW, labels_n in eval_set.batches(BATCH):
            digest.update(np.ascontiguousarray(images_NCHW).tobytes())
            labels.append(labels_n)
            for name, scorer in scorers.items():
                scores_nK = scorer(images_NCHW)
                num_classes = scores_nK.shape[1]
                parts[name].append(decided(scores_nK))
            num_right += int((parts["exported"][-1] == labels_n).sum())
            num_seen += len(labels_n)
            task.advance(len(labels_n), accuracy=num_right / num_seen)
    labels_N = np.concatenate(labels)
    classes = {name: np.concatenate(batches) for name, batches in parts.items()}
    hits = {name: decided_N == labels_N for name, decided_N in classes.items()}
    total = len(eval_set)
    proportions = {name: Proportion(int(values.sum()), total) for name, values in hits.items()}
    return Accuracy(
        source=eval_set.source,
        num_images=total,
        teacher=proportions["teacher"],
        pruned=proportions.get("pruned"),
        recovered=proportions.get("recovered"),
        exported=proportions["exported"],
        teacher_only=int((hits["teacher"] & ~hits["exported"]).sum()),
        exported_only=int((hits["exported"] & ~hits["teacher"]).sum()),
        by_class=by_class(labels_N, classes["exported"], classes.get("pruned"), num_classes),
        decisions=Decisions(
            _joint(digest.digest(), hashlib.sha256(labels_N.astype(np.int64).tobytes()).digest()),
            _as_digits(hits["exported"]),
        ),
    )


def _joint(*digests: bytes) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def decisions(right_N: Any, batches_NCHW: Iterable[Any]) -> Decisions:
    """Which images a model has right, and which images they are."""
    digest = hashlib.sha256()
    for batch_NCHW in batches_NCHW:
        digest.update(np.ascontiguousarray(batch_NCHW).tobytes())
    return Decisions(digest.hexdigest(), _as_digits(right_N))


def _as_digits(right_N: Any) -> str:
    return "".join("1" if right else "0" for right in right_N)
