"""What a network gives for an image, and what it is for: from a forward pass, and from what its user says.

Shapes: N images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgerecover.artifacts import Activation, InputSpec, OutputPart, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import build
from edgerecover.models.build.boxes import (
    CANDIDATES,
    NUM_IMAGES,
    activation_of_scores,
    candidates_of,
    check_candidates,
)
from edgerecover.models.build.forward_failures import failure_of
from edgerecover.models.build.returned import describe, hint_of
from edgerecover.models.build.task import NEVER_NEGATIVE, NEVER_POSITIVE, fitting_tasks, only_task
from edgerecover.models.name.flags import Said
from edgerecover.models.name.libraries import library_of
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.examples import example_images

if TYPE_CHECKING:
    from torch import Tensor, nn

_BY_PLACE = re.compile(r"output_\d+")
"""Names of outputs that the network does not name."""
_ENOUGH_SCORES = 32
"""So many logits are not between 0 and 1 by chance."""

_EXPECTED: Mapping[TaskKind, str] = MappingProxyType(
    {
        TaskKind.ONE_LABEL: "(N, K) scores of at least two classes",
        TaskKind.BINARY: "one score for each image, (N, 1) or (N,)",
        TaskKind.MULTI_LABEL: "(N, K) scores, one for each label",
        TaskKind.EMBEDDING: "(N, D) vectors",
        TaskKind.REGRESSION: "(N, D) values, (N,) for one, (N, M, D) for points, or maps (N, C, H, W)",
        TaskKind.SEGMENTATION: "(N, K, H, W) scores of each class for each pixel",
        TaskKind.DETECTION: CANDIDATES,
        TaskKind.SEVERAL: "several tensors",
    }
)


def find_output(network: nn.Module, input: InputSpec, spec: ModelSpec, role: str = "") -> OutputSpec:
    """Find what the network gives, from a few images, and its task: the one named, or the one that this can only be.

    Raises:
        BadInputError: the forward pass fails or does not give finite tensors; the task that is named does not fit
            its output; no task is named and several fit it; or there are more or fewer classes than names.
    """
    from edgerecover.models.network.outputs import only_output
    from edgerecover.models.network.several_outputs import names_of_outputs

    what = f"{role}{spec.architecture} on images of shape {list(input.shape)} (from {spec.input_source})"
    names = names_of_outputs(network)
    if len(names) < 2:
        if spec.outputs and not names:
            raise BadInputError(
                f"{what}: it gives one tensor, which has no name, and {', '.join(spec.outputs)} is named",
                hint="name its task alone: --task TASK, or task in model.toml",
            )
        name = names[0] if names else ""
        said = spec.outputs.get(name, Said())
        own = replace(spec, task=spec.task or said.task)
        output = _find_one(network, input, _name_classes(own, name, said), what)
        return replace(output, name="" if _BY_PLACE.fullmatch(name) else name)
    if spec.task is not None:
        raise BadInputError(
            f"{what}: it has several outputs, {', '.join(names)}, and one task is named, {spec.task.value}",
            hint=f"--task {','.join(f'{name}={spec.task.value}' for name in names)}, or one table for each in "
            f"model.toml, [outputs.{names[0]}]",
        )
    if spec.classes and spec.classes_source.endswith(".toml"):  # a card's are left
        raise BadInputError(
            f"{what}: it has several outputs, {', '.join(names)}, and {spec.classes_source} names classes, but not of "
            "which",
            hint=f"move `classes` into the table of the output that has them, [outputs.{names[0]}]",
        )
    parts = []
    for place, name in enumerate(names):
        said = spec.outputs.get(name, Said())
        own = _name_classes(replace(spec, task=said.task, classes=None), name, said)
        try:
            output = _find_one(only_output(network, place), input, own, f"{what}, output {name}")
        except BadInputError as error:
            raise BadInputError(error.message, hint=_hint_of_part(error.hint, name)) from error
        parts.append(OutputPart(name, output, said.weight, said.classes))
    return OutputSpec.several(tuple(parts))


def with_classes(spec: ModelSpec, output: OutputSpec) -> ModelSpec:
    """The spec with the class names that a table gives a network's only output."""
    return spec if output.parts else _name_classes(spec, output.name, spec.outputs.get(output.name, Said()))


def _name_classes(spec: ModelSpec, name: str, said: Said) -> ModelSpec:
    return replace(spec, classes=said.classes, classes_source=f"[outputs.{name}]") if said.classes else spec


def _hint_of_part(hint: str, name: str) -> str:
    """The hint of a network with one output, said of one of several."""
    said = hint.replace("--task ", f"--task {name}=")
    for word in ("task", "`classes`"):
        said = said.replace(f"{word} in model.toml", f"{word} under [outputs.{name}] in model.toml")
    return f"{said}; weight = 0 there leaves it out"


def _find_one(network: nn.Module, input: InputSpec, spec: ModelSpec, what: str) -> OutputSpec:
    """The same of a network with one output."""
    from edgerecover.models.network.detectors import gives_candidates

    outputs = _run(network, input, what)
    shape = _shape_of(outputs)
    if _has_scores_last(shape, input.shape):
        raise BadInputError(
            f"{what}: it gives {list(shape)} for each image, height and width before the scores of the classes",
            hint="return maps of scores, (N, K, H, W): outputs.permute(0, 3, 1, 2)",
        )
    is_detector = gives_candidates(network)
    fitting = (TaskKind.DETECTION,) if is_detector else fitting_tasks(shape)
    task = spec.task or (
        TaskKind.DETECTION
        if is_detector
        else only_task(
            network,
            input,
            shape,
            what,
            has_classes=_has_classes(spec, shape),
            counts_classes=lambda: _counts_classes(spec, input, shape[0]),
        )
    )
    if task not in fitting:
        raise BadInputError(
            f"{what}: it gives ({', '.join(map(str, ('N', *outputs.shape[1:])))}), which does not fit {task.value}; "
            f"expected: {_EXPECTED[task]}",
            hint=f"such outputs fit {_named(fitting)}: name it with --task, or as task in model.toml",
        )
    _, height, width = input.shape
    is_one_map = task is TaskKind.REGRESSION and len(shape) == 2 and shape[0] * width == shape[1] * height
    if is_one_map or (task is TaskKind.SEGMENTATION and len(shape) == 2):
        shape = (1, *shape)  # (N, H, W)
    output = OutputSpec(task, shape, _activation(network, input, task))
    if task is TaskKind.DETECTION:
        output = replace(output, input_sides=input.shape[1:])
        if not is_detector:  # whose boxes are known to be such, however far off a pruned network's are
            check_candidates(candidates_of(network, input), input, what)
    elif output.has_threshold:
        _check_threshold(network, input, output, what)
    if spec.classes and output.num_classes not in (None, len(spec.classes)):
        raise BadInputError(
            f"{what}: it gives {output.num_classes} classes, but {spec.classes_source} names {len(spec.classes)}",
            hint=_hint_of_names(output, len(spec.classes)),
        )
    return output


def _has_classes(spec: ModelSpec, shape: tuple[int, ...]) -> bool:
    """Whether outputs are scores of classes: as many are named, or the library has no other networks."""
    return len(spec.classes or ()) == shape[0] or library_of(spec.architecture or "") is not None


def _counts_classes(spec: ModelSpec, input: InputSpec, num_outputs: int) -> bool:
    """Whether the factory makes as many outputs as it is asked for classes: with one class more, there is one more."""
    import torch

    from edgerecover.models.network.several_outputs import names_of_outputs, return_task_outputs

    if spec.architecture is None or spec.module is not None:
        return False
    images_NCHW = example_images(input, 2)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            other = build(spec.architecture, spec.base_dir, num_outputs + 1, input, spec.options).eval()
            return_task_outputs(other, images_NCHW)
            outputs = other(images_NCHW)
    except Exception:  # the user's code raises anything; then nothing is known
        return False
    return not names_of_outputs(other) and outputs.shape == (2, num_outputs + 1)


def _hint_of_names(output: OutputSpec, num_names: int) -> str:
    if output.task is TaskKind.DETECTION and output.num_classes == num_names + 1:
        return (
            "if the first score says whether there is an object at all, let the network return the others times it: "
            "torch.cat([boxes, objectness * scores], 2)"
        )
    if output.task is TaskKind.DETECTION and output.num_classes == num_names - 1:
        return "if the first name is that of the background, leave it out of `classes` in model.toml: it has no score"
    return "correct `classes` in model.toml beside it, which wins over names in other files"


def _run(network: nn.Module, input: InputSpec, what: str) -> Tensor:
    """Finite outputs of two images."""
    import torch

    try:
        with torch.no_grad():
            outputs = network(example_images(input, 2))
    except Exception as error:  # the user's network raises anything
        raise failure_of(error, network, input, what) from error
    is_tensor = isinstance(outputs, torch.Tensor) and outputs.is_floating_point()
    if not is_tensor or not outputs.dim() or len(outputs) != 2 or not fitting_tasks(_shape_of(outputs)):
        raise BadInputError(
            f"{what}: logits of shape (2, K) were expected for 2 images, or another task's outputs, "
            f"found {describe(outputs)}",
            hint=hint_of(outputs),
        )
    if not bool(outputs.isfinite().all()):
        raise BadInputError(
            f"{what}: the logits of two images are NaN or infinite",
            hint="check mean and std (--mean and --std, or model.toml), and that this is the last good checkpoint",
        )
    finite: Tensor = outputs
    return finite


def _shape_of(outputs: Tensor) -> tuple[int, ...]:
    """Of one image's outputs."""
    return tuple(outputs.shape[1:]) or (1,)


def _has_scores_last(shape: tuple[int, ...], input_CHW: tuple[int, int, int]) -> bool:
    """Whether the first two axes are as the image's height to its width, and the last two are not."""
    _, height, width = input_CHW
    if len(shape) != 3:
        return False
    return shape[0] > 1 and shape[0] * width == shape[1] * height and shape[1] * width != shape[2] * height


def _activation(network: nn.Module, input: InputSpec, task: TaskKind) -> Activation:
    """What the network applies last; values are values, whatever made them."""
    from edgerecover.models.network.outputs import activation_of

    if task in (TaskKind.EMBEDDING, TaskKind.REGRESSION):
        return Activation.NONE
    if task is TaskKind.DETECTION:
        return activation_of_scores(candidates_of(network, input))
    return activation_of(network, example_images(input, NUM_IMAGES))


def _check_threshold(network: nn.Module, input: InputSpec, output: OutputSpec, what: str) -> None:
    """Refuse scores that the network's last step keeps on one side of the threshold: every answer would be the same.

    Raises:
        BadInputError: it does.
    """
    import torch

    from edgerecover.models.network.outputs import last_step

    if output.activation is Activation.SIGMOID:
        return
    images_NCHW = example_images(input, NUM_IMAGES)
    step = last_step(network, images_NCHW)
    if step in NEVER_POSITIVE or step in NEVER_NEGATIVE:
        side, answer = ("above", "no") if step in NEVER_POSITIVE else ("below", "yes")
        raise BadInputError(
            f"{what}: for {output.task.value}, a score above 0 means yes; {step} comes last, after which no score is "
            f"{side} 0, so that every answer would be {answer}",
            hint="let the factory leave it out, or end in a sigmoid",
        )
    with torch.no_grad():
        scores = network(images_NCHW)
    if scores.numel() >= _ENOUGH_SCORES and bool(((scores >= 0) & (scores <= 1)).all()):
        raise BadInputError(
            f"{what}: for {output.task.value}, a score above 0 means yes; all {scores.numel():,} scores of "
            f"{len(scores)} images lie between {float(scores.min()):.2g} and {float(scores.max()):.2g}, as "
            f"probabilities do, but no sigmoid comes last ({step or 'nothing that can be told'} does)",
            hint="let the factory return logits, or end in a sigmoid",
        )


def _named(tasks: tuple[TaskKind, ...]) -> str:
    *others, last = (task.value for task in tasks)
    return f"{', '.join(others)} and {last}" if others else last
