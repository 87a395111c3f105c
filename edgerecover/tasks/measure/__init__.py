"""What agreement means, task by task."""

from collections.abc import Mapping
from types import MappingProxyType

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure.base import Answers, Measure, Words
from edgerecover.tasks.measure.boxes import Detection
from edgerecover.tasks.measure.classes import Binary, OneLabel
from edgerecover.tasks.measure.labels import MultiLabel
from edgerecover.tasks.measure.maps import Segmentation
from edgerecover.tasks.measure.outputs import Outputs, at_once, collect
from edgerecover.tasks.measure.several import Several, join
from edgerecover.tasks.measure.vectors import Embedding, Regression

_MEASURES: Mapping[TaskKind, type[Measure]] = MappingProxyType(
    {
        TaskKind.ONE_LABEL: OneLabel,
        TaskKind.BINARY: Binary,
        TaskKind.MULTI_LABEL: MultiLabel,
        TaskKind.EMBEDDING: Embedding,
        TaskKind.REGRESSION: Regression,
        TaskKind.SEGMENTATION: Segmentation,
        TaskKind.DETECTION: Detection,
    }
)


def measure_of(output: OutputSpec) -> Measure:
    """The measure of an output's task."""
    if output.parts:
        return Several(output, measure_of)
    return _MEASURES[output.task](output)


def words_of(task: TaskKind) -> Words:
    """What a task's numbers are called, in reports."""
    return Several.words if task is TaskKind.SEVERAL else _MEASURES[task].words


__all__ = ["Answers", "Measure", "Outputs", "Words", "at_once", "collect", "join", "measure_of", "words_of"]
