"""What agreement means, task by task."""

from collections.abc import Mapping
from types import MappingProxyType

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure.base import Measure
from edgerecover.tasks.measure.classes import Binary, OneLabel

_MEASURES: Mapping[TaskKind, type[Measure]] = MappingProxyType({TaskKind.ONE_LABEL: OneLabel, TaskKind.BINARY: Binary})


def measure_of(output: OutputSpec) -> Measure:
    """The measure of an output's task."""
    return _MEASURES[output.task](output)


__all__ = ["Measure", "measure_of"]
