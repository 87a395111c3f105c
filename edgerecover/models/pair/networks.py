"""From paths and flags to a checked student and teacher, or to one network alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, ModelFacts, OutputSpec, Pattern
from edgerecover.errors import BadInputError
from edgerecover.models.build.completion import complete
from edgerecover.models.build.opening import OpenCheckpoint, open_checkpoint, require_architecture
from edgerecover.models.build.outputs import find_output, with_classes
from edgerecover.models.build.task import doubts_of_objectness
from edgerecover.models.name.flags import LiveNetwork, ModelFlags
from edgerecover.models.name.spec import ModelSpec, resolve, resolve_teacher
from edgerecover.models.network.uses import uses_of, warning_of
from edgerecover.models.onnx.file import is_onnx, read_onnx
from edgerecover.models.pair.channels import SAME_CHANNELS, ChannelMap, descent, match_channels
from edgerecover.models.pair.facts import as_narrower, facts_of
from edgerecover.models.pair.input import check_assumed, check_scale, require_input, share_input
from edgerecover.models.pair.masks import masks_of
from edgerecover.models.pair.teacher import Teacher, find_teacher, open_teacher, wider_module
from edgerecover.models.read.folders import weights_in
from edgerecover.models.read.formats import Container, detect
from edgerecover.models.read.load import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

_MOST_NAMED = 3
_MOST_OF_DENSE = 0.01
"""Zeros that a network may have and still be dense."""
_LEAST_OF_PRUNED = 0.2
"""Zeros that no dense network has."""
"""Number of layers that a warning names."""


@dataclass(frozen=True)
class Models:
    """A teacher and a student that belong together, both float32, on the CPU and in eval mode.

    They return logits (N, D), whatever the shape of their own outputs, and even if they end in softmax or sigmoids;
    `outputs.as_it_is` gives their own outputs.
    """

    student: nn.Module
    teacher: nn.Module
    masks: dict[str, Tensor]
    """bool, by parameter name, True where the student's weight is kept, for every parameter with zeros; see
    `masks.masks_of`."""
    input: InputSpec
    output: OutputSpec
    classes: tuple[str, ...] | None
    architecture: str
    student_facts: ModelFacts
    teacher_facts: ModelFacts
    warnings: tuple[str, ...]
    """What the user should know, although the run can go on."""
    channels: ChannelMap = SAME_CHANNELS
    """Which of the teacher's channels a channel-pruned student kept."""

    @property
    def same_architecture(self) -> bool:
        """Whether the student is the teacher with zeros or fewer channels, so that layers can be compared."""
        return self.channels.related


def inspect(model_path: Path, flags: ModelFlags) -> ModelFacts:
    """Find out what a checkpoint or an ONNX file holds; if the architecture is unknown, from its weights alone.

    Raises:
        BadInputError: the checkpoint, the TOML file beside it, or the architecture named there cannot be used.
    """
    model_path = weights_in(model_path)
    if is_onnx(model_path) or detect(model_path) is Container.ONNX:
        return read_onnx(model_path).facts
    checkpoint = read_checkpoint(model_path)
    said = resolve(model_path, flags, teacher=None)
    spec = complete(said, checkpoint, flags)
    if spec.architecture is None:
        return facts_of(checkpoint, spec, None, output=None)
    opened = open_checkpoint(checkpoint, spec)
    output = find_output(opened.network, spec.input, spec) if spec.input else None
    spec = with_classes(spec, output) if output else spec
    facts = facts_of(opened.checkpoint, spec, opened.network, output=output, dense=opened.dense)
    facts = replace(facts, warnings=_warn_of_outputs(opened.network, spec, output) if output else ())
    taught = resolve_teacher(said, flags, teacher_arch=None)
    if taught.teacher_path is None or said.toml_path is None:
        return facts
    its_architecture = f" ({taught.architecture})" if taught.architecture else ""
    named = f"{taught.teacher_path.name}{its_architecture}, named by {said.toml_path.name}"
    return replace(facts, teacher_named=named)


def open_models(
    model_path: Path,
    flags: ModelFlags,
    *,
    will_prune: bool,
    teacher: Path | None = None,
    teacher_arch: str | LiveNetwork | None = None,
) -> Models:
    """Open a student and its teacher: the one given, the dense weights inside, or the model itself.

    Args:
        model_path: the student's checkpoint.
        flags: what the command line says about it.
        teacher: `--teacher`; None: the TOML file names it, or its weights are inside the student's checkpoint.
        will_prune: whether the caller prunes the student, so that a dense model is its own teacher.
        teacher_arch: `--teacher-arch`, if it differs from the student's; None: a TOML file or keys and shapes tell.

    Raises:
        BadInputError: the files cannot be used or do not belong together; the message says why.
    """
    checkpoint = read_checkpoint(weights_in(model_path))
    said = resolve(model_path, flags, teacher=teacher)
    teacher_spec = resolve_teacher(said, flags, teacher_arch=teacher_arch)
    spec = complete(share_input(said, teacher_spec), checkpoint, flags)
    spec, input = require_input(spec, teacher_spec, checkpoint)
    student = open_checkpoint(checkpoint, spec)
    if flags.trust_pickle and spec.teacher_path is not None and student.dense is None:
        student = replace(student, dense=wider_module(spec.teacher_path, student.network))
    output = find_output(student.network, input, spec)
    spec = with_classes(spec, output)
    check_assumed(spec, output, flags, model_path)
    facts = facts_of(student.checkpoint, spec, student.network, output=output, dense=student.dense)
    of_teacher = find_teacher(student.checkpoint, spec, facts.sparsity, will_prune)
    opened_teacher = open_teacher(of_teacher, teacher_spec, student, spec, output, flags)
    doubt = check_scale(spec, opened_teacher.opened.network, flags, spec.teacher_path or model_path)
    models = _pair(student, spec, facts, opened_teacher, input, output)
    _check_order(models)
    return replace(models, warnings=(*models.warnings, doubt)) if doubt else models


def _check_order(models: Models) -> None:
    """Refuse a dense student of a pruned teacher: the two were most likely given the wrong way round."""
    student, teacher = models.student_facts.sparsity.sparsity, models.teacher_facts.sparsity.sparsity
    if models.same_architecture and student < _MOST_OF_DENSE and teacher > _LEAST_OF_PRUNED:
        raise BadInputError(
            f"{models.student_facts.path}: is dense, and {teacher:.1%} of the weights of its teacher "
            f"{models.teacher_facts.path} are zero",
            hint="give the pruned network as MODEL and the dense one with --teacher; they may be the wrong way round",
        )


def _pair(
    student: OpenCheckpoint, spec: ModelSpec, facts: ModelFacts, teacher: Teacher, input: InputSpec, output: OutputSpec
) -> Models:
    """Relate two opened networks: the channels and weights that the student kept, and what to warn about."""
    from edgerecover.models.network.outputs import read_as_logits

    channels = _match_channels(student, teacher, input)
    if channels.related and not teacher.same_architecture:
        facts = as_narrower(facts, student.network, teacher.opened.network)
    masks = masks_of(student.network, student.checkpoint.masks, teacher.opened.network)
    unused_zeros = warning_of(uses_of(student.network, masks, input.shape))
    teacher_facts = facts_of(
        teacher.opened.checkpoint, teacher.spec, teacher.opened.network, output=teacher.output or output
    )
    read_as_logits(student.network, output)
    read_as_logits(teacher.opened.network, teacher.output or output)
    return Models(
        student=student.network,
        teacher=teacher.opened.network,
        masks=masks,
        input=input,
        output=output,
        classes=spec.classes,
        architecture=require_architecture(student.checkpoint, spec),
        student_facts=facts,
        teacher_facts=teacher_facts,
        warnings=(
            *(doubt.text for doubt in student.checkpoint.doubts),
            *_warnings(facts, teacher_facts, same_architecture=channels.related),
            *_warn_of_statistics(teacher.opened.network),
            *([unused_zeros] if unused_zeros else []),
            *_warn_of_outputs(student.network, spec, output),
        ),
        channels=channels,
    )


def _warn_of_outputs(network: nn.Module, spec: ModelSpec, output: OutputSpec) -> tuple[str, ...]:
    """What is left out of a network's outputs, or may be misread."""
    from edgerecover.models.network.detectors import gives_candidates
    from edgerecover.models.network.detectors import warning_of as surrounded_by
    from edgerecover.models.network.several_outputs import warning_of as left_out_of

    is_known = bool(spec.classes) or gives_candidates(network)
    lost = filter(None, (left_out_of(network), surrounded_by(network)))
    return (*doubts_of_objectness(output, has_classes=is_known), *lost)


def open_network(model_path: Path, flags: ModelFlags) -> tuple[nn.Module, InputSpec | None]:
    """Open one checkpoint in its architecture; returns the network, and its input if known.

    Raises:
        BadInputError: the checkpoint or its architecture cannot be used, or no architecture is named or recognised.
    """
    checkpoint = read_checkpoint(weights_in(model_path))
    said = resolve(model_path, flags, teacher=None)
    spec = complete(said, checkpoint, flags)
    return open_checkpoint(checkpoint, spec).network, spec.input


@dataclass(frozen=True)
class Classifier:
    """One network, and everything needed to feed it images."""

    network: nn.Module
    """float32, on the CPU, in eval mode; returns logits, as in `Models`."""
    masks: dict[str, Tensor]
    """bool, by parameter name, True where a weight is kept; see `masks.masks_of`."""
    input: InputSpec
    output: OutputSpec
    classes: tuple[str, ...] | None
    facts: ModelFacts
    doubt: str | None = None
    """What speaks against the input; None: nothing."""


def open_classifier(
    model_path: Path,
    flags: ModelFlags,
    *,
    belongs_to: Path | None = None,
    is_teacher: bool = False,
    teacher: nn.Module | None = None,
) -> Classifier:
    """Open one checkpoint whose input must be known.

    Args:
        model_path: the checkpoint.
        flags: what the command line says about it.
        belongs_to: another file whose TOML file fills the gaps of the one beside the checkpoint.
        is_teacher: whether the checkpoint is the teacher of `belongs_to`, whose `teacher_architecture` then applies.
        teacher: the student's dense network, if known.

    Raises:
        BadInputError: the checkpoint or its architecture cannot be used, or its input is not known.
    """
    from edgerecover.models.network.outputs import read_as_logits

    checkpoint = read_checkpoint(weights_in(model_path))
    said = resolve(model_path, flags, teacher=None)
    if belongs_to is not None:
        other = resolve(belongs_to, flags, teacher=model_path)
        taught = resolve_teacher(other, flags, teacher_arch=None)
        if is_teacher and taught.architecture and not flags.arch:
            own = replace(
                taught,
                input=said.input or taught.input,
                classes=said.classes,
                task=said.task or taught.task,
                outputs=said.outputs or taught.outputs,
            )
            said = _fill(own, said)
        said = _fill(said, other)
    spec, input = require_input(complete(said, checkpoint, flags), said, checkpoint)
    opened = open_checkpoint(checkpoint, spec)
    output = find_output(opened.network, input, spec)
    spec = with_classes(spec, output)
    check_assumed(spec, output, flags, model_path)
    doubt = check_scale(spec, opened.network, flags, model_path)
    facts = facts_of(opened.checkpoint, spec, opened.network, output=output, dense=opened.dense)
    read_as_logits(opened.network, output)
    return Classifier(
        network=opened.network,
        masks=masks_of(opened.network, opened.checkpoint.masks, teacher),
        input=input,
        output=output,
        classes=spec.classes,
        facts=facts,
        doubt=doubt,
    )


def _fill(spec: ModelSpec, other: ModelSpec) -> ModelSpec:
    """Fill the gaps of `spec` with what `other` says."""
    if spec.architecture is None:
        spec = replace(
            spec,
            architecture=other.architecture,
            architecture_source=other.architecture_source,
            base_dir=other.base_dir,
        )
    if spec.input is None:
        spec = replace(spec, input=other.input, input_source=other.input_source, assumes_scale=other.assumes_scale)
    if spec.classes is None:
        spec = replace(spec, classes=other.classes, classes_source=other.classes_source)
    spec = replace(spec, task=spec.task or other.task, outputs=spec.outputs or other.outputs)
    return spec if spec.card else replace(spec, card=other.card)


def _match_channels(student: OpenCheckpoint, teacher: Teacher, input: InputSpec) -> ChannelMap:
    if not teacher.same_architecture:
        return descent(teacher.opened.network, student.network, input.shape)
    return match_channels(teacher.opened.network, student.network, input.shape) if student.dense else SAME_CHANNELS


def _warnings(student: ModelFacts, teacher: ModelFacts, *, same_architecture: bool) -> tuple[str, ...]:
    warnings = []
    if not same_architecture:
        warnings.append(
            f"the student ({student.architecture}) is of another architecture than its teacher "
            f"({teacher.architecture}, {teacher.architecture_source}): it learns from the teacher's outputs alone, and "
            "none of its layers is repaired or fitted to the teacher's; its accuracy on real images cannot be predicted"
        )
    if teacher.sparsity.pattern is not Pattern.DENSE:
        warnings.append(
            f"the teacher {Path(teacher.path).name} is itself sparse ({teacher.sparsity.sparsity:.1%} zeros): "
            "recovery cannot do better than this teacher"
        )
    return tuple(warnings)


def _warn_of_statistics(teacher: nn.Module) -> Iterator[str]:
    from edgerecover.models.network.norms import unused_statistics_of

    if names := unused_statistics_of(teacher):
        first = ", ".join(name or "the network itself" for name in names[:_MOST_NAMED])
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield (
            "running statistics are ignored in layers that do not normalise by them as batch norm does in eval mode: "
            f"{first}{more} ({type(teacher.get_submodule(names[0])).__name__}). Dreams do not match them, "
            "and they are not repaired"
        )
