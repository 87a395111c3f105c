"""Channel pruning by magnitude: layers become narrower, in shape and in work.

Coupled channels are found in Torch-Pruning's graph (`edgerecover.pruning.coupled`), and the result is verified: the
pruned network must compute what the dense one computes with the removed channels at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError, MissingError
from edgerecover.models.network.macs import count_macs, macs_by_weight
from edgerecover.models.network.sparsity import prunable_weights
from edgerecover.models.pair.channels import match_channels
from edgerecover.pruning.coupled import CannotFollowError, Cut, Group, cut, find_groups
from edgerecover.pruning.widths import Work, choose_widths

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerecover.config import Target

MACS_TOLERANCE = 0.03
"""How far the removed fraction of MACs may be from the requested one: only whole channels can go."""

ROUGH_TOLERANCE = 0.2
"""Tolerance for a network that only serves to measure latency."""

WIDTH_MULTIPLE = 8
"""Channels that kernels process at a time on most machines; a target may set another number."""

_HINT = "--pattern unstructured or 2:4 leaves the shapes as they are"


def prune_channels(
    network: nn.Module, input: InputSpec, macs_removed: float, *, multiple: int = WIDTH_MULTIPLE, roughly: bool = False
) -> nn.Module:
    """A copy of `network` without the weakest channels of each layer, by the L2 norm of their weights.

    All layers lose about the same fraction of their channels, and their widths are multiples of `multiple`; the
    classifier keeps its outputs. Layers that cannot lose channels without breaking the network (before a shortcut that
    pads with zeros, or a shuffle) keep their width.

    Args:
        network: on the CPU, in eval mode; not changed.
        input: the network's input.
        macs_removed: fraction of the multiply-accumulates to remove, between 0 and 1, met within MACS_TOLERANCE.
        multiple: a power of two that widths should be multiples of; if the layers are too few or too narrow to meet the
            MACs with it, half of it, and so on. See `ragged_layers`.
        roughly: be quick: ROUGH_TOLERANCE is near enough, and a network with layers that cannot lose channels is
            refused instead of searching for them.

    Raises:
        BadInputError: the fraction is out of range or cannot be reached, or no layer can lose channels.
        MissingError: Torch-Pruning is not installed.
    """
    if not 0.0 < macs_removed < 1.0:
        raise BadInputError(
            f"sparsity {macs_removed:g} is out of range: the fraction of MACs to remove is between 0 and 1",
            hint="0.5 halves the work",
        )
    if name := _foreign(network):
        raise BadInputError(
            f"{name} of this network holds weights but is not Conv, Linear or batch norm: no channels can be removed",
            hint=_HINT,
        )
    images_NCHW = _images(input)
    groups = _free_groups(network, images_NCHW, roughly)
    work = Work(groups, macs_by_weight(network, input.shape))
    tolerance = ROUGH_TOLERANCE if roughly else MACS_TOLERANCE
    units = _nearest(groups, work, macs_removed, multiple, tolerance)
    narrower = _narrow(network, groups, [group.num_units - kept for group, kept in zip(groups, units, strict=True)])
    if narrower is None or not _is_subnetwork(narrower, network, images_NCHW):
        raise BadInputError(f"this network cannot lose {macs_removed:g} of its MACs without breaking", hint=_HINT)
    removed = 1 - count_macs(narrower.network, input.shape) / count_macs(network, input.shape)
    if abs(removed - macs_removed) > tolerance:
        raise BadInputError(
            f"sparsity {macs_removed:g} of the MACs cannot be reached within {tolerance:g}; "
            f"the nearest that channels allow is {removed:.2f}",
            hint="ask for that, or for less",
        )
    return narrower.network


def multiple_for(target: Target) -> int:
    """The multiple of channels that widths should be for a target."""
    return target.channel_multiple.value if target.channel_multiple else WIDTH_MULTIPLE


def ragged_layers(dense: nn.Module, narrower: nn.Module, multiple: int = WIDTH_MULTIPLE) -> dict[str, int]:
    """Output channels of layers that lost some and are not a multiple any more, by name."""
    before, after = prunable_weights(dense), prunable_weights(narrower)
    return {
        key: len(weight)
        for key, weight in after.items()
        if key in before and len(weight) < len(before[key]) and len(weight) % multiple
    }


def _nearest(
    groups: Sequence[Group], work: Work, macs_removed: float, multiple: int, tolerance: float
) -> tuple[int, ...]:
    """Units to keep: with the largest multiple that meets the MACs, or that comes nearest to them."""
    nearest = choose_widths(groups, work, macs_removed, multiple)
    while multiple > 1 and abs(1 - work.kept(nearest) - macs_removed) > tolerance:
        multiple //= 2
        other = choose_widths(groups, work, macs_removed, multiple)
        nearest = min(nearest, other, key=lambda units: abs(1 - work.kept(units) - macs_removed))
    return nearest


def _foreign(network: nn.Module) -> str | None:
    """The first module with parameters through which channels cannot be followed; None if there is none.

    On unknown kinds, Torch-Pruning fails with any exception; so the kinds that it handles are checked first.
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd

    known = (_ConvNd, _BatchNorm, nn.Linear, nn.GroupNorm, nn.PReLU)
    return next(
        (
            f"{name or 'the network itself'} ({type(module).__name__})"
            for name, module in network.named_modules()
            if not isinstance(module, known) and list(module.parameters(recurse=False))
        ),
        None,
    )


# --- groups that may lose channels -----------------------------------------------------------------------


def _free_groups(network: nn.Module, images_NCHW: Tensor, roughly: bool) -> tuple[Group, ...]:
    """Groups that can all lose half of their channels; if that works, other fractions do too."""
    refused = BadInputError("no layer of this network can lose channels without breaking it", hint=_HINT)
    try:
        groups = _groups_before_the_end(network, images_NCHW)
    except CannotFollowError as error:
        raise BadInputError(f"the channels of this network cannot be followed: {error}", hint=_HINT) from error
    except MissingError:
        raise
    except Exception as error:  # a library that takes networks apart raises anything on one it does not understand
        raise refused from error

    def can_lose_half(some: Sequence[Group]) -> bool:
        narrower = _narrow(network, some, [group.num_units // 2 for group in some])
        return (
            narrower is not None
            and _is_subnetwork(narrower, network, images_NCHW)
            and (roughly or _is_recognised(narrower.network, network, images_NCHW))
        )

    if can_lose_half(groups):
        return groups
    free = () if roughly else tuple(group for group in groups if can_lose_half([group]))
    if not can_lose_half(free):
        raise refused
    return free


def _groups_before_the_end(network: nn.Module, images_NCHW: Tensor) -> tuple[Group, ...]:
    """Groups of all layers, or of those up to the last convolutions where channels cannot be followed further.

    A head that splits its channels into anchors and moves these among the places mixes each channel with all others.
    """
    from edgerecover.pruning.ends import known_ends, last_convolutions, layers_of_outputs

    fixed = {_layers(network)[-1], *layers_of_outputs(network, images_NCHW)}

    def find(ends: tuple[str, ...]) -> tuple[Group, ...]:
        return find_groups(network, images_NCHW, {*fixed, *ends}, ends)

    ends = known_ends(network, images_NCHW)
    try:
        return find(ends)
    except CannotFollowError:
        ends = () if ends else last_convolutions(network, images_NCHW)
        if not ends:
            raise
        return find(ends)


def _narrow(network: nn.Module, groups: Sequence[Group], num_removed: Sequence[int]) -> Cut | None:
    """Remove the weakest units of each group; None if none are removed, or the network does not work without them."""
    try:
        found = cut(network, groups, [group.weakest(gone) for group, gone in zip(groups, num_removed, strict=True)])
    except Exception:  # see `_free_groups`
        return None
    return found if found.kept else None


def _is_subnetwork(narrower: Cut, network: nn.Module, images_NCHW: Tensor) -> bool:
    """Whether the narrower network computes what the dense one does with the removed channels at zero."""
    import torch
    from torch import nn

    from edgerecover.models.network.outputs import as_rows

    def keep_only(kept: Tensor, layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        dim = -1 if isinstance(layer, nn.Linear) else 1
        return torch.zeros_like(output).index_copy_(dim, kept, output.index_select(dim, kept))

    handles = [
        network.get_submodule(name).register_forward_hook(partial(keep_only, torch.tensor(kept, dtype=torch.long)))
        for name, kept in narrower.kept.items()
    ]
    try:
        with torch.no_grad():
            expected_ND, found_ND = (as_rows(one(images_NCHW)) for one in (network, narrower.network))
    except Exception:  # channels that were followed wrongly: shapes that do not fit each other, in anyone's forward
        return False
    finally:
        for handle in handles:
            handle.remove()
    return expected_ND.shape == found_ND.shape and bool(
        (found_ND - expected_ND).abs().max() <= 1e-3 * expected_ND.abs().max()
    )


def _is_recognised(narrower: nn.Module, network: nn.Module, images_NCHW: Tensor) -> bool:
    """Whether recovery can find out from the file alone which channels are left."""
    channels = match_channels(network, narrower, tuple(images_NCHW.shape[1:]))  # type: ignore[arg-type]  # C, H, W
    # Layers with weights of their own: an activation that is called in several places has no channels of its own.
    weighted = {name for name, module in network.named_modules() if list(module.parameters(recurse=False))}
    return all(kept is not None for name, kept in channels.kept.items() if name in weighted)


def _layers(network: nn.Module) -> list[str]:
    """Names of the modules that hold a weight; attention's bare parameters do not count."""
    return [key.removesuffix(".weight") for key in prunable_weights(network) if key.endswith(".weight")]


def _images(input: InputSpec) -> Tensor:
    """Two random images within the range of a normalised pixel."""
    import torch

    return torch.rand(2, *input.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
