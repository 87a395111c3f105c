"""What a network gives for one image, and what it is for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate
from typing import Literal, TypeAlias

NUM_BOX_VALUES = 4
"""Of a candidate, before its scores: centre x and y, width and height."""


NumValues: TypeAlias = int | dict[str, int]
"""Numbers for each image of a file's only output, or of several outputs by name, in order."""


class TaskKind(str, Enum):
    """What a network is for."""

    ONE_LABEL = "one-label"
    """One of K classes: K scores, of which the highest decides."""
    BINARY = "binary"
    """Yes or no: one score."""
    MULTI_LABEL = "multi-label"
    """Any number of K labels: K scores, each of which decides for itself."""
    EMBEDDING = "embedding"
    """A vector whose direction says how alike two images are."""
    REGRESSION = "regression"
    """Numbers: a few, or maps of them."""
    SEGMENTATION = "segmentation"
    """One of K classes for every pixel: K maps of scores."""
    DETECTION = "detection"
    """Boxes with a class each: candidates before suppression, of which each is a box and K scores."""
    SEVERAL = "several"
    """Several outputs, each with a task of its own."""


TaskName: TypeAlias = Literal[
    "one-label", "binary", "multi-label", "embedding", "regression", "segmentation", "detection"
]
"""What an output can be named to be for."""


class Activation(str, Enum):
    """What a network has applied to its scores last."""

    NONE = "none"
    """Logits, or log-probabilities, whose softmax is the same as that of the logits."""
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    """For each score by itself."""


@dataclass(frozen=True)
class OutputSpec:
    """What a network gives for one image."""

    task: TaskKind
    shape: tuple[int, ...]
    """Of one image's output: (K,) scores or (D,) values; (K, H, W) for segmentation; for regression anything, of which
    three axes are maps (C, H, W); for detection (4 + K, A) or
    (A, 4 + K) of A candidates, which are more than the numbers of each. These are the centre x and y, width and height
    of a box in pixels of the network's input, and a score for each class that decides for itself."""
    activation: Activation = Activation.NONE
    """For detection, that of the scores."""
    input_sides: tuple[int, int] | None = None
    """H and W of the network's input, where boxes lie; None for other tasks, and where nobody dreams."""
    name: str = ""
    """What the network calls the only output that is recovered; empty where it returns a tensor."""
    parts: tuple[OutputPart, ...] = ()
    """Of several outputs, each of them, in order; `shape` is then (D,), the numbers of all in one row."""

    @classmethod
    def one_label(cls, num_classes: int) -> OutputSpec:
        """Logits of K classes."""
        return cls(TaskKind.ONE_LABEL, (num_classes,))

    @property
    def as_logits(self) -> OutputSpec:
        """Of the network read as logits: nothing is applied last."""
        parts = tuple(replace(part, output=part.output.as_logits) for part in self.parts)
        return replace(self, activation=Activation.NONE, parts=parts)

    @classmethod
    def several(cls, parts: tuple[OutputPart, ...]) -> OutputSpec:
        """Several outputs as one."""
        return cls(TaskKind.SEVERAL, (sum(part.output.num_values for part in parts),), parts=parts)

    @property
    def columns(self) -> tuple[tuple[OutputPart, slice], ...]:
        """Of several outputs, each with its numbers among the D of a row."""
        ends = [*accumulate(part.output.num_values for part in self.parts)]
        starts = [0, *ends[:-1]] if ends else []
        return tuple(zip(self.parts, map(slice, starts, ends), strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """What the outputs of the network's file are called."""
        if self.parts:
            return tuple(part.name for part in self.parts)
        return (self.name or _UNNAMED.get(self.task, "logits"),)

    @property
    def num_values_in_file(self) -> NumValues:
        """Numbers for each image, by which its file's outputs are found; of several outputs, those of each by name."""
        return {part.name: part.output.num_values for part in self.parts} or self.num_values

    @property
    def has_maps(self) -> bool:
        """Outputs are more than rows: maps, candidates of boxes."""
        return len(self.shape) > 1 or any(part.output.has_maps for part in self.parts)

    @property
    def description(self) -> str:
        """For people: "image classification, 10 classes"."""
        size = self.shape[0]
        return {
            TaskKind.ONE_LABEL: f"image classification, {size} classes",
            TaskKind.BINARY: "binary image classification",
            TaskKind.MULTI_LABEL: f"multi-label image classification, {_count(size, 'label')}",
            TaskKind.EMBEDDING: f"image embedding, {_count(size, 'number')}",
            TaskKind.REGRESSION: f"image regression, {self._num_values_in_words}",
            TaskKind.SEGMENTATION: f"semantic segmentation, {_count(max(2, size), 'class', 'es')}",
            TaskKind.DETECTION: f"object detection, {_count(self.num_classes or 0, 'class', 'es')}",
            TaskKind.SEVERAL: "; ".join(part.description for part in self.parts),
        }[self.task]

    @property
    def has_threshold(self) -> bool:
        """A score decides by itself, above 0 or, after a sigmoid, above 0.5."""
        return self.task in (TaskKind.BINARY, TaskKind.MULTI_LABEL, TaskKind.DETECTION) or (
            self.task is TaskKind.SEGMENTATION and self.shape[0] == 1
        )

    @property
    def num_values(self) -> int:
        """Numbers for one image."""
        return math.prod(self.shape)

    @property
    def pixels(self) -> int:
        """P: values of a map, next to each other; 1 where there are no maps."""
        return math.prod(self.shape[1:]) if len(self.shape) == 3 else 1

    @property
    def num_classes(self) -> int | None:
        """K; None for tasks without classes. A binary network tells two apart with one score."""
        if self.task in (TaskKind.EMBEDDING, TaskKind.REGRESSION, TaskKind.SEVERAL):
            return None
        if self.task is TaskKind.DETECTION:
            return min(self.shape) - NUM_BOX_VALUES
        return 2 if self.task is TaskKind.BINARY else self.shape[0]

    @property
    def _num_values_in_words(self) -> str:
        return _count(self.shape[0], "value") if len(self.shape) == 1 else f"{' × '.join(map(str, self.shape))} values"

    @property
    def has_candidates_first(self) -> bool:
        """Of detection: one image's output is (A, 4 + K), not (4 + K, A)."""
        return self.shape[0] > self.shape[1]


@dataclass(frozen=True)
class OutputPart:
    """One of several outputs."""

    name: str
    """A key, a field, or output_0 by its place."""
    output: OutputSpec
    weight: float = 1.0
    """Above 0; of the sum of all weights."""
    classes: tuple[str, ...] | None = None
    """Names of its classes or labels; None where nobody names them."""

    @property
    def description(self) -> str:
        """For people: "age: image regression, 1 value"."""
        weighs = "" if self.weight == 1 else f", weight {self.weight:g}"
        named = ", named" if self.classes else ""
        return f"{self.name}: {self.output.description}{named}{weighs}"


_UNNAMED = {TaskKind.EMBEDDING: "embedding", TaskKind.REGRESSION: "values", TaskKind.DETECTION: "candidates"}
"""Outputs of files that are no logits; whoever reads a file's only output by its place need not know."""


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"
