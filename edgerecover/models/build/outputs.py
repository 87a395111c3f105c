"""What a network gives for an image, and what it is for: from a forward pass, and from what its user says.

Shapes: N images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard

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
_ROUNDING_OF_LENGTH = 1e-4
_ENOUGH_SCORES = 32
"""So many logits are not between 0 and 1 by chance."""
_NEVER_POSITIVE = ("LogSigmoid", "LogSoftmax")
_NEVER_NEGATIVE = ("Relu", "Softplus", "Hardsigmoid", "Softmax", "Exp", "Abs")

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
    shape = _shape_of(outputs)
    if _has_scores_last(shape, input.shape):
        raise BadInputError(
            f"{what}: it gives {list(shape)} for each image, height and width before the scores of the classes",
            hint="return maps of scores, (N, K, H, W): outputs.permute(0, 3, 1, 2)",
        )
    task = spec.task or _only_task(network, input, shape, what)
    if task not in _fitting(shape):
        raise BadInputError(
            f"{what}: it gives ({', '.join(map(str, ('N', *outputs.shape[1:])))}), which does not fit {task.value}; "
            f"expected: {_EXPECTED[task]}",
            hint=f"such outputs fit {_named(_fitting(shape))}: name it with --task, or as task in model.toml",
        )
    if len(shape) == 2 and task is TaskKind.SEGMENTATION:
        shape = (1, *shape)  # (N, H, W): one mask
    output = OutputSpec(task, shape, _activation(network, input, task))
    if task is TaskKind.DETECTION:
        output = replace(output, input_sides=input.shape[1:])
        check_candidates(_candidates(network, input), input, what)
    elif output.has_threshold:
        _check_threshold(network, input, output, what)
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
    if not is_tensor or not outputs.dim() or len(outputs) != 2 or not _fitting(_shape_of(outputs)):
        raise BadInputError(
            f"{what}: logits of shape (2, K) were expected for 2 images, or another task's outputs, "
            f"found {_kinds(outputs)}",
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
    if len(shape) == 2 and min(shape) > 1:
        return (TaskKind.DETECTION, TaskKind.SEGMENTATION) if fits_candidates(shape) else (TaskKind.SEGMENTATION,)
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
    if fits_candidates(shape) and shape[0] * input.shape[2] != shape[1] * input.shape[1]:
        mistake = mistake_of(_candidates(network, input), input)
        if mistake is not None:
            raise BadInputError(
                f"{what}: it gives {list(shape)} for each image, which are no candidates of boxes: {mistake[0]}",
                hint=f"for a detector, {mistake[1]}; for one mask, --task segmentation; any other network returns one "
                "row of logits for each image",
            )
        return TaskKind.DETECTION
    if len(shape) == 2 or (len(shape) == 3 and (shape[0] == 1 or shape == input.shape)):
        other = "a sequence of vectors" if len(shape) == 2 else "another image"
        raise BadInputError(
            f"{what}: it gives {list(shape)} for each image: one mask, or {other}",
            hint="--task segmentation, or task in model.toml, if it gives scores of classes for each pixel; networks "
            "from images to images, or to sequences, are not supported",
        )
    if len(shape) == 3:
        return TaskKind.SEGMENTATION
    return TaskKind.EMBEDDING if _are_unit_vectors(network, input) else TaskKind.ONE_LABEL


def _are_unit_vectors(network: nn.Module, input: InputSpec) -> bool:
    """Whether all outputs have a length of 1 and no output is a distribution: F.normalize comes last."""
    import torch

    with torch.no_grad():
        vectors_ND = network(example_images(input, _NUM_IMAGES)).double()
    lengths_N = vectors_ND.norm(dim=1)
    return bool((vectors_ND < 0).any()) and bool(((lengths_N - 1).abs() < _ROUNDING_OF_LENGTH).all())


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
        return activation_of_scores(_candidates(network, input))
    return activation_of(network, example_images(input, _NUM_IMAGES))


def _check_threshold(network: nn.Module, input: InputSpec, output: OutputSpec, what: str) -> None:
    """Refuse scores that the network's last step keeps on one side of the threshold: every answer would be the same.

    Raises:
        BadInputError: it does.
    """
    import torch

    from edgerecover.models.network.outputs import last_step

    if output.activation is Activation.SIGMOID:
        return
    images_NCHW = example_images(input, _NUM_IMAGES)
    step = last_step(network, images_NCHW)
    if step in _NEVER_POSITIVE or step in _NEVER_NEGATIVE:
        side, answer = ("above", "no") if step in _NEVER_POSITIVE else ("below", "yes")
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


# --- hints ----------------------------------------------------------------------------------------------------


def _hint_of_output(output: object) -> str:
    import torch

    if _holds_boxes(output):
        return (
            "the network suppresses boxes itself; name a factory whose network returns its candidates before that, one "
            f"tensor {CANDIDATES}"
        )
    if isinstance(output, torch.Tensor) and not output.is_floating_point():
        return "these are answers: return the scores that they are taken from, before argmax or a comparison"
    if isinstance(output, torch.Tensor):
        return "a classifier gives one row of logits per image: name a factory whose network does so in eval mode"
    entries = output if isinstance(output, Mapping) else dict(enumerate(output)) if _is_sequence(output) else {}
    keys = [repr(key) for key, part in entries.items() if isinstance(part, torch.Tensor) and part.dim() == 2]
    alone = "name a factory whose network returns the logits alone in eval mode"
    if not keys:
        return alone
    which = " or ".join(f"output[{key}]" for key in keys[:_MAX_SHOWN])
    have = "has the shape of logits" if len(keys) == 1 else "have the shape of logits; one output is recovered"
    return f"{alone}: a module that wraps yours and returns {which}, which {have}"


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
    import torch

    name = type(returned).__name__
    if isinstance(returned, torch.Tensor):
        shape = str(list(returned.shape))
        return shape if returned.is_floating_point() else f"{str(returned.dtype).removeprefix('torch.')} {shape}"
    if isinstance(returned, Mapping):
        shown = [f"{key} {_shape_in_words(value)}" for key, value in [*returned.items()][:_MAX_SHOWN]]
    elif _is_sequence(returned):
        shown = [_shape_in_words(one) for one in returned[:_MAX_SHOWN]]
    else:
        return name
    return f"{name} of {', '.join(shown)}"


def _is_sequence(returned: object) -> TypeGuard[Sequence[object]]:
    return isinstance(returned, list | tuple)


def _shape_in_words(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else str(list(shape))
