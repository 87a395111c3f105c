"""Pruning a dense network by magnitude: single weights, two of every four, or whole channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.uses import uses_of
from edgerecover.pruning.channels import WIDTH_MULTIPLE, multiple_for, prune_channels, ragged_layers
from edgerecover.pruning.magnitude import apply_masks, global_magnitude_masks, layerwise_magnitude_masks
from edgerecover.pruning.two_four import two_four_masks

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "WIDTH_MULTIPLE",
    "Pruned",
    "Pruning",
    "PruningPattern",
    "apply_masks",
    "global_magnitude_masks",
    "layerwise_magnitude_masks",
    "multiple_for",
    "prune",
    "prune_channels",
    "pruning_from_flags",
    "two_four_masks",
]

_MAX_NAMED = 3

PruningPattern = Literal["unstructured", "layerwise", "2:4", "channel"]


@dataclass(frozen=True)
class Pruning:
    """What to prune, and how much; see `prune`."""

    pattern: PruningPattern
    sparsity: float
    """Fraction of weights that become zero; for channels, fraction of MACs to remove; 0.5 for 2:4."""


@dataclass(frozen=True)
class Pruned:
    """A pruned network."""

    network: nn.Module
    masks: dict[str, Tensor]
    """bool, by weight key, True where kept; empty for channels, which leave no zeros."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as which layers cannot be 2:4."""


def pruning_from_flags(pattern: PruningPattern | None, sparsity: float | None) -> Pruning | None:
    """The flags --pattern and --sparsity as one value; None if neither was given.

    Raises:
        BadInputError: the fraction is missing, out of range, or does not fit the pattern.
    """
    if pattern is None and sparsity is None:
        return None
    if pattern == "2:4":
        if sparsity not in (None, 0.5):
            raise BadInputError(f"--sparsity {sparsity:g} does not fit 2:4, which is always half", hint="leave it out")
        return Pruning("2:4", 0.5)
    if sparsity is None:
        raise BadInputError(f"--pattern {pattern} needs --sparsity", hint="for example --sparsity 0.75")
    if not 0 < sparsity < 1:
        raise BadInputError(f"--sparsity {sparsity:g} is not between 0 and 1", hint="0.75 prunes three weights of four")
    return Pruning(pattern or "unstructured", sparsity)


def prune(
    network: nn.Module, pruning: Pruning, input: InputSpec | None, channel_multiple: int = WIDTH_MULTIPLE
) -> Pruned:
    """Prune a dense network by magnitude; nothing is trained.

    Args:
        network: on the CPU, in eval mode; becomes part of the result, its zeros set in place.
        pruning: pattern and fraction.
        input: the network's input; only channels need it, to find coupled layers and count MACs.
        channel_multiple: for channels, the multiple that layer widths should be.

    Raises:
        BadInputError: the network cannot be pruned in this pattern, or computes its weights in a way that loses the
            zeros; the message says why.
        MissingError: --pattern channel without Torch-Pruning.
    """
    if pruning.pattern == "channel":
        if input is None:
            raise BadInputError(
                "--pattern channel needs the shape of the input", hint="for example --input-shape 3,224,224"
            )
        narrower = prune_channels(network, input, pruning.sparsity, multiple=channel_multiple)
        ragged = ragged_layers(network, narrower, channel_multiple)
        return Pruned(narrower, {}, (_ragged_note(ragged, channel_multiple),) if ragged else ())
    notes: tuple[str, ...] = ()
    if pruning.pattern == "2:4":
        masks, left_dense = two_four_masks(network)
        if left_dense:
            notes = (f"2:4: {', '.join(left_dense)} left dense: their input channels are not a multiple of four",)
    elif pruning.pattern == "layerwise":
        masks = layerwise_magnitude_masks(network, pruning.sparsity)
    else:
        masks = global_magnitude_masks(network, pruning.sparsity)
    apply_masks(network, masks)
    if input is not None:
        _check_zeros_are_used(network, masks, input)
    return Pruned(network, masks, notes)


def _ragged_note(ragged: Mapping[str, int], multiple: int) -> str:
    named = ", ".join(f"{name} ({width})" for name, width in list(ragged.items())[:_MAX_NAMED])
    more = f" and {len(ragged) - _MAX_NAMED} more" if len(ragged) > _MAX_NAMED else ""
    return f"channels: {named}{more} are not a multiple of {multiple}, to reach the requested MACs: they may be slow"


def _check_zeros_are_used(network: nn.Module, masks: Mapping[str, Tensor], input: InputSpec) -> None:
    lost = [name for name, use in uses_of(network, masks, input.shape).items() if use.num_lost]
    if lost:
        more = f" and {len(lost) - _MAX_NAMED} more" if len(lost) > _MAX_NAMED else ""
        raise BadInputError(
            f"{', '.join(lost[:_MAX_NAMED])}{more} cannot be pruned: the forward multiplies by weights that it "
            f"computes from {'it' if len(lost) == 1 else 'them'}, and those do not keep the zeros",
            hint="store the weights that are multiplied by (torch.nn.utils.parametrize.remove_parametrizations does "
            "it), or, with weight_norm, ask for less: none of its rows may lose all weights",
        )
