"""What an ONNX file gives that is a teacher: of one output, from its shape or its task; of several, those named.

Shapes: N images, K classes, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, OutputPart, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.task import fitting_tasks, is_another_image
from edgerecover.models.name.flags import Said
from edgerecover.models.onnx.file import OnnxFile, is_made_of, last_activation

if TYPE_CHECKING:
    import onnx

_FLOATS = (1, 10, 11, 16)
"""FLOAT, FLOAT16, DOUBLE and BFLOAT16 of onnx.TensorProto."""


@dataclass(frozen=True)
class _Stated:
    """An output as the file states it."""

    name: str
    axes: tuple[str, ...]
    """For people: "N", "10"."""
    shape: tuple[int, ...]
    """Of one image; 0 where it is open."""
    is_float: bool

    @property
    def is_row(self) -> bool:
        return self.is_float and len(self.shape) == 1

    def fits(self, task: TaskKind) -> bool:
        """Whether its numbers can be of such a task."""
        return self.is_float and all(self.shape) and task in fitting_tasks(self.shape)


def find_file_output(
    file: OnnxFile, input: InputSpec, task: TaskKind | None, said: Mapping[str, Said]
) -> OutputSpec | None:
    """What an ONNX teacher gives; None leaves it to a first run, which finds the scores of its only classifier.

    Args:
        file: of the teacher.
        input: of its images.
        task: of its only output, if it is named.
        said: what is named of several outputs. Those are taken, and no others.

    Raises:
        BadInputError: the file states no shape that fits the task, none is named and its maps may be an image, or it
            has several outputs that may be judged and nobody says which.
    """
    stated = [_as_stated(output) for output in file.model.graph.output]
    what = f"teacher {file.path}"
    if unknown := [name for name in said if name not in {one.name for one in stated}]:
        raise BadInputError(
            f"{what}: output {unknown[0]!r} is named, and its outputs are {_listed(stated)}",
            hint="name outputs as the file calls them: --task NAME=TASK, or [outputs.NAME] in model.toml",
        )
    named = [one for one in stated if one.name in said and said[one.name].weight]
    if named:
        if task is not None:
            raise BadInputError(
                f"{what}: one task is named, {task.value}, and outputs are, {', '.join(said)}",
                hint=f"--task {','.join(f'{one.name}={task.value}' for one in named)}",
            )
        return _several(file, input, named, said, what)
    left = [one for one in stated if one.name not in said]
    may_be_judged = [one for one in left if (one.fits(task) if task else one.is_row)]
    may_be_judged = [one for one in may_be_judged if not is_made_of(file.model, one.name, [two.name for two in left])]
    if len(may_be_judged) > 1:
        raise BadInputError(
            f"{what}: it has several outputs, {_listed(stated)}, and which of them are to be judged is not said",
            hint=f"name those with their tasks: --task {','.join(f'{one.name}=TASK' for one in may_be_judged)}, or a "
            f"table for each in model.toml, [outputs.{may_be_judged[0].name}]",
        )
    if said and not may_be_judged:
        raise BadInputError(
            f"{what}: of its outputs, {_listed(stated)}, none is left that can be judged",
            hint="name one with its task: --task NAME=TASK, or a weight above 0 under [outputs.NAME] in model.toml",
        )
    if said:
        return _several(file, input, may_be_judged, {may_be_judged[0].name: Said(task)}, what)
    return _one(file, input, (may_be_judged or stated)[0], task, what, is_only=len(stated) == 1)


def _several(
    file: OnnxFile, input: InputSpec, named: Sequence[_Stated], said: Mapping[str, Said], what: str
) -> OutputSpec:
    parts = []
    for one in named:
        of_it = said[one.name]
        task = of_it.task or (TaskKind.ONE_LABEL if one.is_row and one.shape[0] > 1 else None)
        if task is None:
            raise BadInputError(
                f"{what}, output {one.name}: no task is named, and {_shape_in_words(one)} may be of several",
                hint=f"--task {one.name}=TASK, or task under [outputs.{one.name}] in model.toml",
            )
        output = _of_task(file, one, task, f"{what}, output {one.name}")
        if of_it.classes and output.num_classes not in (None, len(of_it.classes)):
            raise BadInputError(
                f"{what}, output {one.name}: it gives {output.num_classes} classes, but [outputs.{one.name}] names "
                f"{len(of_it.classes)}",
                hint=f"correct `classes` under [outputs.{one.name}] in model.toml",
            )
        parts.append(OutputPart(one.name, output, of_it.weight, of_it.classes))
    if len(parts) == 1:
        return replace(parts[0].output, name=parts[0].name)
    return OutputSpec.several(tuple(parts))


def _one(
    file: OnnxFile, input: InputSpec, one: _Stated, task: TaskKind | None, what: str, *, is_only: bool
) -> OutputSpec | None:
    if task is None and is_only and len(one.shape) == 3 and min(one.shape) > 1:
        if is_another_image(one.shape, input.shape):
            raise BadInputError(
                f"{what}: it gives {list(one.shape)} for each image, which may be another image",
                hint="--task segmentation if the highest score decides each pixel; --task regression for values",
            )
        task = TaskKind.SEGMENTATION  # as of a network
    return None if task in (None, TaskKind.ONE_LABEL) else _of_task(file, one, task, what)


def _of_task(file: OnnxFile, one: _Stated, task: TaskKind, what: str) -> OutputSpec:
    shape = one.shape
    if task is TaskKind.SEGMENTATION and len(shape) == 2:
        shape = (1, *shape)  # (N, H, W): one mask
    if not one.is_float or not all(shape) or task not in fitting_tasks(shape):
        raise BadInputError(
            f"{what}: it states {_shape_in_words(one)}, which does not fit {task.value}",
            hint="correct --task, or export the file with fixed sides: only N may be open",
        )
    if task in (TaskKind.EMBEDDING, TaskKind.REGRESSION):
        return OutputSpec(task, shape)  # values, whatever made them
    if task is TaskKind.ONE_LABEL:
        return OutputSpec.one_label(shape[0])  # the numbers show its scale
    return OutputSpec(task, shape, last_activation(file.model, one.name, of_last_part=task is TaskKind.DETECTION))


def _as_stated(output: onnx.ValueInfoProto) -> _Stated:
    tensor = output.type.tensor_type
    axes = tensor.shape.dim
    return _Stated(
        output.name,
        tuple(str(axis.dim_value or axis.dim_param or "?") for axis in axes),
        tuple(axis.dim_value for axis in axes)[1:] or (1,),
        tensor.elem_type in _FLOATS,
    )


def _shape_in_words(one: _Stated) -> str:
    return f"{'' if one.is_float else 'integers '}({', '.join(one.axes)})"


def _listed(stated: Sequence[_Stated]) -> str:
    return ", ".join(f"{one.name} {_shape_in_words(one)}" for one in stated)
