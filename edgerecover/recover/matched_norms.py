"""Batch norm while distilling: to what the teacher makes of a batch, which several processes may share.

On dreams the teacher's layers see other means and variances than they have stored. A student that normalises a batch to
mean 0 and variance 1 sees another picture than the teacher, and learns to make up for the difference, which real images
do not have (docs/adr/0040). So each of its layers normalises the batch to the mean and variance that the teacher's
layer, normalising by what it has stored, gives that batch:

    x̂_s ← (x_s - mean_s) / √var_s · √(var_t / stored var_t) + (mean_t - stored mean_t) / √(stored var_t)

and its running statistics follow those that make this of the batch: the statistics of a repair, batch by batch.

PyTorch's own SyncBatchNorm refuses tensors on the CPU, where this is tested; the arithmetic is the same.
"""

# Shapes: N images, C channels, R processes.
# ruff: noqa: TID253, N815 - tensors throughout, shapes are suffixes of fields too; only distillation imports it

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.distributed import Ranks
from edgerecover.models.network.norms import Normalisation, adapts, batch_norms_of, first_tensor, normalising, stored_by
from edgerecover.models.pair.channels import SAME_CHANNELS, ChannelMap

_MAX_SPREAD = 2.0
"""Largest √(var_t / stored var_t), either way, as in a repair: channels nearly dead on dreams would explode."""


@dataclass(frozen=True)
class _Wanted:
    """Mean and standard deviation (C,) that a normalised batch should have."""

    mean_C: Tensor
    spread_C: Tensor


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
    """The student's BN layers that are in training mode give a batch the moments that the teacher's last forward did.

    A layer that the teacher does not have, or whose channels are not known, normalises to 0 and 1.

    Args:
        student: its layers are left in the mode they are in.
        teacher: in eval mode; has to be shown each batch before the student, both inside `Matching.batch`.
        ranks: that share every batch.
        channels: the teacher's channels that a narrower student has; unrelated ones leave the teacher out.
    """
    layers = {name: layer for name, layer in batch_norms_of(student).items() if adapts(layer)}
    found = batch_norms_of(teacher) if channels.related else {}
    teachers = {name: found[name] for name in layers if name in found and adapts(found[name])}
    wanted: dict[str, deque[_Wanted]] = {}
    matching = Matching()
    with ExitStack() as stack:
        if teachers:
            stack.callback(teacher.register_forward_pre_hook(lambda *_: wanted.clear()).remove)
        for name, layer in teachers.items():
            look = partial(_look, name, wanted, matching, channels, ranks)
            stack.callback(layer.register_forward_pre_hook(look, with_kwargs=True).remove)
        for name, layer in layers.items():
            if name in teachers or ranks.size > 1:
                stack.enter_context(normalising(layer, partial(_by_batch, layer, name, wanted, ranks)))
        yield matching


@torch.no_grad()
def _look(
    name: str,
    wanted: dict[str, deque[_Wanted]],
    matching: Matching,
    channels: ChannelMap,
    ranks: Ranks,
    layer: Any,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    """Before a forward of a teacher's layer, record the moments it will give the batch."""
    x_NC = first_tensor(inputs, named)
    if x_NC is None or not matching.is_on:
        return
    mean_C, var_C, _ = _moments(x_NC, ranks)
    stored_mean_C, stored_var_C = stored_by(layer)
    slope_C = (stored_var_C + layer.eps).rsqrt()
    spread_C = ((var_C + layer.eps).sqrt() * slope_C).clamp(1 / _MAX_SPREAD, _MAX_SPREAD)
    both_2C = torch.stack([(mean_C - stored_mean_C) * slope_C, spread_C])
    if (kept_2C := channels.of_teacher(name, both_2C, dim=1)) is not None:
        wanted.setdefault(name, deque()).append(_Wanted(*kept_2C))


def _by_batch(
    layer: Any, name: str, wanted: dict[str, deque[_Wanted]], ranks: Ranks, x_NC: Tensor
) -> Normalisation | None:
    if not layer.training:
        return None
    calls = wanted.get(name)
    to = calls.popleft() if calls else None
    if to is None and ranks.size == 1:
        return None
    if ranks.size == 1 and to is not None:
        # One kernel, forward and backward.
        x_NC, mean_C, slope_C = torch.native_batch_norm(x_NC, to.spread_C, to.mean_C, None, None, True, 0.0, layer.eps)
        mean_C, var_C = mean_C.detach().float(), slope_C.detach().float().pow(-2) - layer.eps
    else:
        mean_C, var_C, count = _moments(x_NC, ranks)
        x_NC = _Normalise.apply(x_NC, mean_C, var_C, count, layer.eps, ranks)
        if to is not None:
            per_channel = (1, -1) + (1,) * (x_NC.dim() - 2)
            x_NC = torch.addcmul(to.mean_C.view(per_channel), x_NC, to.spread_C.view(per_channel)).to(x_NC.dtype)
    if to is None:
        _follow(layer, mean_C, var_C * count / max(1.0, count - 1))
    else:
        own_var_C = (var_C + layer.eps) / to.spread_C.square()
        _follow(layer, mean_C - to.mean_C * own_var_C.sqrt(), (own_var_C - layer.eps).clamp_min(0))
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
    """Update the running statistics as PyTorch does, by an exponential mean."""
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
