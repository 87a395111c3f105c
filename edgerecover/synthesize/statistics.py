"""What is known of a teacher's activations on real data, and how far a batch of images is from it.

A synthesizer matches statistics of a teacher's layers. Where they come from makes no difference to it: batch norm
layers carry their own, an activation record is shipped beside the model, and a prior is true of all natural images.
"""

# Shapes: N images in a batch, C channels, K classes.
# ruff: noqa: TID253 - works on tensors throughout; only stages import it, never the CLI's help

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Place:
    """Where in a network activations are read."""

    layer: str
    side: Literal["input", "output"] = "output"


Distance = Callable[[Mapping[Place, Tensor]], Tensor]
"""From the activations of one forward, by place, to a scalar with a gradient."""


class Statistics(Protocol):
    """One source of knowledge about activations."""

    @property
    def places(self) -> tuple[Place, ...]:
        """What `Distance` needs to see."""

    @property
    def is_positional(self) -> bool:
        """Whether it says where in the image something is, so that images must not be shifted or mirrored."""

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> Distance:
        """Settle what the next batch of images is to show.

        Args:
            num_images: N.
            targets_N: class of each image, where it has one.
            generator: all randomness; a CPU generator.
        """


@dataclass(frozen=True)
class Weighted:
    """A term of the synthesis loss."""

    weight: float
    statistics: Statistics


class Tap:
    """A teacher whose activations are watched, and how far those of its last forward are from what is known.

    The graph of that forward is kept until `clear()`.
    """

    def __init__(self, terms: Sequence[Weighted], seen: dict[Place, Tensor]) -> None:
        self._terms, self._seen = terms, seen
        self._distances: list[tuple[float, Distance]] = []

    @property
    def is_positional(self) -> bool:
        """Whether images must stay where they are."""
        return any(term.statistics.is_positional for term in self._terms)

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> None:
        """Settle what the next batch is to show; see `Statistics.draw`."""
        self._distances = [
            (term.weight, term.statistics.draw(num_images, targets_N, generator)) for term in self._terms
        ]

    def distance(self) -> Tensor | float:
        """Weighted sum over all that is known, for the last forward; 0 where nothing is known."""
        return sum((weight * distance(self._seen) for weight, distance in self._distances), start=0.0)

    def clear(self) -> None:
        """Forget the last forward."""
        self._seen.clear()


@contextmanager
def tapped(teacher: nn.Module, terms: Sequence[Weighted]) -> Iterator[Tap]:
    """The teacher with the places of all terms watched; hooks are off again afterwards, whatever happens."""
    places = dict.fromkeys(place for term in terms for place in term.statistics.places)
    with watched(teacher, tuple(places)) as seen:
        yield Tap(terms, seen)


@contextmanager
def watched(network: nn.Module, places: Sequence[Place]) -> Iterator[dict[Place, Tensor]]:
    """Activations of every forward inside the block, by place; each forward overwrites the last."""
    seen: dict[Place, Tensor] = {}
    handles = [_watch(network.get_submodule(place.layer), place, seen) for place in places]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watch(layer: nn.Module, place: Place, seen: dict[Place, Tensor]) -> Any:
    def before(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[place] = inputs[0]

    def after(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Any) -> None:
        seen[place] = output[0] if isinstance(output, tuple) else output

    return layer.register_forward_pre_hook(before) if place.side == "input" else layer.register_forward_hook(after)


# --- batch norm -----------------------------------------------------------------------------------------------


def batch_norms_of(network: nn.Module) -> dict[str, _BatchNorm]:
    """All BN layers that hold running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


class BatchNormStatistics:
    """Mean and variance per channel at every BN layer's input, as the layers stored them in training.

    R_feature of DeepInversion (Yin et al. 2020, arXiv 1912.08795, equation 4): the sum over layers of
    ‖μ - μ̂‖₂ + ‖σ² - σ̂²‖₂, or with `relative` each norm divided by that of the stored σ̂, or σ̂².
    """

    is_positional = False

    def __init__(self, teacher: nn.Module, distance: Literal["relative", "l2"]) -> None:
        self._layers = [
            (Place(name, "input"), *_stored(layer, distance)) for name, layer in batch_norms_of(teacher).items()
        ]

    @property
    def places(self) -> tuple[Place, ...]:
        """The BN layers' inputs."""
        return tuple(place for place, *_ in self._layers)

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> Distance:
        """The same for every batch."""
        return self._distance

    def _distance(self, seen: Mapping[Place, Tensor]) -> Tensor:
        terms = []
        for place, stored_mean_C, stored_var_C, mean_unit, var_unit in self._layers:
            if place not in seen:
                continue  # inference does not reach every layer: auxiliary heads
            mean_C, var_C = batch_statistics(seen[place])
            mean_gap, var_gap = (mean_C - stored_mean_C).norm(), (var_C - stored_var_C).norm()
            terms.append(mean_gap / mean_unit + var_gap / var_unit)
        return torch.stack(terms).sum() if terms else torch.zeros(())


def _stored(layer: _BatchNorm, distance: str) -> tuple[Tensor, Tensor, float, float]:
    """Mean, variance, and the units that gaps in them are counted in."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    if distance == "l2":
        return layer.running_mean, layer.running_var, 1.0, 1.0
    var_C = layer.running_var + layer.eps
    return layer.running_mean, layer.running_var, float(var_C.sum().sqrt()), float(var_C.norm())


class PixelStatistics:
    """Mean and variance per channel of the network's own input: 0 and 1, where mean and std of its preprocessing are
    those of the images that it was trained on. Compared as `BatchNormStatistics` with `relative` compares a layer's.
    """

    is_positional = False
    places = (Place("", "input"),)

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> Distance:
        """The same for every batch."""
        return self._distance

    def _distance(self, seen: Mapping[Place, Tensor]) -> Tensor:
        mean_C, var_C = batch_statistics(seen[self.places[0]])
        gap: Tensor = mean_C.norm() + (var_C - 1).norm()
        return gap / math.sqrt(len(mean_C))


class _BatchStatistics(torch.autograd.Function):
    """Mean and variance with a backward of one pass over the activation.

    Autograd's own backward of `mean` and `square().mean` makes four; on a CPU that was a third of a whole step.
    """

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        dims = [0, *range(2, x_NC.dim())]
        mean_C = x_NC.mean(dims)
        # Clamped because rounding can make E[x²] - E[x]² negative.
        var_C = (x_NC.square().mean(dims) - mean_C.square()).clamp_min(0)
        ctx.save_for_backward(x_NC, mean_C)
        return mean_C, var_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        grad_mean_C, grad_var_C = gradients
        x_NC, mean_C = ctx.saved_tensors
        count = x_NC.numel() // x_NC.shape[1]
        slope_C = 2 * grad_var_C / count
        offset_C = grad_mean_C / count - slope_C * mean_C
        per_channel = (1, -1) + (1,) * (x_NC.dim() - 2)
        return torch.addcmul(offset_C.view(per_channel), x_NC, slope_C.view(per_channel))


def batch_statistics(x_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel (dimension 1) over everything else, in float32."""
    mean_C, var_C = _BatchStatistics.apply(x_NC.float())
    return mean_C, var_C
