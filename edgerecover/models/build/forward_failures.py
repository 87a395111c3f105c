"""Why a network's forward fails on two example images, and the hint for each cause."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.examples import example_images

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST_CHANNELS = 8
"""Of images: the first of three numbers that is larger may be a height."""
_BATCH_SIZES = (4, 8, 16, 32, 64, 128)
"""That people write into a forward."""
_MAX_VALUES = 1 << 23
"""Of a batch: 55 images of 224 × 224."""


def failure_of(error: Exception, network: nn.Module, input: InputSpec, what: str) -> BadInputError:
    """The error to raise where a forward failed on two images.

    Args:
        error: that the forward raised.
        network: whose forward it is.
        input: of the network.
        what: the network, for the message.
    """
    if _runs(network, example_images(input, 1)):
        return BadInputError(
            f"{what}: works on one image, but fails on two with {type(error).__name__}: {error}",
            hint="a batch size is written into its forward: let view and reshape take x.shape[0], or use x.flatten(1)",
        )
    return BadInputError(
        f"{what}: the forward pass failed with {type(error).__name__}: {error}",
        hint=_hint_of_order(input.shape)
        or _hint_of_error(error)
        or _hint_of_trials(network, input)
        or "check the input's shape [C, H, W] (--input-shape or model.toml)",
    )


def _hint_of_order(shape_CHW: tuple[int, int, int]) -> str:
    """What to do where the numbers look like H, W, C; empty where they do not."""
    first, second, last = shape_CHW
    if first <= _MOST_CHANNELS or last not in (1, 3):
        return ""
    return f"channels come first: --input-shape {last},{first},{second}"


def _hint_of_error(error: Exception) -> str:
    text = str(error)
    if isinstance(error, TypeError) and "required positional argument" in text:
        return "the network gets images alone: give its forward's other arguments defaults, or wrap it in a module"
    if isinstance(error, TypeError) and re.search(r"takes 1 positional argument but 2 were", text):
        return "the network is called with the images alone, by position: let its forward be forward(self, x)"
    if re.search(r"cuda|nvidia|device", text, re.IGNORECASE):
        return "networks are opened on the CPU: let the forward use x.device instead of a fixed device"
    if re.search(r"scalar type|dtype|same type|Double|Half|BFloat16", text):
        return (
            "weights and images are float32: let its forward cast nothing (.double(), .half(), .to(dtype)), or cast to "
            "the type of its own weights"
        )
    return ""


def _hint_of_trials(network: nn.Module, input: InputSpec) -> str:
    """What images of another batch size, or with their channels last, show; empty if the network fails on those too."""
    largest = _MAX_VALUES // max(1, example_images(input, 1).numel())
    for size in _BATCH_SIZES:
        if size <= largest and _runs(network, example_images(input, size)):
            return (
                f"it works on {size} images: that batch size is written into its forward; let view and reshape take "
                "x.shape[0], or use x.flatten(1)"
            )
    if _runs(network, example_images(input, 2).permute(0, 2, 3, 1).contiguous()):
        return (
            "it takes images (N, H, W, C): wrap it in a module whose forward gets (N, C, H, W) and calls it with "
            "x.permute(0, 2, 3, 1)"
        )
    return ""


def _runs(network: nn.Module, images: Tensor) -> bool:
    """Whether the network gives one output per image."""
    import torch

    try:
        with torch.no_grad():
            outputs = network(images)
    except Exception:  # the user's network raises anything
        return False
    return not isinstance(outputs, torch.Tensor) or len(outputs) == len(images)
