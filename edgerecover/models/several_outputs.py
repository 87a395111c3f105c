"""Networks that return more than logits in eval mode: the logits among what they return.

Shapes: N images, K classes.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def return_logits(network: nn.Module, images_NCHW: Tensor) -> None:
    """Let a network that returns several things return its logits alone, in place, where it is clear which they are.

    So it is with one (N, K) tensor among them, with an entry called `logits`, and with two of which one is the softmax
    of the other (as ultralytics' classifiers return). Names of parameters and layers stay. In training mode such
    networks may return a tensor; that is left as it is.
    """
    try:
        returned = network(images_NCHW.clone())
    except Exception:  # what fails is said by whoever checks the forward pass
        return
    key = None if isinstance(returned, Tensor) else _key_of_logits(returned, len(images_NCHW))
    own = type(network)
    if key is None or hasattr(own, "__deepcopy__"):
        return

    class LogitsAlone(own):  # type: ignore[valid-type, misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            outputs = super().forward(*args, **kwargs)
            return outputs if isinstance(outputs, Tensor) else outputs[key]

    LogitsAlone.__name__, LogitsAlone.__qualname__, LogitsAlone.__module__ = (
        own.__name__, own.__qualname__, own.__module__
    )  # fmt: skip
    network.__class__ = LogitsAlone


def _key_of_logits(returned: Any, num_images: int) -> Any:
    entries: dict[Any, Any] = {}
    if isinstance(returned, Mapping):
        entries = dict(returned)
    elif isinstance(returned, Sequence):
        entries = dict(enumerate(returned))
    scores = {
        key: value
        for key, value in entries.items()
        if isinstance(value, Tensor) and value.dim() == 2 and len(value) == num_images and value.is_floating_point()
    }
    if "logits" in scores:
        return "logits"
    if len(scores) == 2:
        (key_a, a), (key_b, b) = scores.items()
        if a.shape == b.shape and torch.allclose(a, b.softmax(1), atol=1e-5):
            return key_b
        if a.shape == b.shape and torch.allclose(b, a.softmax(1), atol=1e-5):
            return key_a
    return next(iter(scores)) if len(scores) == 1 else None
