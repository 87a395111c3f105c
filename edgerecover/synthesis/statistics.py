"""What is known of a teacher's activations on real data, and how far a batch of images is from it.

Synthesis matches statistics of a teacher's layers, wherever they come from: batch norm layers store their own, an
activation record is shipped beside the model, and a prior holds for all natural images.
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

from edgerecover.models.network.norms import batch_norms_of, eps_of, first_tensor, overwrites, stored_by


@dataclass(frozen=True)
class Place:
    """A place in a network where activations are read."""

    layer: str
    side: Literal["input", "output"] = "output"


Seen = Mapping[Place, Sequence[Tensor]]
"""Activations of one forward, by place: one per call of the layer, in order. Layers that were not called are absent."""

Distance = Callable[[Seen], Tensor]
"""From the activations of one forward to a scalar with a gradient."""


class Statistics(Protocol):
    """One source of knowledge about activations."""

    @property
    def places(self) -> tuple[Place, ...]:
        """The places whose activations a `Distance` needs."""

    @property
    def is_positional(self) -> bool:
        """Whether it depends on positions in the image, so that images must not be shifted or mirrored."""

    def draw(self, sizes: Sequence[int], targets_N: Tensor | None, generator: torch.Generator) -> Sequence[Distance]:
        """Decide what the next batch of images should show.

        Args:
            sizes: numbers of images of the pieces that the batch goes through the network in; they sum to N.
            targets_N: class of each image, where it has one.
            generator: all randomness; a CPU generator.

        Returns:
            A distance for each piece, to be called on them in turn.
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
        self._distances: list[tuple[float, Sequence[Distance]]] = []

    @property
    def is_positional(self) -> bool:
        """Whether any term depends on positions, so that images must not be shifted or mirrored."""
        return any(term.statistics.is_positional for term in self._terms)

    def draw(self, sizes: Sequence[int], targets_N: Tensor | None, generator: torch.Generator) -> None:
        """Decide what the next batch should show; see `Statistics.draw`."""
        self._distances = [(term.weight, term.statistics.draw(sizes, targets_N, generator)) for term in self._terms]

    def distance(self, piece: int = 0) -> Tensor | float:
        """Weighted sum of all terms for the last forward, which was of this piece; 0 where there are none."""
        return sum((weight * of_pieces[piece](self._seen) for weight, of_pieces in self._distances), start=0.0)

    def clear(self) -> None:
        """Forget the last forward."""
        self._seen.clear()


@contextmanager
def open_tap(teacher: nn.Module, terms: Sequence[Weighted]) -> Iterator[Tap]:
    """Watch the places of all terms inside the block; the hooks are removed afterwards, also after an error."""
    places = dict.fromkeys(place for term in terms for place in term.statistics.places)
    with watch_places(teacher, tuple(places)) as seen:
        yield Tap(terms, seen)


@contextmanager
def watch_places(network: nn.Module, places: Sequence[Place]) -> Iterator[dict[Place, list[Tensor]]]:
    """`Seen` of the last forward inside the block, however often that calls a layer."""
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
        """The moments of all values together (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        share, gap_C = other.count / count, other.mean_C - self.mean_C
        var_C = (1 - share) * self.var_C + share * other.var_C + share * (1 - share) * gap_C.square()
        return Moments(count, self.mean_C + share * gap_C, var_C)


def moments_of(layer: nn.Module, x_NC: Tensor) -> Moments:
    """The moments that a layer of `batch_norms_of` would store for an input (N, C, …), with a gradient.

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
    ‖μ - μ̂‖₂ + ‖σ² - σ̂²‖₂; or with `relative` each norm divided by that of the stored σ̂, or σ̂², and the mean over
    layers, which weighs the same beside a class term at 5 layers and at 150.
    """

    is_positional = False

    def __init__(self, teacher: nn.Module, distance: Literal["relative", "l2"]) -> None:
        self._layers = {
            Place(name, "input"): _Stored(layer, distance) for name, layer in batch_norms_of(teacher).items()
        }
        self._is_mean = distance == "relative"

    @property
    def places(self) -> tuple[Place, ...]:
        """The BN layers' inputs."""
        return tuple(self._layers)

    def draw(self, sizes: Sequence[int], targets_N: Tensor | None, generator: torch.Generator) -> Sequence[Distance]:
        """A distance of the whole batch for each piece, however it is split: see `_OfPiece`."""
        latest: list[dict[Place, Moments]] = [{} for _ in sizes]
        return [_OfPiece(self._layers, self._is_mean, latest, number) for number in range(len(sizes))]


@dataclass(frozen=True)
class _OfPiece:
    """Distance of a batch's moments, of which one piece has just been seen, and the others at their last forward.

    So a few images at a time are judged by what the whole batch should show: alone, each few would have to look like
    all images there are. The others are less than a step old. The gradient is the piece's share of the batch's, scaled
    as if the piece were the whole batch, like a mean over its images.
    """

    layers: Mapping[Place, _Stored]
    is_mean: bool
    latest: list[dict[Place, Moments]]
    """The moments of each piece at its last forward, without gradients."""
    number: int

    def __call__(self, seen: Seen) -> Tensor:
        # Inference does not reach every layer: auxiliary heads.
        terms = [self._gap(place, stored, seen[place]) for place, stored in self.layers.items() if place in seen]
        if not terms:
            return torch.zeros(())
        distances = torch.stack(terms)
        return distances.mean() if self.is_mean else distances.sum()

    def _gap(self, place: Place, stored: _Stored, calls: Sequence[Tensor]) -> Tensor:
        own = stored.moments(calls)
        others = [of_piece[place] for of_piece in self.latest if of_piece is not self._own and place in of_piece]
        self._own[place] = Moments(own.count, own.mean_C.detach(), own.var_C.detach())
        found = sum(others, own)
        gap = stored.distance(found)
        return gap + (found.count / own.count - 1) * (gap - gap.detach()) if others else gap

    @property
    def _own(self) -> dict[Place, Moments]:
        return self.latest[self.number]


class _Stored:
    """Mean and variance that a layer stores, and the units that gaps in them are counted in."""

    def __init__(self, layer: nn.Module, distance: str) -> None:
        self._layer = layer
        self._mean_C, self._var_C = stored_by(layer)
        var_C = self._var_C + eps_of(layer)
        is_l2 = distance == "l2"
        self._mean_unit, self._var_unit = (1.0, 1.0) if is_l2 else (float(var_C.sum().sqrt()), float(var_C.norm()))

    def moments(self, calls: Sequence[Tensor]) -> Moments:
        """The moments of all calls together, which is what running statistics see of a batch in training."""
        first, *others = (moments_of(self._layer, x_NC) for x_NC in calls)
        return sum(others, first)

    def distance(self, found: Moments) -> Tensor:
        """Distance of found moments from the stored ones."""
        mean_gap, var_gap = (found.mean_C - self._mean_C).norm(), (found.var_C - self._var_C).norm()
        distance: Tensor = mean_gap / self._mean_unit + var_gap / self._var_unit
        return distance


class PixelStatistics:
    """Mean and variance per channel of the network's own input: 0 and 1, where mean and std of its preprocessing are
    those of the images that it was trained on. Compared as `BatchNormStatistics` with `relative` compares a layer's.
    """

    is_positional = False
    places = (Place("", "input"),)

    def draw(self, sizes: Sequence[int], targets_N: Tensor | None, generator: torch.Generator) -> Sequence[Distance]:
        """The distance, which is the same for every piece."""
        return [self._distance] * len(sizes)

    def _distance(self, seen: Seen) -> Tensor:
        mean_C, var_C = batch_statistics(seen[self.places[0]][0])
        gap: Tensor = mean_C.norm() + (var_C - 1).norm()
        return gap / math.sqrt(len(mean_C))


class _BatchStatistics(torch.autograd.Function):
    """Mean and variance with a backward of one pass over the activation, which stays in its own precision.

    Autograd's own backward of `mean` and `square().mean` makes four; on a CPU that was a third of a whole step, and a
    float32 copy of what is bf16 was half of the memory.
    """

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        mean_C, var_C = _measure(x_NC)
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
        offset, slope = (values_C.to(x_NC.dtype).view(per_channel) for values_C in (offset_C, slope_C))
        return torch.addcmul(offset, x_NC, slope)


def _measure(x_NC: Tensor) -> tuple[Tensor, Tensor]:
    if x_NC.device.type == "cpu" and (x_NC.dtype == torch.bfloat16 or not x_NC.is_contiguous()):
        # Batch norm's own kernel: a tenth of the time of sums there, and several times theirs on what is contiguous.
        # The running statistics that it wants say what precision the result has; with 0.0 it leaves them alone.
        like_C = torch.zeros(x_NC.shape[1], dtype=_float_of(x_NC))
        mean_C, var_C = torch.batch_norm_update_stats(x_NC, like_C, like_C.clone(), 0.0)
        return mean_C, var_C
    x_NC = x_NC.to(_float_of(x_NC))
    dims = [0, *range(2, x_NC.dim())]
    mean_C = x_NC.mean(dims)
    # Clamped because rounding can make E[x²] - E[x]² negative.
    return mean_C, (x_NC.square().mean(dims) - mean_C.square()).clamp_min(0)


def _float_of(x_NC: Tensor) -> torch.dtype:
    return torch.float64 if x_NC.dtype == torch.float64 else torch.float32


def batch_statistics(x_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel (dimension 1) over everything else, in float32 (of float64, in that)."""
    mean_C, var_C = _BatchStatistics.apply(x_NC)
    return mean_C, var_C
