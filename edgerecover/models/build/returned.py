"""What a network returned that is no output which can be recovered: in words, and what to do about it.

Shapes: N images, K classes, A candidates of boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

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


def describe(returned: object) -> str:
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
