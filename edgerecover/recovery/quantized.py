"""Quantisation-aware distillation: the student learns from its teacher while it computes in fake int8.

Used where plain quantisation costs too much. Weights are rounded per output channel and activations per tensor in
every forward, and gradients pass the rounding as if it were not there (Jacob et al. 2018, arXiv 1712.05877). Rounding
a weight per output channel commutes with the batch norm that the exporter folds into it, so nothing is folded here.
"""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - a training loop over tensors; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgerecover.artifacts.int8 import Int8Scheme
from edgerecover.config import Recovery
from edgerecover.models.build.architectures import load_state
from edgerecover.models.network.linear_calls import arguments_of, is_linear, is_transposed
from edgerecover.recovery.checkpoints import State
from edgerecover.recovery.distill import distill
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.image_set import ImageSet

MAX_STEPS = 300
RATE_FACTOR = 0.07
"""Factor on the recovery's learning rate: the student is nearly right already."""
_MOMENTUM = 0.1
"""Momentum of activation ranges, the same as for batch norm's statistics."""
_SMALLEST_RANGE = 1e-4

_SUMS: tuple[Any, ...] = (
    torch.add,
    Tensor.add,
    Tensor.add_,
    Tensor.__add__,
    Tensor.__radd__,
    Tensor.__iadd__,
)


@dataclass(frozen=True)
class DistilledForInt8:
    """What distillation in fake int8 led to."""

    student: nn.Module
    """On the CPU, in eval mode; its float weights are meant to be rounded."""
    num_steps: int
    """Steps that were asked for."""
    seconds: float
    """Duration, including what an interrupted run had done."""


def distil_for_int8(
    pair: Pair, images: ImageSet, settings: Recovery, scheme: Int8Scheme, execution: Execution, *, seed: int
) -> DistilledForInt8:
    """Distil a copy of the student under fake quantisation.

    Args:
        pair: a recovered student and its teacher; neither is changed. Pruned weights stay exactly zero.
        images: synthetic train set.
        settings: of the recovery; steps and learning rate are lowered.
        scheme: of int8.
        execution: of one process. Computes in float32, because bfloat16 has no more bits than the integers. Its
            checkpoints also keep the result.
        seed: of batch order and augmentation.
    """
    execution = replace(execution, compute=replace(execution.compute, amp_dtype=None))
    learners = pair.copy_to(execution.compute)
    # Frozen: batch statistics would move the student, which is nearly right, away from what its ranges are read for.
    changes = {"lr": settings.lr * RATE_FACTOR, "refresh": None, "bn": "frozen"}
    short = settings.model_copy(update={"num_steps": min(MAX_STEPS, settings.num_steps), **changes})
    finished = execution.checkpoints.of("learner")
    if done := finished.read():
        load_state(learners.student, done.tensors)
        seconds = float(done.facts["seconds"])
    else:
        with fake_int8(learners.student, scheme) as ranges:
            seconds = distill(
                learners, images, short, execution, seed=seed, carried={"ranges": ranges}, title="distil in int8"
            ).seconds
        finished.write(State(learners.student.state_dict(), {"seconds": seconds}))
        execution.checkpoints.of("distillation").discard()
    return DistilledForInt8(learners.student.cpu().eval().requires_grad_(False), short.num_steps, seconds)


@contextmanager
def fake_int8(network: nn.Module, scheme: Int8Scheme) -> Iterator[Ranges]:
    """Inside, every forward of `network` computes its layers (and sums, where the scheme does) on rounded numbers.

    Activation ranges follow the batches while gradients are recorded, and are fixed otherwise. Layers are identified by
    the order of their calls, which must be the same in every forward. Layers inside torch's own multi-head attention
    stay in float, because it hides them.
    """
    ranges = Ranges()
    modes: list[_FakeInt8] = []
    sums = scheme.outputs and not any(isinstance(m, (nn.LayerNorm, nn.MultiheadAttention)) for m in network.modules())

    def enter(_network: nn.Module, _inputs: object) -> None:
        modes.append(_FakeInt8(scheme, ranges, with_sums=sums))
        modes[-1].__enter__()  # type: ignore[no-untyped-call]  # of torch

    def leave(_network: nn.Module, _inputs: object, _output: object) -> None:
        modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]  # of torch

    handles = [
        network.register_forward_pre_hook(enter),
        network.register_forward_hook(leave, always_call=True),
    ]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


class Ranges(dict[int, Tensor]):
    """Lowest and highest value (2,) of each activation, by the index of its call."""

    def state(self) -> State:
        """A copy of the ranges."""
        return State({str(number): range_2.clone() for number, range_2 in self.items()})

    def restore(self, state: State) -> None:
        """Return to recorded ranges."""
        self.clear()
        self.update({int(number): range_2.clone() for number, range_2 in state.tensors.items()})


class _FakeInt8(TorchFunctionMode):
    """One forward: layers' weights and inputs rounded, on the way into the function that computes them."""

    def __init__(self, scheme: Int8Scheme, ranges: Ranges, *, with_sums: bool) -> None:
        super().__init__()
        self._scheme, self._ranges, self._with_sums = scheme, ranges, with_sums
        self._number = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_linear(func):
            given = arguments_of(func, args, kwargs)
            output_axis = 1 if is_transposed(func) else 0
            weight = rounded_weight(given["weight"], output_axis, self._scheme)
            return func(**{**given, "input": self._activation(given["input"]), "weight": weight})
        if self._with_sums and func in _SUMS and _are_feature_maps(args):
            if func in (Tensor.add_, Tensor.__iadd__):  # what is added to in place must not be a rounded copy
                return func(args[0], self._activation(args[1]), *args[2:], **kwargs)
            return func(self._activation(args[0]), self._activation(args[1]), *args[2:], **kwargs)
        return func(*args, **kwargs)

    def _activation(self, values: Tensor) -> Tensor:
        number, self._number = self._number, self._number + 1
        if torch.is_grad_enabled() or number not in self._ranges:
            self._follow(number, values.detach())
        low, high = self._ranges[number].to(values.device).unbind()
        symmetric, signed = self._scheme.symmetric_activations, self._scheme.signed_activations
        qmin, qmax = (-128, 127) if signed else (0, 255)
        if symmetric:
            scale = torch.maximum(-low, high) / 127
            zero = torch.zeros_like(scale)
        else:
            scale = (high - low) / 255
            zero = torch.round(qmin - low / scale)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero.to(torch.int32), qmin, qmax)

    def _follow(self, number: int, values: Tensor) -> None:
        low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
        now = torch.stack([low, torch.maximum(high, low + _SMALLEST_RANGE)]).float()
        before = self._ranges.get(number)
        if before is not None:
            before = before.to(now.device)  # from a checkpoint it comes on the CPU
            now = before + _MOMENTUM * (now - before)
        self._ranges[number] = now


def rounded_weight(weight: Tensor, axis: int, scheme: Int8Scheme) -> Tensor:
    """The weight as the exported integers represent it; a zero stays zero, and gradients pass."""
    levels = 64 if scheme.reduced_weights else 127
    others = [i for i in range(weight.dim()) if i != axis]
    largest_O = weight.detach().abs().amax(dim=others)
    scale_O = torch.where(largest_O > 0, largest_O, torch.ones_like(largest_O)) / levels
    zeros_O = torch.zeros_like(scale_O, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale_O, zeros_O, axis, -levels, levels)


def _are_feature_maps(args: tuple[Any, ...]) -> bool:
    """Two activations of one shape: a shortcut that joins, not a bias."""
    return (
        len(args) >= 2
        and all(isinstance(arg, Tensor) and not isinstance(arg, nn.Parameter) and arg.dim() == 4 for arg in args[:2])
        and args[0].shape == args[1].shape
        and args[0].is_floating_point()
    )
