"""The validate stage: an ONNX file beside its teacher, beside what it was made from, and against the clock."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - runs networks; only what calls the stages imports it

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from edgerecover.artifacts import (
    Accuracy,
    Decisions,
    Fidelity,
    Int8Sums,
    Latency,
    Parity,
    PrecisionLoss,
    Proportion,
    TwoFour,
)
from edgerecover.compute import PLAIN, Compute, judged_at_once
from edgerecover.config import LatencySettings, Target
from edgerecover.export.two_four import check_two_four
from edgerecover.files import npy_bytes
from edgerecover.models.network.outputs import as_it_is
from edgerecover.progress import SILENT, Progress, Task
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.session.onnxruntime import Session, open_session
from edgerecover.runtime.session.opened import Opened
from edgerecover.runtime.surfaces import file_surface_of, int8_sums_of
from edgerecover.validate.by_class import by_class, decided
from edgerecover.validate.evaluation import EvalSet
from edgerecover.validate.fidelity import agreement, agrees
from edgerecover.validate.parity import compare, precision_loss
from edgerecover.validate.prediction import predict
from edgerecover.validate.scores import Scale, as_logits, on_scale, scale_of

_FOREIGN_HOST_PROVIDERS = ("CPUExecutionProvider",)
"""What judges a file on a machine that is not the target: every onnxruntime has it."""
_BATCH = 128

Scores = np.ndarray[Any, Any]
Scorer = Callable[[Any], Scores]
"""From network inputs, float32 (N, C, H, W), to class scores (N, K)."""


class Images(Protocol):
    """Network inputs that are read in batches."""

    def __len__(self) -> int:
        """N."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """All images in order, float32 (n, C, H, W)."""


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
    """On the held-back images, (N, K)."""
    notes: tuple[str, ...] = ()
    """What was left out of the real images, or converted."""


def scorer_of(network: nn.Module, compute: Compute = PLAIN, *, one_by_one: bool = False) -> Scorer:
    """A network as a scorer, with the outputs that it has by itself: float32, on the CPU, in eval mode.

    It is moved there, in `compute`'s memory format. `one_by_one` is for networks that decide by the batch.
    """
    cpu = compute.on_cpu()
    network = cpu.place(as_it_is(network)).eval()

    @torch.no_grad()
    def score(images_NCHW: Scores) -> Scores:
        at_once = 1 if one_by_one else judged_at_once(images_NCHW.shape[1:])
        parts = torch.split(cpu.images(images_NCHW), at_once)
        scores_NK: Scores = torch.cat([network(part).float() for part in parts]).numpy()
        return scores_NK

    return score


def int8_sums_for(target: Target) -> Int8Sums:
    """How int8 is added up here where agreement with a target's file is measured."""
    return int8_sums_of(target.deployment)


def open_on_cpu(
    onnx_path: Path, shape_CHW: tuple[int, int, int], num_classes: int | None, sums: Int8Sums = Int8Sums.EXACT
) -> Session:
    """The file as it is judged.

    Raises:
        BadInputError: it is not such a classifier.
    """
    return open_session(
        onnx_path,
        _FOREIGN_HOST_PROVIDERS,
        strict=True,
        shape_CHW=shape_CHW,
        num_classes=num_classes,
        exact_int8=sums is Int8Sums.EXACT,
    )


def scores_of(scorer: Scorer, images: Images, task: Task | None = None) -> Scores:
    """Class scores (N, K) of all images, each counted in `task`."""
    scores_NK: Scores | None = None
    start = 0
    for batch_NCHW in images.batches(_BATCH):
        scores_nK = scorer(batch_NCHW)
        if scores_NK is None:  # not collected and joined: that takes twice the memory
            scores_NK = np.empty((len(images), scores_nK.shape[1]), scores_nK.dtype)
        scores_NK[start : start + len(scores_nK)] = scores_nK
        start += len(scores_nK)
        if task is not None:
            task.advance(len(batch_NCHW))
    if scores_NK is None or start != len(images):
        raise ValueError(f"scores of {len(images)} images were expected, found {start}")
    return scores_NK


def judge_file(
    session: Opened,
    beside: Beside,
    held_back: Images,
    eval_set: EvalSet | None,
    latency: Latency,
    *,
    is_two_four: bool,
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
        is_two_four: the file's weights are to be 2:4.
        is_predictable: the held-back images are dreams that real accuracy can be predicted from.
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
            decisions=decisions(agrees(exported, teacher), held_back.batches(_BATCH)),
        ),
        parity=None if recovered is None or float32 is None else compare(_on_scale_of_file(recovered, scale), float32),
        precision_loss=None if is_float32 or reference is None else precision_loss(teacher, reference, exported),
        accuracy=_on_real_images(session, beside, eval_set, progress),
        latency=latency,
        two_four=check_two_four(session.path) if is_two_four else None,
        scale=scale,
        teacher_scores=teacher,
        notes=eval_set.notes if eval_set is not None else (),
    )


def _on_scale_of_file(scores_NK: Scores, scale: Scale) -> Scores:
    """A network that ends in softmax is on the scale of its file already."""
    return scores_NK if scale_of(scores_NK) is scale else on_scale(as_logits(scores_NK), scale)


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
        for images_NCHW, labels_n in eval_set.batches(_BATCH):
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


def _sha256(array: Scores) -> bytes:
    return hashlib.sha256(array.tobytes()).digest()


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


def timing_of(settings: LatencySettings) -> Timing:
    """A profile's settings as the race takes them."""
    return Timing(settings.num_warmup, settings.min_queries, settings.min_duration_s)


def latency_of(
    onnx_path: Path,
    golden_NCHW: Scores,
    target: Target,
    settings: LatencySettings,
    progress: Progress = SILENT,
) -> Latency:
    """Measured in a fresh process without torch, so that memory and threads are the runtime's own."""
    surface = file_surface_of(target.deployment)
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        golden_path = Path(folder) / "golden.npy"
        golden_path.write_bytes(npy_bytes(golden_NCHW))
        entrant = Entrant(onnx_path.name, onnx_path, surface.runtime, surface.providers)
        (raced,) = race([entrant], golden_path, timing_of(settings), target=target.needs, progress=progress)
    return raced.latency_or_error()
