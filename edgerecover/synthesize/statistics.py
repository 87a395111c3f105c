"""What is known of a teacher's activations on real data, and how far a batch of images is from it.

A synthesizer matches statistics of a teacher's layers. Where they come from makes no difference to it: batch norm
layers carry their own, an activation record is shipped beside the model, and a prior is true of all natural images.
"""

# Shapes: N images in a batch, C channels, K classes.
# ruff: noqa: TID253, N815 - works on tensors throughout, shapes are suffixes of fields too; only stages import it

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from edgerecover.models.norms import batch_norms_of, eps_of, first_tensor, overwrites, stored_by


@dataclass(frozen=True)
class Place:
    """Where in a network activations are read."""

    layer: str
    side: Literal["input", "output"] = "output"


Seen = Mapping[Place, Sequence[Tensor]]
"""Activations of one forward, by place: of each call of that layer, in their order. Layers not called are not there."""

Distance = Callable[[Seen], Tensor]
"""From the activations of one forward to a scalar with a gradient."""


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

    def __init__(self, terms: Sequence[Weighted], seen: dict[Place, list[Tensor]]) -> None:
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
def watched(network: nn.Module, places: Sequence[Place]) -> Iterator[dict[Place, list[Tensor]]]:
    """`Seen` of the last forward inside the block, whatever number of times that called a layer."""
    seen: dict[Place, list[Tensor]] = {}
    handles = [network.register_forward_pre_hook(lambda *_: seen.clear())]
    handles += [_watch(network.get_submodule(place.layer), place, seen) for place in places]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watch(layer: nn.Module, place: Place, seen: dict[Place, list[Tensor]]) -> Any:
    def keep(activation: Any) -> None:
        if isinstance(activation, Tensor):
            seen.setdefault(place, []).append(activation)

    is_overwritten = place.side == "input" and "" in batch_norms_of(layer) and overwrites(layer)

    def before(_layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        entering = first_tensor(inputs, named)
        keep(entering.clone() if entering is not None and is_overwritten else entering)

    def after(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    if place.side == "input":
        return layer.register_forward_pre_hook(before, with_kwargs=True)
    return layer.register_forward_hook(after)


# --- batch norm -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Mean and biased variance per channel, float32 (C,), of `count` values of each."""

    count: float
    mean_C: Tensor
    var_C: Tensor

    def __add__(self, other: Moments) -> Moments:
        """Of all values together (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        share, gap_C = other.count / count, other.mean_C - self.mean_C
        var_C = (1 - share) * self.var_C + share * other.var_C + share * (1 - share) * gap_C.square()
        return Moments(count, self.mean_C + share * gap_C, var_C)


def moments_of(layer: nn.Module, x_NC: Tensor) -> Moments:
    """What one of `batch_norms_of` would store of an input (N, C, …); it has a gradient.

    Instance norm stores the mean of the variances within each image, all others the variance over the batch.
    """
    count = x_NC.numel() / x_NC.shape[1]
    if isinstance(layer, _InstanceNorm) and x_NC.dim() > 2:
        images, channels = x_NC.shape[:2]
        each = batch_statistics(x_NC.reshape(1, images * channels, *x_NC.shape[2:]))
        mean_C, var_C = (values.view(images, channels).mean(0) for values in each)
        return Moments(count, mean_C, var_C)
    return Moments(count, *batch_statistics(x_NC))


class BatchNormStatistics:
    """Mean and variance per channel at every BN layer's input, as the layers stored them in training.

    R_feature of DeepInversion (Yin et al. 2020, arXiv 1912.08795, equation 4): the sum over layers of
    ‖μ - μ̂‖₂ + ‖σ² - σ̂²‖₂, or with `relative` each norm divided by that of the stored σ̂, or σ̂².
    """

    is_positional = False

    def __init__(self, teacher: nn.Module, distance: Literal["relative", "l2"]) -> None:
        self._layers = {
            Place(name, "input"): _Stored(layer, distance) for name, layer in batch_norms_of(teacher).items()
        }

    @property
    def places(self) -> tuple[Place, ...]:
        """The BN layers' inputs."""
        return tuple(self._layers)

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> Distance:
        """The same for every batch."""
        return self._distance

    def _distance(self, seen: Seen) -> Tensor:
        # Inference does not reach every layer: auxiliary heads.
        terms = [stored.distance(seen[place]) for place, stored in self._layers.items() if place in seen]
        return torch.stack(terms).sum() if terms else torch.zeros(())


class _Stored:
    """Mean and variance that a layer stores, and the units that gaps in them are counted in."""

    def __init__(self, layer: nn.Module, distance: str) -> None:
        self._layer = layer
        self._mean_C, self._var_C = stored_by(layer)
        var_C = self._var_C + eps_of(layer)
        is_l2 = distance == "l2"
        self._mean_unit, self._var_unit = (1.0, 1.0) if is_l2 else (float(var_C.sum().sqrt()), float(var_C.norm()))

    def distance(self, calls: Sequence[Tensor]) -> Tensor:
        """Of the moments of all calls together: what running statistics have seen of each batch in training."""
        first, *others = (moments_of(self._layer, x_NC) for x_NC in calls)
        found = sum(others, first)
        mean_gap, var_gap = (found.mean_C - self._mean_C).norm(), (found.var_C - self._var_C).norm()
        distance: Tensor = mean_gap / self._mean_unit + var_gap / self._var_unit
        return distance


class PixelStatistics:
    """Mean and variance per channel of the network's own input: 0 and 1, where mean and std of its preprocessing are
    those of the images that it was trained on. Compared as `BatchNormStatistics` with `relative` compares a layer's.
    """

    is_positional = False
    places = (Place("", "input"),)

    def draw(self, num_images: int, targets_N: Tensor | None, generator: torch.Generator) -> Distance:
        """The same for every batch."""
        return self._distance

    def _distance(self, seen: Seen) -> Tensor:
        mean_C, var_C = batch_statistics(seen[self.places[0]][0])
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
