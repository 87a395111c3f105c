"""Batch norm over a batch that several processes share: what one process would compute on all of it.

PyTorch's own SyncBatchNorm refuses tensors on the CPU, where this is tested; the arithmetic is the same.
"""

# Shapes: N images, C channels, R processes.
# ruff: noqa: TID253 - a layer's forward and backward; only distillation imports it

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.models.norms import Normalisation, adapts, batch_norms_of, normalising
from edgerecover.ranks import Ranks


@contextmanager
def shared_norms(network: nn.Module, ranks: Ranks) -> Iterator[None]:
    """BN layers that are in training mode normalise by the whole batch, of which each process has a part.

    A layer is given an input that is normalised already, and statistics that leave it so: all else that its own forward
    does, it does. Gradients of weights and biases are those of this process's part; their sum over the processes is the
    batch's.
    """
    layers = [layer for layer in batch_norms_of(network).values() if adapts(layer)] if ranks.size > 1 else []
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(normalising(layer, partial(_by_all, layer, ranks)))
        yield


def _by_all(layer: Any, ranks: Ranks, x_NC: Tensor) -> Normalisation | None:
    if not layer.training:
        return None
    mean_C, var_C, count = _pooled(x_NC, ranks)
    _follow(layer, mean_C, var_C, count)
    normalised_NC = _Normalise.apply(x_NC, mean_C, var_C, count, layer.eps, ranks)
    return Normalisation(normalised_NC, torch.zeros_like(mean_C), torch.full_like(var_C, 1 - layer.eps))


@torch.no_grad()
def _pooled(x_NC: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance over all processes' parts, and how many values there are of each channel.

    Variances within the parts and between their means add up (Chan, Golub, LeVeque 1979), which rounds less than
    E[x²] - E[x]².
    """
    mean_C, var_C = torch.batch_norm_update_stats(x_NC, None, None, 0.0)
    mean_C, var_C = mean_C.float(), var_C.float()
    own = x_NC.new_tensor([x_NC.numel() // x_NC.shape[1]], dtype=torch.float32)
    found = ranks.stacked(torch.cat([mean_C, var_C, own]))
    means_RC, vars_RC, counts_R1 = torch.split(found, [len(mean_C), len(var_C), 1], 1)
    weights_R1 = counts_R1 / counts_R1.sum()
    mean_C = (weights_R1 * means_RC).sum(0)
    var_C = (weights_R1 * (vars_RC + (means_RC - mean_C).square())).sum(0)
    return mean_C, var_C, float(counts_R1.sum())


def _follow(layer: Any, mean_C: Tensor, var_C: Tensor, count: float) -> None:
    """Running statistics, as PyTorch keeps them: an exponential mean, of the unbiased variance."""
    momentum = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean_C.to(layer.running_mean), momentum)
    layer.running_var.lerp_((var_C * count / max(1.0, count - 1)).to(layer.running_var), momentum)


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
