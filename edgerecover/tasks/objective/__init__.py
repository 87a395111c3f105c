"""What dreams aim at and what teaches a student, task by task."""

from collections.abc import Mapping
from types import MappingProxyType

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective.base import Objective
from edgerecover.tasks.objective.boxes import DetectionObjective
from edgerecover.tasks.objective.classes import BinaryObjective, OneLabelObjective
from edgerecover.tasks.objective.labels import MultiLabelObjective
from edgerecover.tasks.objective.maps import SegmentationObjective
from edgerecover.tasks.objective.several import SeveralObjective
from edgerecover.tasks.objective.vectors import EmbeddingObjective, RegressionObjective

_OBJECTIVES: Mapping[TaskKind, type[Objective]] = MappingProxyType(
    {
        TaskKind.ONE_LABEL: OneLabelObjective,
        TaskKind.BINARY: BinaryObjective,
        TaskKind.MULTI_LABEL: MultiLabelObjective,
        TaskKind.EMBEDDING: EmbeddingObjective,
        TaskKind.REGRESSION: RegressionObjective,
        TaskKind.SEGMENTATION: SegmentationObjective,
        TaskKind.DETECTION: DetectionObjective,
    }
)


def objective_of(output: OutputSpec) -> Objective:
    """The objective of an output's task."""
    if output.parts:
        return SeveralObjective(output, objective_of)
    return _OBJECTIVES[output.task](output)


__all__ = ["Objective", "objective_of"]
