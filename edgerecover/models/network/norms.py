"""Layers that normalise by running statistics, as batch norm does in eval mode, whatever their class.

A layer with a `running_mean` and a `running_var` normalises by them if its output stays the same when its input and
both statistics are scaled and shifted together, and changes when the statistics alone change. Affine parameters and an
activation inside the layer do not matter. So PyTorch's batch norms, synchronised ones, instance norm with tracking,
frozen ones of torchvision, timm or Detectron2, and people's own are all treated alike; batch norm that stores nothing,
or never uses what it stores, is left out.
"""

# Shapes: N images, C channels.
# ruff: noqa: TID253, N815 - works on modules throughout, shapes are suffixes of fields too; imported with networks only

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

_STATISTICS = ("running_mean", "running_var")
_PREFIXES = ("running_", "moving_")
_USUAL_EPS = 1e-5
_SIDES: tuple[tuple[int, ...], ...] = ((3, 5), (), (3,), (3, 5, 7))
"""Spatial dimensions of the trial inputs: some layers accept only one of them."""
_TOLERANCE = 1e-2


def batch_norms_of(network: nn.Module) -> dict[str, nn.Module]:
    """All layers that normalise by running statistics in eval mode, by name."""
    return {name: module for name, module in network.named_modules() if _normalises_by_statistics(module)}


def unused_statistics_of(network: nn.Module) -> tuple[str, ...]:
    """Names of modules that hold running statistics but use them in an unknown way."""
    used = batch_norms_of(network)
    return tuple(
        name
        for name, module in network.named_modules()
        if name not in used
        and any(
            key.startswith(_PREFIXES) and tensor.is_floating_point()
            for key, tensor in module.named_buffers(recurse=False)
        )
    )


def stored_by(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Running mean and variance, each (C,), of a layer of `batch_norms_of`; writing to them changes the layer."""
    mean, var = (_own(layer)[name] for name in _STATISTICS)
    return mean.detach().view(-1), var.detach().view(-1)


def eps_of(layer: nn.Module) -> float:
    """ε, which the layer adds to the variance before it takes the square root."""
    return float(getattr(layer, "eps", getattr(layer, "epsilon", _USUAL_EPS)))


def adapts(layer: nn.Module) -> bool:
    """Whether a layer in training mode normalises by the batch and updates its running statistics.

    PyTorch's batch norm and derived classes do, unless frozen. Instance norm with tracking does not: it normalises by
    each image. What others do in training mode is not known; they stay in eval mode.
    """
    if not isinstance(layer, _BatchNorm) or not layer.track_running_stats:
        return False
    if layer not in _adapting:
        _adapting[layer] = isinstance(layer, nn.SyncBatchNorm) or any(
            _Trial(layer, sides).normalises_by_batch() for sides in _SIDES
        )
    return _adapting[layer]


def overwrites(layer: nn.Module) -> bool:
    """Whether a layer of `batch_norms_of` works in place, so that its forward in eval mode overwrites its input."""
    if layer not in _overwriting:
        _overwriting[layer] = any(_Trial(layer, sides).overwrites() for sides in _SIDES)
    return _overwriting[layer]


@contextmanager
def normalising(layer: nn.Module, by: Callable[[Tensor], Normalisation | None]) -> Iterator[None]:
    """Let a layer of `batch_norms_of` normalise by other statistics than its own inside the block.

    Everything else in its forward stays the same. Between and after forwards it has its own statistics.

    Args:
        layer: in any mode.
        by: gives the statistics for the input of a forward; None leaves that forward unchanged.
    """
    own = {name: _own(layer)[name] for name in _STATISTICS}
    modes: list[bool] = []

    def before(_layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        x_NC = first_tensor(inputs, named)
        found = None if x_NC is None else by(x_NC)
        if found is None:
            return None
        modes.append(layer.training)
        layer.training = False
        for name, values_C in zip(_STATISTICS, (found.mean_C, found.var_C), strict=True):
            _put(layer, name, values_C.to(own[name]).view(own[name].shape))
        if found.input_NC is x_NC:
            return None
        replaced = {id(x_NC): found.input_NC}
        return (
            tuple(replaced.get(id(value), value) for value in inputs),
            {key: replaced.get(id(value), value) for key, value in named.items()},
        )

    def after(*_: object) -> None:
        if modes:
            layer.training = modes.pop()
            for name, tensor in own.items():
                _put(layer, name, tensor)

    handles = (
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(after, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        after()


@dataclass(frozen=True)
class Normalisation:
    """The input of one forward of a layer, and the statistics by which it normalises."""

    input_NC: Tensor
    mean_C: Tensor
    var_C: Tensor


def first_tensor(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor | None:
    """The first tensor that a module is called with, by position or by keyword."""
    return next((value for value in (*inputs, *named.values()) if isinstance(value, Tensor)), None)


# --- what a layer is seen to do ------------------------------------------------------------------------------


_normalising: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_adapting: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_overwriting: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _normalises_by_statistics(layer: nn.Module) -> bool:
    own = _own(layer)
    if not all(name in own and _is_vector(own[name]) for name in _STATISTICS):
        return False
    if layer not in _normalising:
        _normalising[layer] = any(_Trial(layer, sides).normalises_by_statistics() for sides in _SIDES)
    return _normalising[layer]


def _own(layer: nn.Module) -> dict[str, Tensor]:
    """Buffers, or parameters that hold statistics; not those that a property passes on from a child."""
    return {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}


def _put(layer: nn.Module, name: str, tensor: Tensor) -> None:
    # Replace the tensor instead of writing into it: the backward of an earlier forward still needs it.
    (layer._buffers if name in layer._buffers else layer._parameters)[name] = tensor  # type: ignore[assignment]


def _is_vector(tensor: Tensor) -> bool:
    return not is_lazy(tensor) and tensor.is_floating_point() and 0 < tensor.numel() == max(tensor.shape, default=0)


class _Trial:
    """Try one layer on a random input and on the same one scaled and shifted by channel; the layer does not change."""

    def __init__(self, layer: nn.Module, sides: tuple[int, ...]) -> None:
        self._layer = layer
        own = _own(layer)
        self._shape, size = own["running_mean"].shape, own["running_mean"].numel()
        random = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> Tensor:
            return _held(0.5 + torch.rand(shape, generator=random), own["running_mean"])

        across = (1, -1, *(1 for _ in sides))
        self._x_NC = 4 * drawn(2, size, *sides) - 4
        self._mean_C, self._var_C, self._scale_C, self._shift_C = (drawn(size) for _ in range(4))
        self._scaled_NC = self._scale_C.view(across) * self._x_NC + self._shift_C.view(across)
        # Copies of all that a forward may change; channels that pruning has switched off are switched on.
        self._others = {
            name: _held(torch.zeros(tensor.shape) if tensor.is_meta else tensor.detach().clone(), tensor)
            for name, tensor in own.items()
            if name not in _STATISTICS
        }
        if "weight" in self._others:
            self._others["weight"].fill_(1)

    def normalises_by_statistics(self) -> bool:
        eps, scale_C = eps_of(self._layer), self._scale_C
        scaled_var_C = scale_C.square() * (self._var_C + eps) - eps
        plain = self._run(self._x_NC, self._mean_C, self._var_C)
        return (
            _alike(plain, self._run(self._scaled_NC, scale_C * self._mean_C + self._shift_C, scaled_var_C))
            and not _alike(plain, self._run(self._x_NC, self._mean_C + 1, self._var_C))
            and not _alike(plain, self._run(self._x_NC, self._mean_C, 4 * self._var_C))
        )

    def normalises_by_batch(self) -> bool:
        """Whether the layer normalises by the batch in training mode."""
        plain = self._run(self._x_NC, self._mean_C, self._var_C, training=True)
        return _alike(plain, self._run(self._scaled_NC, self._mean_C + 1, self._var_C, training=True))

    def overwrites(self) -> bool:
        x_NC = self._x_NC.clone()
        self._run(x_NC, self._mean_C, self._var_C, keep_input=False)
        return not torch.equal(x_NC, self._x_NC)

    @torch.no_grad()
    def _run(
        self, x_NC: Tensor, mean_C: Tensor, var_C: Tensor, *, training: bool = False, keep_input: bool = True
    ) -> Tensor | None:
        x_NC = x_NC.clone() if keep_input else x_NC
        mode = self._layer.training
        statistics = {"running_mean": mean_C.view(self._shape), "running_var": var_C.view(self._shape)}
        self._layer.training = training
        try:
            output = functional_call(self._layer, {**self._others, **statistics}, (x_NC,))
        except Exception:  # anyone's code, on an input that it may not be made for: then the layer counts as unknown
            return None
        finally:
            self._layer.training = mode
        return output if isinstance(output, Tensor) else None


def _held(values: Tensor, like: Tensor) -> Tensor:
    """A tensor with the type and device of the layer's own; layers without storage are tried on the CPU."""
    return values.to("cpu" if like.is_meta else like.device, like.dtype)


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return (
        one is not None
        and other is not None
        and one.shape == other.shape
        and torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)
    )
