"""Batch norm while distilling: teacher and student both normalise by the batch, which several processes may share.

On dreams the teacher's layers see other means and variances than they have stored, and over fifty layers what it makes
of them is far from what it makes of real images. Normalised by the batch, every layer gets the mean and variance that
real images have there; so does each of the student's, and both see the same picture (docs/adr/0041). The student's
running statistics follow those that a repair finds, batch by batch: real images do not have the difference.

PyTorch's own SyncBatchNorm refuses tensors on the CPU, where this is tested; the arithmetic is the same.
"""

# Shapes: N images, C channels, R processes.
# ruff: noqa: TID253 - tensors throughout, shapes are suffixes of fields too; only distillation imports it

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.distributed import Ranks
from edgerecover.models.network.norms import Normalisation, adapts, batch_norms_of, normalising, stored_by
from edgerecover.models.pair.channels import SAME_CHANNELS, ChannelMap
from edgerecover.recovery.statistics import correct_statistics


class Matching:
    """Whether the teacher is being shown a batch that the student is shown next, in all processes."""

    is_on = False

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Switch it on inside the block; outside, a process may run the teacher alone on its own images."""
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


@contextmanager
def matched_norms(
    student: nn.Module, teacher: nn.Module, ranks: Ranks, channels: ChannelMap = SAME_CHANNELS
) -> Iterator[Matching]:
    """The student's BN layers that are in training mode normalise by the batch, and so do the teacher's of their names.

    Running statistics of a layer that the teacher does not have, or whose channels are not known, follow the batch's.

    Args:
        student: its layers are left in the mode they are in.
        teacher: in eval mode; has to be shown each batch before the student, both inside `Matching.batch`.
        ranks: that share every batch.
        channels: the teacher's channels that a narrower student has; unrelated ones leave the teacher out.
    """
    layers = {name: layer for name, layer in batch_norms_of(student).items() if adapts(layer)}
    found = batch_norms_of(teacher) if channels.related else {}
    taught: dict[str, deque[Tensor | None]] = {}
    matching = Matching()
    with ExitStack() as stack:
        if found:
            stack.callback(teacher.register_forward_pre_hook(lambda *_: taught.clear()).remove)
        for name, layer in layers.items():
            is_taught = name in found and adapts(found[name])
            if is_taught:
                teach = partial(_teach, found[name], layer, name, taught, matching, channels, ranks)
                stack.enter_context(normalising(found[name], teach))
            if is_taught or ranks.size > 1:
                stack.enter_context(normalising(layer, partial(_by_batch, layer, name, taught, ranks)))
        yield matching


@torch.no_grad()
def _teach(
    layer: nn.Module,
    own: nn.Module,
    name: str,
    taught: dict[str, deque[Tensor | None]],
    matching: Matching,
    channels: ChannelMap,
    ranks: Ranks,
    x_NC: Tensor,
) -> Normalisation | None:
    """Normalise by the batch where the student's `own` layer will, and record what a repair needs of it."""
    if not (matching.is_on and own.training):
        return None
    mean_C, var_C, _ = _moments(x_NC, ranks)
    taught_4C = torch.stack([*(values_C.float() for values_C in stored_by(layer)), mean_C, var_C])
    taught.setdefault(name, deque()).append(channels.of_teacher(name, taught_4C, dim=1))
    return Normalisation(x_NC, mean_C, var_C)


def _by_batch(
    layer: Any, name: str, taught: dict[str, deque[Tensor | None]], ranks: Ranks, x_NC: Tensor
) -> Normalisation | None:
    if not layer.training:
        return None
    calls = taught.get(name)
    taught_4C = calls.popleft() if calls else None
    if ranks.size == 1:
        if taught_4C is None:
            return None
        # One kernel, forward and backward.
        x_NC, mean_C, slope_C = torch.native_batch_norm(x_NC, None, None, None, None, True, 0.0, layer.eps)
        mean_C, var_C = mean_C.detach().float(), slope_C.detach().float().pow(-2) - layer.eps
    else:
        mean_C, var_C, count = _moments(x_NC, ranks)
        x_NC = _Normalise.apply(x_NC, mean_C, var_C, count, layer.eps, ranks)
    if taught_4C is None:
        _follow(layer, mean_C, var_C * count / max(1.0, count - 1))
    else:
        _follow(layer, *correct_statistics(mean_C, var_C, taught_4C, layer.eps))
    # Normalised already: statistics that leave it so.
    return Normalisation(x_NC, torch.zeros_like(mean_C), torch.full_like(var_C, 1 - layer.eps))


@torch.no_grad()
def _moments(x_NC: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance over all processes' parts, and how many values there are of each channel.

    Variances within the parts and between their means add up (Chan, Golub, LeVeque 1979), which rounds less than
    E[x²] - E[x]².
    """
    mean_C, var_C = torch.batch_norm_update_stats(x_NC, None, None, 0.0)
    mean_C, var_C = mean_C.float(), var_C.float()
    count = x_NC.numel() // x_NC.shape[1]
    if ranks.size == 1:
        return mean_C, var_C, float(count)
    own = x_NC.new_tensor([count], dtype=torch.float32)
    found = ranks.stacked(torch.cat([mean_C, var_C, own]))
    means_RC, vars_RC, counts_R1 = torch.split(found, [len(mean_C), len(var_C), 1], 1)
    weights_R1 = counts_R1 / counts_R1.sum()
    mean_C = (weights_R1 * means_RC).sum(0)
    var_C = (weights_R1 * (vars_RC + (means_RC - mean_C).square())).sum(0)
    return mean_C, var_C, float(counts_R1.sum())


@torch.no_grad()
def _follow(layer: Any, mean_C: Tensor, var_C: Tensor) -> None:
    """Running statistics, as PyTorch keeps them: an exponential mean."""
    momentum = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean_C.to(layer.running_mean), momentum)
    layer.running_var.lerp_(var_C.to(layer.running_var), momentum)


class _Normalise(torch.autograd.Function):
    """Normalisation by statistics of the whole batch, with the gradient that comes through them.

    dx = 1 / σ · (dy - mean(dy) - x̂ · mean(dy · x̂)), means over all processes (Ioffe & Szegedy 2015, section 3).
    """

    @staticmethod
    def forward(
        ctx: Any, x_NC: Tensor, mean_C: Tensor, var_C: Tensor, count: float, eps: float, ranks: Ranks
    ) -> Tensor:
        ctx.save_for_backward(x_NC, mean_C, torch.rsqrt(var_C + eps))
        ctx.count, ctx.ranks, ctx.eps = count, ranks, eps
        return F.batch_norm(x_NC, mean_C, var_C, None, None, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy_NC,) = gradients
        x_NC, mean_C, slope_C = ctx.saved_tensors
        # PyTorch's own backward, in one pass, is that of this part alone; its means then give way to those of all.
        dx_NC, own_xhat_C, own_sum_C = torch.ops.aten.native_batch_norm_backward(
            dy_NC, x_NC, None, None, None, mean_C, slope_C, True, ctx.eps, [True, True, True]
        )
        own = torch.stack([own_sum_C.float(), own_xhat_C.float()])
        mean_gap_C, xhat_gap_C = own * x_NC.shape[1] / x_NC.numel() - ctx.ranks.sum(own) / ctx.count
        rise_C = slope_C.square() * xhat_gap_C
        offset_C = slope_C * mean_gap_C - rise_C * mean_C
        per_channel = (1, -1) + (1,) * (x_NC.dim() - 2)
        dx_NC += torch.addcmul(offset_C.view(per_channel), x_NC.float(), rise_C.view(per_channel)).to(dx_NC.dtype)
        return dx_NC, None, None, None, None, None
