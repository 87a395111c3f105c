"""What a network gives for an image, and what it is for: from a forward pass, and from what its user says.

Shapes: N images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.boxes import (
    CANDIDATES,
    activation_of_scores,
    check_candidates,
    fits_candidates,
    mistake_of,
)
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.examples import example_images

if TYPE_CHECKING:
    from torch import Tensor, nn

_MAX_SHOWN = 4
_MOST_CHANNELS = 8
"""Of images: the first of three numbers that is larger may be a height."""
_NUM_IMAGES = 4

_EXPECTED: Mapping[TaskKind, str] = MappingProxyType(
    {
        TaskKind.ONE_LABEL: "(N, K) scores of at least two classes",
        TaskKind.BINARY: "one score for each image, (N, 1) or (N,)",
        TaskKind.MULTI_LABEL: "(N, K) scores, one for each label",
        TaskKind.EMBEDDING: "(N, D) vectors",
        TaskKind.REGRESSION: "(N, D) values, or (N,) for one",
        TaskKind.SEGMENTATION: "(N, K, H, W) scores of each class for each pixel",
        TaskKind.DETECTION: CANDIDATES,
    }
)


def find_output(network: nn.Module, input: InputSpec, spec: ModelSpec, role: str = "") -> OutputSpec:
    """Find what the network gives, from a few images, and its task: the one named, or the one that this can only be.

    Raises:
        BadInputError: the forward pass fails or does not give one finite tensor; the task that is named does not fit
            it; no task is named and several fit it; or there are more or fewer classes than names.
    """
    what = f"{role}{spec.architecture} on images of shape {list(input.shape)} (from {spec.input_source})"
    outputs = _run(network, input, what)
    shape = tuple(outputs.shape[1:]) or (1,)
    task = spec.task or _only_task(network, input, shape, what)
    if task not in _fitting(shape):
        raise BadInputError(
            f"{what}: for {task.value}, {_EXPECTED[task]} are expected, found {['N', *outputs.shape[1:]]}",
            hint=f"such outputs fit {_named(_fitting(shape))}: --task, or task in model.toml",
        )
    output = OutputSpec(task, shape, _activation(network, input, task))
    if task is TaskKind.DETECTION:
        output = replace(output, input_sides=input.shape[1:])
        check_candidates(_candidates(network, input), input, what)
    if spec.classes and output.num_classes not in (None, len(spec.classes)):
        raise BadInputError(
            f"{what}: it gives {output.num_classes} classes, but {spec.classes_source} names {len(spec.classes)}",
            hint=_hint_of_names(output, len(spec.classes)),
        )
    return output


def _candidates(network: nn.Module, input: InputSpec) -> Tensor:
    """Outputs of a few images, (N, A, 4 + K)."""
    import torch

    with torch.no_grad():
        outputs: Tensor = network(example_images(input, _NUM_IMAGES))
    return outputs if outputs.shape[1] > outputs.shape[2] else outputs.transpose(1, 2)


def _hint_of_names(output: OutputSpec, num_names: int) -> str:
    if output.task is TaskKind.DETECTION and output.num_classes == num_names + 1:
        return (
            "if the first score says whether there is an object at all, let the network return the others times it: "
            "torch.cat([boxes, objectness * scores], 2)"
        )
    return "correct the names in `classes` of model.toml beside it, which wins"


def _run(network: nn.Module, input: InputSpec, what: str) -> Tensor:
    """Finite outputs of two images."""
    import torch

    try:
        with torch.no_grad():
            outputs = network(example_images(input, 2))
    except Exception as error:  # the user's network raises anything
        if _runs(network, example_images(input, 1)):
            raise BadInputError(
                f"{what}: works on one image, but fails on two with {type(error).__name__}: {error}",
                hint="a batch size is written into its forward: let view and reshape take x.shape[0], or use "
                "x.flatten(1)",
            ) from error
        raise BadInputError(
            f"{what}: the forward pass failed with {type(error).__name__}: {error}",
            hint=_hint_of_order(input.shape) or _hint_of_failure(error),
        ) from error
    is_tensor = isinstance(outputs, torch.Tensor) and outputs.is_floating_point()
    if not is_tensor or not outputs.dim() or len(outputs) != 2 or not _fitting(tuple(outputs.shape[1:]) or (1,)):
        found = list(outputs.shape) if isinstance(outputs, torch.Tensor) else _kinds(outputs)
        raise BadInputError(
            f"{what}: logits of shape (2, K) were expected for 2 images, or another task's outputs, found {found}",
            hint=_hint_of_output(outputs),
        )
    if not bool(outputs.isfinite().all()):
        raise BadInputError(
            f"{what}: the logits of two images are NaN or infinite",
            hint="check mean and std (--mean and --std, or model.toml), and that this is the last good checkpoint",
        )
    finite: Tensor = outputs
    return finite


def _fitting(shape: tuple[int, ...]) -> tuple[TaskKind, ...]:
    """The tasks whose outputs for one image can have this shape."""
    if len(shape) == 3 and shape[1] * shape[2] > 1:
        return (TaskKind.SEGMENTATION,)
    if fits_candidates(shape):
        return (TaskKind.DETECTION,)
    if len(shape) != 1:
        return ()
    if shape[0] == 1:
        return (TaskKind.BINARY, TaskKind.MULTI_LABEL, TaskKind.REGRESSION)
    return (TaskKind.ONE_LABEL, TaskKind.MULTI_LABEL, TaskKind.EMBEDDING, TaskKind.REGRESSION)


def _only_task(network: nn.Module, input: InputSpec, shape: tuple[int, ...], what: str) -> TaskKind:
    """The task of outputs of this shape where nobody names one: several scores are classes, as is most usual."""
    from edgerecover.models.network.outputs import activation_of

    if shape == (1,):
        if activation_of(network, example_images(input, _NUM_IMAGES)) is Activation.SIGMOID:
            return TaskKind.BINARY
        raise BadInputError(
            f"{what}: it gives one number for each image, which may be a decision or a measurement",
            hint="--task binary, or --task regression; or task in model.toml",
        )
    if len(shape) == 2:
        mistake = mistake_of(_candidates(network, input), input)
        if mistake is not None:
            raise BadInputError(
                f"{what}: it gives {list(shape)} for each image, which are no candidates of boxes: {mistake[0]}",
                hint=f"for a detector, {mistake[1]}; any other network returns one row of logits for each image",
            )
        return TaskKind.DETECTION
    if len(shape) == 3 and (shape[0] == 1 or shape == input.shape):
        raise BadInputError(
            f"{what}: it gives {list(shape)} for each image: one mask, or another image",
            hint="--task segmentation, or task in model.toml, if it gives scores of classes for each pixel; networks "
            "from images to images are not supported",
        )
    return TaskKind.SEGMENTATION if len(shape) == 3 else TaskKind.ONE_LABEL


def _activation(network: nn.Module, input: InputSpec, task: TaskKind) -> Activation:
    """What the network applies last; values are values, whatever made them."""
    from edgerecover.models.network.outputs import activation_of

    if task in (TaskKind.EMBEDDING, TaskKind.REGRESSION):
        return Activation.NONE
    if task is TaskKind.DETECTION:
        return activation_of_scores(_candidates(network, input))
    return activation_of(network, example_images(input, _NUM_IMAGES))


def _named(tasks: tuple[TaskKind, ...]) -> str:
    *others, last = (task.value for task in tasks)
    return f"{', '.join(others)} and {last}" if others else last


# --- hints ----------------------------------------------------------------------------------------------------


def _hint_of_output(output: object) -> str:
    import torch

    if _holds_boxes(output):
        return (
            "the network suppresses boxes itself; name a factory whose network returns its candidates before that, one "
            f"tensor {CANDIDATES}"
        )
    if isinstance(output, torch.Tensor):
        return "a classifier gives one row of logits per image: name a factory whose network does so in eval mode"
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    where = next((i for i, part in enumerate(parts) if isinstance(part, torch.Tensor) and part.dim() == 2), None)
    if where is None:
        return "name a factory whose network returns the logits alone in eval mode"
    key = repr(list(output)[where]) if isinstance(output, dict) else where
    return (
        f"name a factory whose network returns the logits alone in eval mode: a module that wraps yours and returns "
        f"output[{key}], which has the shape of logits"
    )


def _holds_boxes(output: object) -> bool:
    """Whether a network returned detections, image by image, as torchvision's detectors do."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    return isinstance(first, dict) and "boxes" in first


def _hint_of_failure(error: Exception) -> str:
    text = str(error)
    if isinstance(error, TypeError) and "required positional argument" in text:
        return "the network gets images alone: give its forward's other arguments defaults, or wrap it in a module"
    if re.search(r"cuda|nvidia|device", text, re.IGNORECASE):
        return "networks are opened on the CPU: let the forward use x.device instead of a fixed device"
    return "check the input's shape [C, H, W] (--input-shape or model.toml)"


def _runs(network: nn.Module, images_NCHW: Tensor) -> bool:
    import torch

    try:
        with torch.no_grad():
            network(images_NCHW)
    except Exception:  # the user's network raises anything
        return False
    return True


def _hint_of_order(shape_CHW: tuple[int, int, int]) -> str:
    """What to do where the numbers look like H, W, C; empty where they do not."""
    first, second, last = shape_CHW
    if first <= _MOST_CHANNELS or last not in (1, 3):
        return ""
    return f"channels come first: --input-shape {last},{first},{second}"


def _kinds(returned: object) -> str:
    """What a network returned instead of a tensor, with the shapes inside, for messages."""
    name = type(returned).__name__
    if not isinstance(returned, tuple | list):
        return name
    shapes = (list(one.shape) if hasattr(one, "shape") else type(one).__name__ for one in returned[:_MAX_SHOWN])
    return f"{name} of {', '.join(map(str, shapes))}"
