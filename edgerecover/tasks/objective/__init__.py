"""What dreams aim at and what teaches a student, task by task."""

from collections.abc import Mapping
from types import MappingProxyType

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.objective.base import Objective
from edgerecover.tasks.objective.classes import BinaryObjective, OneLabelObjective

_OBJECTIVES: Mapping[TaskKind, type[Objective]] = MappingProxyType(
    {TaskKind.ONE_LABEL: OneLabelObjective, TaskKind.BINARY: BinaryObjective}
)


def objective_of(output: OutputSpec) -> Objective:
    """The objective of an output's task."""
    return _OBJECTIVES[output.task](output)


__all__ = ["Objective", "objective_of"]
