"""The teacher of a student: which checkpoint it is, and in which architecture it opens."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgerecover.artifacts import OutputSpec, Pattern, Sparsity, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import load_into, mismatch
from edgerecover.models.build.completion import with_card, with_module
from edgerecover.models.build.opening import OpenCheckpoint, fit_keys, open_checkpoint
from edgerecover.models.build.outputs import find_output
from edgerecover.models.build.whole_modules import WholeModule, load_module
from edgerecover.models.build.widths import is_narrower
from edgerecover.models.name.flags import ModelFlags, Said
from edgerecover.models.name.recognise import recognise
from edgerecover.models.name.spec import ModelSpec, resolve_neighbour
from edgerecover.models.read.load import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

_RECOGNISED = "recognised from keys and shapes"
_HINT = (
    "give the dense model that the student was pruned from; "
    "or, to distil from another architecture, name the teacher's with --teacher-arch"
)


@dataclass(frozen=True)
class Teacher:
    """An opened teacher."""

    opened: OpenCheckpoint
    spec: ModelSpec
    """The teacher's own spec: its architecture, and who named it."""
    same_architecture: bool
    """Whether the student has the same layers, however its architecture is spelled, perhaps with fewer channels."""
    output: OutputSpec | None = None
    """Known once the teacher has run."""


def find_teacher(student: Checkpoint, spec: ModelSpec, sparsity: Sparsity, will_prune: bool) -> Checkpoint:
    """The teacher's checkpoint: the one given, the dense weights inside the student's, or the student before pruning.

    Raises:
        BadInputError: there is none, or the one given cannot be read.
    """
    path = spec.teacher_path
    if path is not None and not _same_file(path, student.path):
        if not path.exists():
            raise BadInputError(f"teacher {path}: no such file", hint="correct --teacher, or teacher in model.toml")
        return read_checkpoint(path)
    if student.dense_tensors is not None:
        return replace(student, tensors=student.dense_tensors, masks={}, dense_tensors=None)
    is_dense = sparsity.pattern is Pattern.DENSE
    if is_dense and will_prune:
        return student
    if is_dense and sparsity.zero_channels:
        raise BadInputError(
            f"{student.path}: {sparsity.zero_channels}, and no teacher is given",
            hint="give the dense model with --teacher, or as teacher in model.toml",
        )
    if is_dense:
        raise BadInputError(
            f"{student.path}: the model is dense and no teacher is given, so there is nothing to recover",
            hint="--pattern unstructured --sparsity 0.75 prunes it first, with itself as the teacher",
        )
    no_teacher = (
        "no teacher is given, and the dense weights are not inside"
        if path is None
        else "its teacher is the same file, and holds no dense weights"
    )
    pruned = "whole channels" if sparsity.pattern is Pattern.CHANNEL else f"{sparsity.sparsity:.1%} of the weights"
    raise BadInputError(
        f"{student.path}: {pruned} are {'gone' if sparsity.pattern is Pattern.CHANNEL else 'zero'}, {no_teacher}",
        hint="give the dense model with --teacher, or as teacher in model.toml",
    )


def open_teacher(
    checkpoint: Checkpoint,
    said: ModelSpec,
    student: OpenCheckpoint,
    spec: ModelSpec,
    output: OutputSpec,
    flags: ModelFlags,
) -> Teacher:
    """Open the teacher in its own architecture, if one is given, or else in the student's.

    If it does not fit the student's, the `model.toml` beside it is tried, then its card, then its keys and shapes.

    Args:
        checkpoint: the teacher's.
        said: what is said about the teacher alone; see `resolve_teacher`.
        student: the opened student.
        spec: the student's, with its architecture and input.
        output: the student's.
        flags: what the command line says; with `trust_pickle`, a teacher that is a whole module is unpickled.

    Raises:
        BadInputError: the teacher fits no architecture that was named or recognised, or has another number of classes
            than the student; the message says how it differs.
    """
    teacher = _open(checkpoint, said, student, spec, output, flags)
    assert spec.input is not None
    task = None if output.parts else spec.task or output.task
    tasks = {part.name: Said(part.output.task, part.weight) for part in output.parts}
    of_teacher = replace(teacher.spec, task=task, outputs=tasks or teacher.spec.outputs)
    found = find_output(teacher.opened.network, spec.input, of_teacher, role="teacher ")
    if (found.shape, found.names) != (output.shape, output.names):
        raise _other_outputs(checkpoint.path, found, output)
    own, others = ([part.output for part in one.parts] or [one] for one in (output, found))
    for ours, theirs in zip(own, others, strict=True):
        if ours.shape != theirs.shape:
            raise _other_outputs(checkpoint.path, found, output)
        if theirs.activation is not ours.activation and ours.has_threshold:
            raise BadInputError(
                f"teacher {checkpoint.path}: ends in {theirs.activation.value}, the student in "
                f"{ours.activation.value}: the same number means another answer",
                hint="let the factories of both leave out the last sigmoid, or neither",
            )
    return replace(teacher, output=found)


def _open(
    checkpoint: Checkpoint,
    said: ModelSpec,
    student: OpenCheckpoint,
    spec: ModelSpec,
    output: OutputSpec,
    flags: ModelFlags,
) -> Teacher:
    is_its_own_file = not _same_file(checkpoint.path, student.checkpoint.path)
    if is_its_own_file and said.architecture is not None:
        return _open_as(checkpoint, said, student, spec)
    if said.architecture is not None and said.architecture_source == "--teacher-arch":
        raise BadInputError(
            f"--teacher-arch {said.architecture}: no teacher is given that could have this architecture",
            hint="give its checkpoint with --teacher, or as teacher in model.toml",
        )
    assert spec.architecture is not None
    network = copy.deepcopy(student.dense or student.network)
    fitted = fit_keys(checkpoint, network, spec)
    if not mismatch(network, fitted.tensors):
        load_into(network, fitted.tensors, what=f"teacher {checkpoint.path} ({spec.architecture})")
        own = replace(spec, teacher_path=None, teacher_architecture=None)
        return Teacher(OpenCheckpoint(fitted, network.eval(), None), own, same_architecture=True)
    _refuse_other_classes(fitted, network, output)
    other = resolve_neighbour(spec, said, flags)
    other = other or _as_card_says(checkpoint, said)
    other = other or (_as_module(checkpoint, said) if flags.trust_pickle else None) or _recognise(checkpoint, said)
    if other is None or other.architecture == spec.architecture:
        raise BadInputError(
            f"teacher {checkpoint.path}: is of another architecture, the student is {spec.architecture}\n"
            f"{mismatch(network, fitted.tensors)}",
            hint=_HINT,
        )
    return _open_as(checkpoint, other, student, spec)


def _open_as(checkpoint: Checkpoint, said: ModelSpec, student: OpenCheckpoint, spec: ModelSpec) -> Teacher:
    own = replace(said, input=spec.input, input_source=spec.input_source)
    opened = open_checkpoint(checkpoint, own, role="teacher ")
    same = opened.dense is None and _same_structure(opened.network, student.dense or student.network)
    return Teacher(opened, own, same_architecture=same)


def wider_module(teacher_path: Path, student: nn.Module) -> nn.Module | None:
    """Unpickle the teacher's module if the student has fewer channels; None otherwise.

    Raises:
        BadInputError: it cannot be read.
    """
    if not teacher_path.is_file():
        return None
    teacher = read_checkpoint(teacher_path)
    if not teacher.classes or not is_narrower(student.state_dict(), teacher.tensors):
        return None
    wider = load_module(WholeModule(teacher.path, teacher.under, teacher.classes[0])).eval()
    from edgerecover.models.network.detectors import return_candidates

    return_candidates(wider, f"teacher {teacher_path}")
    return wider


def _as_card_says(checkpoint: Checkpoint, said: ModelSpec) -> ModelSpec | None:
    found = with_card(replace(said, architecture=None, teacher_path=None), checkpoint)
    return found if found.architecture else None


def _as_module(checkpoint: Checkpoint, said: ModelSpec) -> ModelSpec | None:
    found = replace(said, architecture=None, teacher_path=None)
    found = with_module(found, checkpoint)
    return found if found.module else None


def _recognise(checkpoint: Checkpoint, said: ModelSpec) -> ModelSpec | None:
    architecture = recognise(checkpoint.tensors)
    return replace(said, architecture=architecture, architecture_source=_RECOGNISED) if architecture else None


def _same_structure(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have the same layers with the same shapes, whatever file defines them."""
    shapes_a, shapes_b = ({key: tensor.shape for key, tensor in n.state_dict().items()} for n in (a, b))
    return repr(a) == repr(b) and shapes_a == shapes_b


def _same_file(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _refuse_other_classes(teacher: Checkpoint, student: nn.Module, output: OutputSpec) -> None:
    found = _other_last_size(teacher.tensors, student.state_dict(), output.shape[0])
    if found is not None:
        raise _other_outputs(teacher.path, replace(output, shape=(found, *output.shape[1:])), output)


def _other_outputs(teacher: Path, found: OutputSpec, expected: OutputSpec) -> BadInputError:
    """The error for a teacher with other outputs than the student."""
    if expected.parts or found.parts:
        differ = f"gives {', '.join(found.names)}: {list(found.shape)}, the student {', '.join(expected.names)}: "
        differ += str(list(expected.shape))
    elif expected.task is TaskKind.ONE_LABEL and len(found.shape) == 1:
        differ = f"has {found.shape[0]} classes, the student {expected.shape[0]}"
    else:
        differ = f"gives {list(found.shape)} for each image, the student {list(expected.shape)}"
    return BadInputError(
        f"teacher {teacher}: {differ}",
        hint="recovery needs a teacher with the same classes, ideally the dense model that the student was pruned from",
    )


def _other_last_size(teacher: Mapping[str, Tensor], student: Mapping[str, Tensor], size: int) -> int | None:
    """The teacher's number of outputs, if it differs from the student only in the last layer's; else None."""
    differing = [key for key, tensor in student.items() if key in teacher and teacher[key].shape != tensor.shape]
    sizes = {(student[key].shape[0], teacher[key].shape[0]) for key in differing}
    same_otherwise = all(student[key].shape[1:] == teacher[key].shape[1:] for key in differing)
    if same_otherwise and len(sizes) == 1:
        student_size, teacher_size = sizes.pop()
        return teacher_size if student_size == size else None
    return None
