"""How many images go through a teacher at once, forward and backward: as many as fit in memory and as pay off."""

# Shapes: N images, C channels, H height, W width.
# ruff: noqa: TID253 - works on tensors throughout; only stages import it, never the CLI's help

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from edgerecover.errors import MissingError
from edgerecover.models.network.examples import example_images
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.machine.memory import free_bytes
from edgerecover.synthesis.deep_inversion import evidence_of
from edgerecover.synthesis.source import Source
from edgerecover.synthesis.statistics import open_tap

if TYPE_CHECKING:
    from edgerecover.config import Synthesis

_ENOUGH_BYTES = 600_000_000
"""On a CPU a step takes as long per image whatever their number, so more memory gains nothing."""
_SHARE_OF_FREE = 0.5
BESIDE = 1.5
"""Factor for gradients in flight and copies, on top of what is kept for the backward pass."""
_TRIED = 2
"""Images in the trial: some networks cannot take statistics of a single one."""


def images_at_once(source: Source, settings: Synthesis, progress: Progress = SILENT) -> int:
    """How many images of a batch of dreams go through the teacher at once.

    Args:
        source: its teacher in eval mode, parameters without gradients, on the device of `compute`.
        settings: how to dream; the result is at most its batch size.
        progress: gets a note where it is less than the whole batch.

    Raises:
        MissingError: there is not enough free memory for one image.
    """
    compute, input = source.compute, source.input
    each = bytes_per_image(source, settings)
    is_cpu = compute.device.type == "cpu"
    free = free_bytes() if is_cpu else torch.cuda.mem_get_info(compute.device)[0]
    if BESIDE * each > free:
        raise MissingError(
            f"not enough memory: a forward and backward pass of one {' × '.join(map(str, input.shape))} image through "
            f"the teacher needs {BESIDE * each / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free",
            hint="close other programs, raise the container's memory limit, or use a machine with more memory",
        )
    budget = _SHARE_OF_FREE * free / BESIDE
    at_once = max(1, int(min(budget, _ENOUGH_BYTES) if is_cpu else budget) // max(each, 1))
    if at_once < settings.batch_size:
        progress.note(
            f"dreams: {at_once} of a batch of {settings.batch_size} images go through the teacher at once; each needs "
            f"{each / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free (set by synthesis.images_at_once)"
        )
    return min(at_once, settings.batch_size)


def bytes_per_image(source: Source, settings: Synthesis) -> int:
    """What a forward pass keeps of each image for the backward pass, as autograd is observed to keep it."""
    teacher, compute = source.teacher, source.compute
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    images_NCHW = compute.images(example_images(source.input, _TRIED)).clone().requires_grad_()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*teacher.parameters(), *teacher.buffers())}
    generator = torch.Generator().manual_seed(0)
    with (
        compute.without_slow_kernels(teacher),
        open_tap(teacher, evidence_of(teacher, settings, source.record)) as tap,
        saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        tap.draw([_TRIED], None, generator)
        with compute.autocast():
            logits_NK = teacher(images_NCHW.clone())
        tap.distance()
        logits_NK.float().logsumexp(1)
        total = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)
    return total // _TRIED
