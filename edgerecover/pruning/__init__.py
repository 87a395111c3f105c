"""Pruning a dense network by magnitude: single weights, two of every four, or whole channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgerecover.artifacts import ENGINE_RUNTIMES, InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.sparsity import prunable_weights
from edgerecover.models.network.uses import uses_of
from edgerecover.pruning.channels import WIDTH_MULTIPLE, multiple_for, prune_channels, ragged_layers
from edgerecover.pruning.magnitude import (
    apply_masks,
    block_magnitude_masks,
    global_magnitude_masks,
    layerwise_magnitude_masks,
)
from edgerecover.pruning.two_four import two_four_masks
from edgerecover.runtime.machine.mnn_module import MNN
from edgerecover.runtime.session.opening import RUNTIMES

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "WIDTH_MULTIPLE",
    "Pruned",
    "Pruning",
    "PruningPattern",
    "apply_masks",
    "block_magnitude_masks",
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
    """Fraction of weights that become zero; for channels, fraction of MACs to remove; 0.5 for 2:4. With `runtime`, of
    the weights of the layers where that runtime gains by zeros."""
    runtime: str | None = None
    """"mnn": put the zeros where MNN's kernels use them (`magnitude.block_magnitude_masks`); None: anywhere."""


@dataclass(frozen=True)
class Pruned:
    """A pruned network."""

    network: nn.Module
    masks: dict[str, Tensor]
    """bool, by weight key, True where kept; empty for channels, which leave no zeros."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as which layers cannot be 2:4."""


def pruning_from_flags(
    pattern: PruningPattern | None, sparsity: float | None, runtime: str | None = None
) -> Pruning | None:
    """The flags --pattern, --sparsity and --for as one value; None if none was given.

    Raises:
        BadInputError: the fraction is missing, out of range, or does not fit the pattern; or the runtime gains by no
            zeros, or not by those of the pattern.
    """
    if pattern is None and sparsity is None and runtime is None:
        return None
    if runtime is not None:
        _check_runtime(runtime, pattern)
    if pattern == "2:4":
        if sparsity not in (None, 0.5):
            raise BadInputError(f"--sparsity {sparsity:g} does not fit 2:4, which is always half", hint="leave it out")
        return Pruning("2:4", 0.5)
    if sparsity is None:
        raise BadInputError(f"--pattern {pattern} needs --sparsity", hint="for example --sparsity 0.75")
    if not 0 < sparsity < 1:
        raise BadInputError(f"--sparsity {sparsity:g} is not between 0 and 1", hint="0.75 prunes three weights of four")
    return Pruning(pattern or "unstructured", sparsity, runtime)


def _check_runtime(runtime: str, pattern: PruningPattern | None) -> None:
    if runtime in ENGINE_RUNTIMES:
        raise BadInputError(
            f"--for {runtime}: it gains by no zeros but 2:4 ones", hint="--pattern 2:4, or --pattern channel"
        )
    if runtime != MNN:
        known = f"--for {runtime}: " + ("it multiplies by zeros" if runtime in RUNTIMES else "unknown runtime")
        raise BadInputError(known, hint="--for mnn, whose kernels leave zeros out; or --pattern channel")
    if pattern not in (None, "unstructured", "layerwise"):
        raise BadInputError(
            f"--for {runtime} does not fit --pattern {pattern}", hint="leave out one, or --pattern layerwise"
        )


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
    elif pruning.runtime is not None:
        masks, left_dense = block_magnitude_masks(network, pruning.sparsity, layerwise=pruning.pattern == "layerwise")
        notes = (_block_note(network, masks, left_dense, pruning.runtime),)
    elif pruning.pattern == "layerwise":
        masks = layerwise_magnitude_masks(network, pruning.sparsity)
    else:
        masks = global_magnitude_masks(network, pruning.sparsity)
    apply_masks(network, masks)
    if input is not None:
        _check_zeros_are_used(network, masks, input)
    return Pruned(network, masks, notes)


def _block_note(network: nn.Module, masks: Mapping[str, Tensor], left_dense: Sequence[str], runtime: str) -> str:
    """How the share was counted, which is not over all weights."""
    weights = prunable_weights(network)
    pruned = {name: mask for name, mask in masks.items() if name not in left_dense}
    num_weights = sum(mask.numel() for mask in pruned.values())
    num_zeros = num_weights - sum(int(mask.count_nonzero()) for mask in pruned.values())
    share = num_weights / sum(weight.numel() for weight in weights.values())
    return (
        f"for {runtime}: {100 * num_zeros / num_weights:.1f} % of the weights of {len(pruned)} 1×1 and linear layers, "
        f"in blocks of four output channels; they hold {100 * share:.1f} % of all weights"
        + (f", and {len(left_dense)} other layers stay dense" if left_dense else "")
    )


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
