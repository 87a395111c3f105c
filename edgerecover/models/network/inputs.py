"""Networks that write into the images they are given. Shapes: N images, C channels, H×W pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def keep_images(network: nn.Module, images_NCHW: Tensor) -> None:
    """Let a network that changes its images in place (`x -= 0.5`) compute on copies of them from now on.

    The same images go to teacher, student and what compares the two. Parameters and layers keep their names.

    Args:
        network: in eval mode.
        images_NCHW: to try it on; left as they are.
    """
    import torch

    given_NCHW = images_NCHW.clone()
    try:
        with torch.no_grad():
            network(given_NCHW)
    except Exception:  # the check of the forward pass reports the failure
        return
    if not torch.equal(given_NCHW, images_NCHW):
        network.register_forward_pre_hook(_copy_tensors)


def _copy_tensors(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    return tuple(value.clone() if isinstance(value, torch.Tensor) else value for value in args)
