"""The one input that a student and its teacher share: they are shown the same images."""

from __future__ import annotations

from dataclasses import replace

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.build.opening import require_architecture
from edgerecover.models.name.libraries import default_input
from edgerecover.models.name.spec import INPUT_FLAGS, ModelSpec
from edgerecover.models.read.folders import is_usual_name
from edgerecover.models.read.load import Checkpoint


def share_input(student: ModelSpec, teacher: ModelSpec) -> ModelSpec:
    """The student's spec with the teacher's input where only the teacher's is known.

    Raises:
        BadInputError: both are known, and they differ.
    """
    if student.input_source == INPUT_FLAGS:
        return student
    if teacher.input is None:
        return _share_card(student, teacher)
    if student.input is not None and student.input != teacher.input:
        raise _different_inputs((student.input_source, student.input), (teacher.input_source, teacher.input))
    return replace(student, input=teacher.input, input_source=teacher.input_source)


def require_input(spec: ModelSpec, teacher: ModelSpec, checkpoint: Checkpoint) -> tuple[ModelSpec, InputSpec]:
    """The student's spec with an input, if need be that of the library's weights for the teacher's architecture.

    Raises:
        BadInputError: the architecture or the input is not known.
    """
    require_architecture(checkpoint, spec)
    if spec.input is None and teacher.architecture and (usual := default_input(teacher.architecture)):
        spec = replace(spec, input=usual, input_source=f"{teacher.architecture}, the teacher")
    if spec.input is None:
        example = checkpoint.example_shape
        shape = f" (its example input has {','.join(map(str, example[1:]))}), --mean and --std" if example else ""
        raise BadInputError(
            f"{checkpoint.path}: the network's input is not known",
            hint=f"give --input-shape{shape}, or an [input] table with shape, mean and std in model.toml beside it",
        )
    return spec, spec.input


def _share_card(student: ModelSpec, teacher: ModelSpec) -> ModelSpec:
    """The student's spec with what the card in the teacher's folder says, where nothing else does."""
    card = teacher.card
    if card is None or teacher.teacher_path is None or not is_usual_name(teacher.teacher_path):
        return student
    its = card.input.complete(None) if card.input else None
    own = student.card.input.complete(None) if student.card and student.card.input else None
    if student.input is None and own and its and own != its:
        assert student.card is not None
        raise _different_inputs(
            (f"{student.card.input_source} beside the student", own), (f"{card.input_source} beside the teacher", its)
        )
    source = f"{card.input_source} of the teacher"
    if student.input is None and own is None and its:
        student = replace(student, input=its, input_source=source)
    theirs = replace(card, source=f"{card.source} of the teacher", input_source=source)
    return student if student.card or student.architecture else replace(student, card=theirs)


def _different_inputs(student: tuple[str, InputSpec], teacher: tuple[str, InputSpec]) -> BadInputError:
    return BadInputError(
        f"teacher and student take different inputs: {student[0]} says {student[1]}, {teacher[0]} {teacher[1]}",
        hint="both are shown the same images: correct one of the two, or give --input-shape, --mean and --std",
    )
