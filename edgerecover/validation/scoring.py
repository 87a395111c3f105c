"""Scores of a set of images, whatever gives them: a network, a file, a device."""

# Shapes: N images, C channels, H height, W width, D scores for each.
# ruff: noqa: TID253 - runs networks; only what calls the stages imports it

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from edgerecover.artifacts import Int8Sums, NumValues
from edgerecover.compute import PLAIN, Compute, judged_at_once
from edgerecover.config import Target
from edgerecover.models.network.outputs import as_it_is, as_rows
from edgerecover.progress import Task
from edgerecover.runtime.session.onnxruntime import CPU, Session, open_session
from edgerecover.runtime.surfaces import int8_sums_of
from edgerecover.tasks.measure import Measure, Outputs, at_once, collect

BATCH = 128

"""Images at once, where their outputs are small."""

Scores = np.ndarray[Any, Any]
Scorer = Callable[[Any], Scores]
"""From network inputs, float32 (N, C, H, W), to scores (N, D)."""


@dataclass(frozen=True)
class Reference:
    """The teacher of what is judged."""

    score: Scorer
    measure: Measure
    """What agreement with it means."""


class Images(Protocol):
    """Network inputs that are read in batches."""

    def __len__(self) -> int:
        """N."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """All images in order, float32 (n, C, H, W)."""


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
        scores_ND: Scores = torch.cat([as_rows(network(part)).float() for part in parts]).numpy()
        return scores_ND

    return score


def int8_sums_for(target: Target) -> Int8Sums:
    """How int8 is added up here where agreement with a target's file is measured."""
    return int8_sums_of(target.deployment)


def open_on_cpu(
    onnx_path: Path, shape_CHW: tuple[int, int, int], num_values: NumValues | None, sums: Int8Sums = Int8Sums.EXACT
) -> Session:
    """The file as it is judged.

    Raises:
        BadInputError: it is not such a network.
    """
    return open_session(
        onnx_path,
        [CPU],
        strict=True,
        shape_CHW=shape_CHW,
        num_values=num_values,
        exact_int8=sums is Int8Sums.EXACT,
    )


def outputs_of(scorer: Scorer, images: Images, measure: Measure, task: Task | None = None) -> Outputs:
    """Answers to all images, each counted in `task`, and scores as far as they fit in memory."""

    def outputs() -> Iterator[Scores]:
        for batch_NCHW in images.batches(at_once(measure.output, BATCH)):
            yield scorer(batch_NCHW)
            if task is not None:
                task.advance(len(batch_NCHW))

    return collect(outputs(), len(images), measure)
