"""Which task a network's outputs are of, where nobody names one: the one that they can only be, or a question.

Shapes: N images, C channels, H×W pixels, K scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgerecover.artifacts import Activation, InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.build.boxes import NUM_IMAGES, candidates_of, fits_candidates, mistake_of
from edgerecover.models.network.examples import example_images

if TYPE_CHECKING:
    from torch import nn

NEVER_POSITIVE = ("LogSigmoid", "LogSoftmax")
NEVER_NEGATIVE = ("Relu", "Softplus", "Hardsigmoid", "Softmax", "Exp", "Abs")
_MAKE_FEATURES = (
    "NativeBatchNorm", "NativeLayerNorm", "NativeGroupNorm", "Relu", "LeakyRelu", "PreluKernel", "Elu", "Gelu", "Silu",
    "Hardswish", "Hardtanh",
)  # fmt: skip
"""Steps that come before a classifier's last layer, and hardly ever after it."""
_NORMS = _MAKE_FEATURES[:3]
_POOL = ("Mean", "AdaptiveAvgPool", "AvgPool")
_FEWEST_FEATURES = 32
"""Fewer numbers than that are classes, whatever comes last."""
_FEWEST_IN_ORDER = 7
"""So many scores are not in ascending or descending order for every image by chance."""
_ROUNDING_OF_LENGTH = 1e-4


def fitting_tasks(shape: tuple[int, ...]) -> tuple[TaskKind, ...]:
    """The tasks whose outputs for one image can have this shape."""
    if len(shape) == 3 and shape[1] * shape[2] > 1:
        return (TaskKind.SEGMENTATION, TaskKind.REGRESSION)
    if len(shape) == 2 and min(shape) > 1:
        maps_or_values = (TaskKind.SEGMENTATION, TaskKind.REGRESSION)
        return (TaskKind.DETECTION, *maps_or_values) if fits_candidates(shape) else maps_or_values
    if len(shape) != 1:
        return ()
    if shape[0] == 1:
        return (TaskKind.BINARY, TaskKind.MULTI_LABEL, TaskKind.REGRESSION)
    return (TaskKind.ONE_LABEL, TaskKind.MULTI_LABEL, TaskKind.EMBEDDING, TaskKind.REGRESSION)


def only_task(
    network: nn.Module,
    input: InputSpec,
    shape: tuple[int, ...],
    what: str,
    *,
    has_classes: bool,
    counts_classes: Callable[[], bool] = lambda: False,
) -> TaskKind:
    """The task of outputs of this shape where nobody names one: several scores are classes, as is most usual.

    Args:
        network: in eval mode.
        input: of the network.
        shape: of one image's output.
        what: the network, for messages.
        has_classes: as many classes are named as it gives scores, or its library gives classifiers alone.
        counts_classes: whether its factory makes as many outputs as it is asked for classes, which takes building it.

    Raises:
        BadInputError: they may be of several tasks, or of none.
    """
    if shape == (1,):
        return _task_of_a_number(network, input, what)
    if fits_candidates(shape) and shape[0] * input.shape[2] != shape[1] * input.shape[1]:
        mistake = mistake_of(candidates_of(network, input), input)
        if mistake is not None:
            raise BadInputError(
                f"{what}: it gives {list(shape)} for each image, which are no candidates of boxes: {mistake[0]}",
                hint=f"for a detector, {mistake[1]}; for one mask, --task segmentation; for values, --task regression; "
                "any other network returns one row of logits for each image",
            )
        return TaskKind.DETECTION
    if len(shape) == 2:
        raise BadInputError(
            f"{what}: it gives {list(shape)} for each image: one mask, points, or a sequence of vectors",
            hint="--task segmentation if it gives a score for each pixel, --task regression for values such as the "
            "coordinates of points; or task in model.toml",
        )
    if len(shape) == 1 and _are_unit_vectors(network, input):
        return TaskKind.EMBEDDING
    if len(shape) == 1:
        _ask_of_sigmoids(network, input, shape, what)
    if not has_classes and len(shape) == 3:
        _ask_of_maps(network, input, shape, what)
    elif not has_classes:
        _ask_of_rows(network, input, shape, what, counts_classes)
    return TaskKind.SEGMENTATION if len(shape) == 3 else TaskKind.ONE_LABEL


def is_another_image(shape: tuple[int, ...], input_CHW: tuple[int, int, int]) -> bool:
    """Whether maps may be an image: they are one map, have its channels and at least its size, or are larger."""
    (num_maps, height, width), (channels, input_height, input_width) = shape, input_CHW
    is_as_large = height >= input_height and width >= input_width
    is_larger = height > input_height and width > input_width
    return num_maps == 1 or (num_maps == channels and is_as_large) or is_larger


def doubts_of_objectness(output: OutputSpec, *, has_classes: bool) -> tuple[str, ...]:
    """What to know of candidates (A, 4 + K), as YOLOv3 to v7 and YOLOX give them, where no classes are named.

    Those put before the classes a score that says whether there is an object at all. It looks like a class.
    """
    doubts = [(part.name, _doubt_of_objectness(part.output, bool(part.classes))) for part in output.parts]
    doubts = doubts or [("", _doubt_of_objectness(output, has_classes))]
    return tuple(f"{name}: {doubt}" if name else doubt for name, doubt in doubts if doubt)


def _doubt_of_objectness(output: OutputSpec, has_classes: bool) -> str | None:
    is_like_them = output.task is TaskKind.DETECTION and output.has_candidates_first
    num_classes = output.num_classes or 0
    if has_classes or not is_like_them or num_classes < 2:
        return None
    return (
        f"the first of the {num_classes:,} scores of a candidate is taken for a class. If it says whether there is an "
        "object at all, as in YOLOv5 and YOLOX, let the network return the others times it: "
        "torch.cat([boxes, objectness * scores], 2). Naming `classes` in model.toml settles it"
    )


def _task_of_a_number(network: nn.Module, input: InputSpec, what: str) -> TaskKind:
    from edgerecover.models.network.outputs import activation_of

    if activation_of(network, example_images(input, NUM_IMAGES)) is Activation.SIGMOID:
        return TaskKind.BINARY
    raise BadInputError(
        f"{what}: it gives one number for each image, which may be a decision or a measurement",
        hint="--task binary, or --task regression; or task in model.toml",
    )


def _ask_of_maps(network: nn.Module, input: InputSpec, shape: tuple[int, ...], what: str) -> None:
    """Raise where maps may hold something else than scores of classes."""
    from edgerecover.models.network.outputs import activation_of, last_step

    given = f"{what}: it gives {list(shape)} for each image"
    images_NCHW = example_images(input, NUM_IMAGES)
    if is_another_image(shape, input.shape):
        doubt = "one mask, or another image"
    else:
        step = last_step(network, images_NCHW)
        if step not in ("Cat", "Tanh", "Sigmoid", *NEVER_NEGATIVE):
            return
        if activation_of(network, images_NCHW) is Activation.SOFTMAX:
            return
        doubt = _WORDS_OF_STEPS.get(step, f"{step} comes last, as for heat maps or distances")
    raise BadInputError(
        f"{given}: {doubt}",
        hint="--task segmentation if the highest score decides each pixel, or one score does; --task regression for "
        "values: depth, heat maps, images; or task in model.toml",
    )


def _ask_of_sigmoids(network: nn.Module, input: InputSpec, shape: tuple[int, ...], what: str) -> None:
    """Raise where each number of a row goes through a sigmoid, whatever they are called: each may decide for itself."""
    from edgerecover.models.network.outputs import last_step

    if last_step(network, example_images(input, NUM_IMAGES)) == "Sigmoid":
        raise BadInputError(
            f"{what}: it gives {shape[0]:,} numbers for each image, each through a sigmoid, as where each decides for "
            "itself",
            hint="--task multi-label if each decides for itself, --task one-label if the highest decides, "
            "--task regression for values from 0 to 1; or task in model.toml",
        )


def _ask_of_rows(
    network: nn.Module, input: InputSpec, shape: tuple[int, ...], what: str, counts_classes: Callable[[], bool]
) -> None:
    """Raise where a row of numbers hardly holds scores of classes."""
    import torch

    from edgerecover.models.network.outputs import last_step

    images_NCHW = example_images(input, NUM_IMAGES)
    step, before_pooling = last_step(network, images_NCHW), last_step(network, images_NCHW, through=_POOL)
    with torch.no_grad():
        steps_NK = network(images_NCHW).diff(dim=1)
    if step in ("Cat", "Cumsum", "Tanh"):
        doubt = _WORDS_OF_STEPS[step]
    elif before_pooling in _MAKE_FEATURES and shape[0] >= _FEWEST_FEATURES:
        # SqueezeNet and Network in Network pool a map of each class after a ReLU.
        if step.startswith(_POOL) and before_pooling not in _NORMS and counts_classes():
            return
        step = before_pooling.removeprefix("Native")
        doubt = f"no layer of scores comes last, but {step}, as in networks that give features"
    elif shape[0] >= _FEWEST_IN_ORDER and bool((steps_NK > 0).all() or (steps_NK < 0).all()):
        doubt = "they are in order for every image, so that the same would always be the highest, as with quantiles"
    else:
        return
    raise BadInputError(
        f"{what}: it gives {shape[0]:,} numbers for each image: {doubt}",
        hint="--task embedding if their direction says how alike two images are, --task regression for values, "
        "--task multi-label if each decides for itself, --task one-label if the highest decides; or task in model.toml",
    )


_WORDS_OF_STEPS = {
    "Cat": "several parts are put together last",
    "Cumsum": "sums of steps come last, as for quantiles",
    "Tanh": "a tanh comes last, which scores of classes do not have",
    "Sigmoid": "a sigmoid comes last, as for heat maps, or masks that overlap",
}


def _are_unit_vectors(network: nn.Module, input: InputSpec) -> bool:
    """Whether all outputs have a length of 1 and no output is a distribution: F.normalize comes last."""
    import torch

    with torch.no_grad():
        vectors_ND = network(example_images(input, NUM_IMAGES)).double()
    lengths_N = vectors_ND.norm(dim=1)
    return bool((vectors_ND < 0).any()) and bool(((lengths_N - 1).abs() < _ROUNDING_OF_LENGTH).all())
