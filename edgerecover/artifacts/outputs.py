"""What a network gives for one image, and what it is for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

NUM_BOX_VALUES = 4
"""Of a candidate, before its scores: centre x and y, width and height."""


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

    @classmethod
    def one_label(cls, num_classes: int) -> OutputSpec:
        """Logits of K classes."""
        return cls(TaskKind.ONE_LABEL, (num_classes,))

    @property
    def as_logits(self) -> OutputSpec:
        """Of the network read as logits: nothing is applied last."""
        return replace(self, activation=Activation.NONE)

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
        if self.task in (TaskKind.EMBEDDING, TaskKind.REGRESSION):
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


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"
