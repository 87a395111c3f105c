"""What a network returned that is no output which can be recovered: in words, and what to do about it.

Shapes: N images, K classes, A candidates of boxes.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgerecover.artifacts import NUM_BOX_VALUES
from edgerecover.models.build.boxes import CANDIDATES

_MAX_SHOWN = 4


def hint_of(output: object) -> str:
    """What to do about it."""
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
    from edgerecover.models.network.several_outputs import outputs_by_name

    named = {name: one for name, one in outputs_by_name(output).items() if isinstance(one, torch.Tensor)}
    axes = {name: tuple(one.shape) for name, one in named.items() if one.is_floating_point()}
    if apart := _candidates_apart(axes):
        boxes, scores = apart
        return f"for a detector, return one tensor {CANDIDATES}, as torch.cat([{boxes}, {scores}], 2) makes it"
    if len(axes) > 1 and all(len(shape) == 4 for shape in axes.values()):
        first = next(iter(axes))
        return (
            f"of maps of classes or values, name those to recover: --task {first}=segmentation; for a detector, return "
            f"the candidates that its maps stand for, one tensor {CANDIDATES}"
        )
    keys = [name for name, shape in axes.items() if len(shape) in (2, 3)]
    alone = "name a factory whose network returns the logits alone in eval mode"
    if not keys:
        return alone
    return f"name the one to recover with its task, --task {keys[0]}=TASK; or {alone}"


def _candidates_apart(axes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """Names of boxes (N, A, 4) and of their scores (N, A, K), where a network gives both."""
    of_three = {name: shape for name, shape in axes.items() if len(shape) == 3}
    for boxes, shape in of_three.items():
        scores = [name for name, other in of_three.items() if name != boxes and other[1] == shape[1]]
        if shape[2] == NUM_BOX_VALUES and scores:
            return boxes, scores[0]
    return None


def _holds_boxes(output: object) -> bool:
    """Whether a network returned detections, image by image, as torchvision's detectors do."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    boxes = first.get("boxes") if isinstance(first, dict) else None
    return getattr(boxes, "ndim", None) == 2


def describe(returned: object) -> str:
    """What a network returned instead of a tensor, with the shapes inside, for messages."""
    import torch

    name = type(returned).__name__
    if isinstance(returned, torch.Tensor):
        shape = str(list(returned.shape))
        return shape if returned.is_floating_point() else f"{str(returned.dtype).removeprefix('torch.')} {shape}"
    inside = _inside(returned)
    return f"{name} of {inside}" if inside else name


def _inside(returned: object) -> str:
    if isinstance(returned, Mapping):
        return ", ".join(f"{key} {_shape_in_words(value)}" for key, value in [*returned.items()][:_MAX_SHOWN])
    if isinstance(returned, list | tuple):
        return ", ".join(_shape_in_words(one) for one in returned[:_MAX_SHOWN])
    return ""


def _shape_in_words(value: object) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return str(list(shape))
    inside = _inside(value)
    return f"{type(value).__name__} ({inside})" if inside else type(value).__name__
