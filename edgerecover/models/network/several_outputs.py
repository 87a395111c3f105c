"""Finding the logits among the outputs of networks that return more than one tensor in eval mode.

Shapes: N images, K classes, H×W pixels.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

_NAMES_OF_MAPS = ("logits", "out")
_FOR_TRAINING = ("aux", "aux_logits", "loss")
_LAST_AXES = object()
"""In place of a key: the output is a single tensor of logits with trailing axes of size 1."""


@torch.no_grad()
def return_logits(network: nn.Module, images_NCHW: Tensor) -> None:
    """Make a network with several outputs return its logits alone, in place, if it is clear which ones they are.

    It is clear if there is one (N, K) tensor, an entry or field called `logits`, or two tensors of which one is the
    softmax of the other (as ultralytics' classifiers return). Where none is (N, K), it is clear if there is one tensor
    (N, K, H, W), or an entry `logits` or `out` of that shape, as torchvision's segmentation networks return. Where
    neither is, one tensor (N, V, A) of candidates is clear, as ultralytics' detectors return beside their maps. A
    single tensor (N, K, 1, 1), as fully convolutional networks return, loses its last axes. Names of parameters and
    layers stay. In training mode such networks may return something else; an (N, K) tensor is left as it is.
    """
    try:
        returned = network(images_NCHW.clone())
    except Exception:  # the check of the forward pass reports the failure
        return
    key = _key_of_logits(returned, len(images_NCHW))
    own = type(network)
    if key is None or hasattr(own, "__deepcopy__"):
        return

    class LogitsAlone(own):  # type: ignore[valid-type, misc]
        reads_logits = True  # `outputs.own_network` takes it off
        left_out = _others_than(key, returned)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            outputs = super().forward(*args, **kwargs)
            logits = outputs if isinstance(outputs, Tensor) else _entries_of(outputs)[key]
            return logits.flatten(1) if key is _LAST_AXES else logits

    LogitsAlone.__name__, LogitsAlone.__qualname__, LogitsAlone.__module__ = (
        own.__name__, own.__qualname__, own.__module__
    )  # fmt: skip
    network.__class__ = LogitsAlone


def warning_of(network: nn.Module) -> str | None:
    """What is lost of a network that `return_logits` has changed; None where nothing is."""
    left_out: tuple[str, ...] = getattr(type(network), "left_out", ())
    if not left_out:
        return None
    return (
        f"the network has several outputs, of which one is recovered and exported; left out: {', '.join(left_out)}. "
        "A factory whose network returns another one alone chooses that"
    )


def _others_than(key: Any, returned: Any) -> tuple[str, ...]:
    """Names of outputs beside the logits that hold something else: no softmax of them, and not for training alone."""
    if key is _LAST_AXES:
        return ()
    entries = _entries_of(returned)
    logits = entries[key]
    return tuple(
        f"{name} {list(value.shape)}"
        for name, value in entries.items()
        if isinstance(value, Tensor) and name not in (key, *_FOR_TRAINING)
        if value.shape != logits.shape or not torch.allclose(value, logits.softmax(1), atol=1e-5)
    )


def _key_of_logits(returned: Any, num_images: int) -> Any:
    if isinstance(returned, Tensor):
        has_last_axes = returned.dim() > 2 and returned.shape[2:].numel() == 1 and len(returned) == num_images
        return _LAST_AXES if has_last_axes else None
    batches = {
        key: value
        for key, value in _entries_of(returned).items()
        if isinstance(value, Tensor) and value.dim() in (2, 3, 4) and len(value) == num_images
        if value.is_floating_point()
    }
    scores = {key: value for key, value in batches.items() if value.dim() == 2}
    maps = {key: value for key, value in batches.items() if value.dim() == 4}
    if not scores and len(maps) > 1:
        return next((name for name in _NAMES_OF_MAPS if name in maps), None)
    scores = scores or maps or {key: value for key, value in batches.items() if value.dim() == 3}
    if "logits" in scores:
        return "logits"
    if len(scores) == 2:
        (key_a, a), (key_b, b) = scores.items()
        if a.shape == b.shape and torch.allclose(a, b.softmax(1), atol=1e-5):
            return key_b
        if a.shape == b.shape and torch.allclose(b, a.softmax(1), atol=1e-5):
            return key_a
    return next(iter(scores)) if len(scores) == 1 else None


def _entries_of(returned: Any) -> Mapping[Any, Any]:
    """Several outputs by key, field name or position."""
    if isinstance(returned, Mapping):
        return returned
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return dict(zip(returned._fields, returned, strict=True))
    if isinstance(returned, Sequence):
        return dict(enumerate(returned))
    if is_dataclass(returned) and not isinstance(returned, type):
        return {field.name: getattr(returned, field.name) for field in fields(returned)}
    return {}
