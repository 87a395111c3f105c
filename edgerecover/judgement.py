"""The validate stage: the exported file beside teacher, student and recovered network, and against the clock."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - runs networks; only the pipeline imports it

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgerecover.artifacts import Accuracy, Fidelity, Latency, Parity, Pattern, Proportion, TwoFour
from edgerecover.config import LatencySettings, Target
from edgerecover.device import choose_compute
from edgerecover.export.two_four import check_two_four
from edgerecover.files import npy_bytes
from edgerecover.models.networks import Models
from edgerecover.recover.stage import logits_on
from edgerecover.runtime.host import is_target, this_host
from edgerecover.runtime.measure import measure_in_subprocess
from edgerecover.runtime.session import open_session
from edgerecover.synthesize.image_set import ImageSet
from edgerecover.synthesize.statistics import batch_norms_of
from edgerecover.validate.evaluation import EvalSet
from edgerecover.validate.fidelity import agreement, correct
from edgerecover.validate.parity import compare
from edgerecover.validate.prediction import predict

_FOREIGN_HOST_PROVIDERS = ("CPUExecutionProvider",)
"""What judges the exported file on a machine that is not the target: every onnxruntime has it."""


@dataclass(frozen=True)
class Judged:
    """All that was measured of one exported file."""

    fidelity: Fidelity
    parity: Parity
    latency: Latency
    accuracy: Accuracy | None
    """None without real images."""
    two_four: TwoFour | None
    """Of the file's own weights; None where the student is not 2:4."""


def judge_file(
    onnx_path: Path,
    models: Models,
    recovered: nn.Module,
    held_back: ImageSet,
    eval_set: EvalSet | None,
    golden_NCHW: np.ndarray[Any, Any],
    target: Target,
    settings: LatencySettings,
) -> Judged:
    """Measure everything that gates and report ask of an exported file.

    Args:
        onnx_path: the file.
        models: teacher and student as opened; come back on the CPU.
        recovered: the network that was exported.
        held_back: synthetic images that nothing has touched.
        eval_set: real labelled images, or None.
        golden_NCHW: network inputs that latency is measured with.
        target: decides whether this host is the device.
        settings: of the latency measurement.
    """
    fidelity, parity = _on_dreams(models, recovered, held_back, onnx_path)
    return Judged(
        fidelity=fidelity,
        parity=parity,
        accuracy=_on_real_images(models, recovered, eval_set, onnx_path),
        latency=_latency(onnx_path, golden_NCHW, target, settings),
        two_four=check_two_four(onnx_path) if models.student_facts.sparsity.pattern is Pattern.TWO_FOUR else None,
    )


def _on_dreams(models: Models, recovered: nn.Module, held_back: ImageSet, onnx_path: Path) -> tuple[Fidelity, Parity]:
    """Teacher, pruned, recovered and exported on the held-back set; all in float32 on the CPU."""
    cpu = choose_compute("cpu")
    teacher, pruned, ours = (
        logits_on(network.cpu(), held_back, cpu).numpy() for network in (models.teacher, models.student, recovered)
    )
    exported = logits_of_file(onnx_path, held_back.batches(128))
    fidelity = Fidelity(
        pruned=agreement(pruned, teacher),
        recovered=agreement(ours, teacher),
        exported=agreement(exported, teacher),
        predicted=predict(exported, teacher) if _is_predictable(models) else None,
    )
    return fidelity, compare(ours, exported)


def _is_predictable(models: Models) -> bool:
    """Predictions were measured on students of their teacher's architecture, and on dreams that batch norm guides."""
    return models.same_architecture and bool(batch_norms_of(models.teacher))


def logits_of_file(onnx_path: Path, batches_NCHW: Iterable[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits (N, K) of an ONNX file on batches of network inputs, by onnxruntime on the CPU."""
    session = open_session(onnx_path, _FOREIGN_HOST_PROVIDERS, strict=True)
    return np.concatenate([session.run(batch_NCHW) for batch_NCHW in batches_NCHW])


@torch.no_grad()
def _on_real_images(models: Models, recovered: nn.Module, eval_set: EvalSet | None, onnx_path: Path) -> Accuracy | None:
    """Top-1 of all four on the same labelled images, streamed."""
    if eval_set is None:
        return None
    session = open_session(onnx_path, _FOREIGN_HOST_PROVIDERS, strict=True)
    networks = {"teacher": models.teacher, "pruned": models.student, "recovered": recovered}
    right: dict[str, list[Any]] = {name: [] for name in (*networks, "exported")}
    for images_NCHW, labels_N in eval_set.batches(128):
        for name, network in networks.items():
            right[name].append(correct(_forward(network, images_NCHW), labels_N))
        right["exported"].append(correct(session.run(images_NCHW), labels_N))
    hits = {name: np.concatenate(parts) for name, parts in right.items()}
    total = len(eval_set)
    return Accuracy(
        source=eval_set.source,
        num_images=total,
        **{name: Proportion(int(values.sum()), total) for name, values in hits.items()},
        teacher_only=int((hits["teacher"] & ~hits["exported"]).sum()),
        exported_only=int((hits["exported"] & ~hits["teacher"]).sum()),
    )


def _forward(network: nn.Module, images_NCHW: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    logits_NK: np.ndarray[Any, Any] = network(torch.from_numpy(images_NCHW)).numpy()
    return logits_NK


def _latency(onnx_path: Path, golden_NCHW: np.ndarray[Any, Any], target: Target, settings: LatencySettings) -> Latency:
    """Measured in a fresh process without torch, so that memory and threads are the runtime's own."""
    board = target.board.value if target.board else None
    here = is_target(target.machine.value, board, this_host())
    golden_path = onnx_path.with_suffix(".golden.npy")
    golden_path.write_bytes(npy_bytes(golden_NCHW))
    try:
        return measure_in_subprocess(
            onnx_path,
            golden_path,
            target.providers.value if here else _FOREIGN_HOST_PROVIDERS,
            num_warmup=settings.num_warmup,
            min_queries=settings.min_queries,
            min_duration_s=settings.min_duration_s,
            machine=target.machine.value,
            board=board,
        )
    finally:
        golden_path.unlink()
