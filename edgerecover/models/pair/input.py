"""The one input that a student and its teacher share: they are shown the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.build.opening import open_checkpoint, require_architecture
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.libraries import default_input, default_num_classes, library_of
from edgerecover.models.name.spec import INPUT_FLAGS, OWN_TRANSFORM, ModelSpec
from edgerecover.models.read.folders import is_usual_name
from edgerecover.models.read.load import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from edgerecover.models.network.input_scale import InputScale

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, as torchvision has them."""
_LARGEST_MISFIT = 0.6
"""Of contrast (natural logarithm) and brightness (standard deviations)."""


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
    return replace(student, input=teacher.input, input_source=teacher.input_source, assumes_scale=teacher.assumes_scale)


def require_input(spec: ModelSpec, teacher: ModelSpec, checkpoint: Checkpoint) -> tuple[ModelSpec, InputSpec]:
    """The student's spec with an input, if need be that of the library's weights for the teacher's architecture.

    A detector of torchvision has its own.

    Raises:
        BadInputError: the architecture or the input is not known, or the checkpoint does not fit the architecture.
    """
    require_architecture(checkpoint, spec)
    if spec.input is None and teacher.architecture and (usual := default_input(teacher.architecture)):
        source = f"assumed: {library_of(teacher.architecture)}'s own weights for {teacher.architecture}, the teacher"
        spec = replace(spec, input=usual, input_source=source, assumed_of=teacher.architecture)
    if spec.input is None:
        opened = open_checkpoint(checkpoint, spec)  # a wrong architecture is told first: the input would not help
        spec = _with_own_input(spec, opened.network)
    if spec.input is None:
        example = checkpoint.example_shape
        shape = f" (its example input has {','.join(map(str, example[1:]))}), --mean and --std" if example else ""
        raise BadInputError(
            f"{checkpoint.path}: the network's input is not known",
            hint=f"give --input-shape{shape}, or an [input] table with shape, mean and std in model.toml beside it",
        )
    return spec, spec.input


def _with_own_input(spec: ModelSpec, network: nn.Module) -> ModelSpec:
    from edgerecover.models.network.detectors import gives_candidates, own_input

    return replace(spec, input=own_input(network), input_source=OWN_TRANSFORM) if gives_candidates(network) else spec


def check_assumed(spec: ModelSpec, output: OutputSpec, flags: ModelFlags, path: Path) -> None:
    """Refuse an input that was taken from a library's own weights for a network that cannot be trained as they were.

    A network of ten classes was trained on other images than ImageNet's, and their size and scale are anybody's guess.

    Raises:
        BadInputError: the library's weights have another number of classes, and the user has not accepted it.
    """
    if spec.assumed_of is None or flags.assume or spec.input is None:
        return
    usual = default_num_classes(spec.assumed_of)
    num_classes = output.shape[0]
    if usual in (None, num_classes):
        return
    side = ",".join(map(str, spec.input.shape))
    mean, std = (", ".join(f"{one:g}" for one in ones) for ones in (spec.input.mean, spec.input.std))
    raise BadInputError(
        f"{path}: no input is specified. That of {library_of(spec.assumed_of)}'s own weights "
        f"({side}; mean {mean}; std {std}) may be wrong: they have {usual:,} classes, this network has {num_classes:,}",
        hint="give --input-shape C,H,W (and --mean and --std), or an [input] table in model.toml; "
        "--assume accepts those values",
    )


def check_scale(spec: ModelSpec, network: nn.Module, flags: ModelFlags, path: Path) -> str | None:
    """Doubt an assumed scale of inputs if the network's batch norm shows that it was trained on inputs of another one.

    Whoever names the shape alone has chosen pixels as they are, and is warned. An input that nobody names is refused.

    Args:
        spec: with the input.
        network: of the teacher, in eval mode.
        flags: what the user has accepted.
        path: of the file that is asked about.

    Returns:
        What speaks against the input that the user has named or accepted; None: nothing.

    Raises:
        BadInputError: the whole input is assumed, its scale is evidently another one, and the user has not accepted it.
    """
    if spec.input is None or not (spec.assumes_scale or spec.assumed_of):
        return None
    from edgerecover.models.network.input_scale import compare_scale

    found = compare_scale(network, spec.input)
    if found is None or not found.is_another:
        return None
    mean, std = (", ".join(f"{one:g}" for one in ones) for ones in (spec.input.mean, spec.input.std))
    its_mean = f" and a mean of about {found.trained_mean:.1f}" if found.mean_error < found.trained_std else ""
    told = (
        f"mean {mean} and std {std} are assumed, with which photographs have a deviation of {found.std:.2g} and a mean "
        f"of {found.mean:.1f}; but {found.layer} has stored the statistics of inputs with a deviation of about "
        f"{found.trained_std:.2g}{its_mean}"
    )
    better = _better_scale(spec.input, found)
    better = f"; {better} fits better" if better else ""
    if flags.assume or spec.assumed_of is None:
        return told + better
    raise BadInputError(
        f"{path}: {told}",
        hint=f"give --input-shape, --mean and --std, or an [input] table in model.toml{better}; "
        "--assume accepts those values",
    )


def _better_scale(input: InputSpec, found: InputScale) -> str | None:
    """Flags for the usual way to prepare images that fits best; None if none does."""
    from edgerecover.models.network.input_scale import typical_scale

    channels = input.shape[0]
    ways = {
        **({f"--mean {_list(_IMAGENET[0])} --std {_list(_IMAGENET[1])}": typical_scale(0.449, 0.226)}
           if channels == len(_IMAGENET[0]) else {}),
        f"--mean {_list((0.5,) * channels)} --std {_list((0.5,) * channels)}": typical_scale(0.5, 0.5),
        f"--mean {_list((0.0,) * channels)} --std {_list((1.0,) * channels)}": typical_scale(0.0, 1.0),
        f"--pixel-range 0,255 --mean {_list((0.0,) * channels)} --std {_list((1.0,) * channels)}": typical_scale(
            0.0, 1.0, (0.0, 255.0)
        ),
    }  # fmt: skip
    misfits = {
        flags: max(
            abs(math.log(std / found.trained_std)), max(0.0, abs(mean - found.trained_mean) - found.mean_error) / std
        )
        for flags, (mean, std) in ways.items()
    }
    best = min(misfits, key=misfits.__getitem__)
    return best if misfits[best] < _LARGEST_MISFIT else None


def _list(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


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
