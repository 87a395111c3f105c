"""Channel pruning: the layers become narrower, in shape and in work, by the magnitudes of whole channels.

Torch-Pruning (Fang et al. 2023, DepGraph, arXiv 2301.12900) finds which layers must shrink together. What it returns is
not taken on trust: the pruned network must compute what the dense one computes with the removed channels at zero.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError, MissingError
from edgerecover.models.channels import match_channels
from edgerecover.models.macs import count_macs
from edgerecover.models.sparsity import prunable_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

MACS_TOLERANCE = 0.03
"""How far the fraction of MACs removed may be from the one asked for: channels come whole."""

ROUGH_TOLERANCE = 0.2
"""Of a network that is there for its latency alone."""
_CLOSE_ENOUGH = 0.005
_MAX_TRIALS = 10


def prune_channels(network: nn.Module, input: InputSpec, macs_removed: float, *, roughly: bool = False) -> nn.Module:
    """A copy of `network` with the weakest channels of each layer taken out, by the L2 norm of their weights.

    All layers lose the same fraction of their channels; the classifier keeps its outputs. Where layers cannot lose
    channels without breaking the network (a shortcut that pads with zeros, a shuffle), those stay as wide as they are.

    Args:
        network: on the CPU, in eval mode; not changed.
        input: shape of the images.
        macs_removed: fraction of the multiply-accumulates to remove, above 0 and below 1;
            met within MACS_TOLERANCE.
        roughly: be quick: within ROUGH_TOLERANCE is near enough, and a network with layers that cannot lose channels is
            refused instead of searched for them.

    Raises:
        BadInputError: fraction out of range or out of reach, or no layer of this network can lose channels.
        MissingError: Torch-Pruning is not installed.
    """
    if not 0.0 < macs_removed < 1.0:
        raise BadInputError(
            f"sparsity {macs_removed:g} is out of range: the fraction of MACs to remove is above 0 and below 1",
            hint="0.5 halves the work",
        )
    if name := _foreign(network):
        raise BadInputError(
            f"{name} of this network holds weights that are no Conv, Linear or batch norm: no channels can be removed",
            hint="--pattern unstructured or 2:4 leaves the shapes as they are",
        )
    images_NCHW = _images(input)
    # Half of the channels everywhere: where that works, other fractions do.
    fixed: tuple[str, ...] = ()
    if not _can_lose_half(network, images_NCHW, fixed):
        fixed = () if roughly else _unprunable(network, images_NCHW)
        if not fixed or not _can_lose_half(network, images_NCHW, fixed):
            raise BadInputError(
                "no layer of this network can lose channels without breaking it",
                hint="--pattern unstructured or 2:4 leaves the shapes as they are",
            )
    return _closest(
        network,
        lambda ratio: _narrowed(network, images_NCHW, ratio, fixed),
        input,
        macs_removed,
        *((ROUGH_TOLERANCE, ROUGH_TOLERANCE) if roughly else (MACS_TOLERANCE, _CLOSE_ENOUGH)),
    )


# --- the fraction asked for -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    network: nn.Module
    removed: float


def _closest(
    network: nn.Module,
    attempt: Callable[[float], nn.Module | None],
    input: InputSpec,
    macs_removed: float,
    tolerance: float,
    close_enough: float,
) -> nn.Module:
    """Bisect the fraction of channels; the first guess is that MACs fall with its square."""
    dense_macs = count_macs(network, input.shape)
    low, high, ratio = 0.0, 1.0, 1 - math.sqrt(1 - macs_removed)
    best: _Trial | None = None
    for _ in range(_MAX_TRIALS):
        narrower = attempt(ratio)
        if narrower is None:  # a layer ran out of channels
            high, ratio = ratio, (low + ratio) / 2
            continue
        trial = _Trial(narrower, 1 - count_macs(narrower, input.shape) / dense_macs)
        if best is None or abs(trial.removed - macs_removed) < abs(best.removed - macs_removed):
            best = trial
        if abs(trial.removed - macs_removed) <= close_enough:
            break
        low, high = (ratio, high) if trial.removed < macs_removed else (low, ratio)
        ratio = (low + high) / 2
    if best is None or abs(best.removed - macs_removed) > tolerance:
        found = f"; the nearest that channels allow is {best.removed:.2f}" if best else ""
        raise BadInputError(
            f"sparsity {macs_removed:g} of the MACs cannot be reached within {tolerance:g}{found}",
            hint="ask for that, or for less",
        )
    return best.network


def _foreign(network: nn.Module) -> str | None:
    """The first module with parameters of a kind that channels are not followed through; None when there is none.

    Torch-Pruning takes 24 GB and more to follow the shifted windows of a Swin transformer, and gives up on others with
    whatever exception comes; what it is known to handle is asked first.
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


# --- one attempt ----------------------------------------------------------------------------------------


def _narrowed(network: nn.Module, images_NCHW: Tensor, ratio: float, fixed: Collection[str]) -> nn.Module | None:
    """A copy without `ratio` of the channels of every layer but those `fixed`; None when it does not work any more."""
    torch_pruning = _torch_pruning()
    narrower = copy.deepcopy(network).requires_grad_(True)
    classifier = _layers(network)[-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.MagnitudePruner(
                narrower,
                images_NCHW,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[narrower.get_submodule(name) for name in (classifier, *fixed)],
            ).step()
        fits = narrower(images_NCHW).shape == network(images_NCHW).shape
    except Exception:  # a library that rewrites networks raises anything on one that it does not understand
        return None
    return narrower.eval() if fits else None


def _is_subnetwork(narrower: nn.Module, network: nn.Module, images_NCHW: Tensor) -> bool:
    """Whether it has fewer channels and computes what the network does with the others at zero."""
    import torch

    channels = match_channels(network, narrower, tuple(images_NCHW.shape[1:]))  # type: ignore[arg-type]  # C, H, W
    # Layers with weights of their own: an activation that is called in several places has no channels of its own.
    weighted = {name: module for name, module in network.named_modules() if list(module.parameters(recurse=False))}
    kept_by_name = {name: channels.kept[name] for name in weighted if name in channels.kept}
    known = {name: kept_C for name, kept_C in kept_by_name.items() if kept_C is not None}
    if not known or len(known) < len(kept_by_name):
        return False

    def keep_only(kept_C: Tensor, _layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        silenced = torch.zeros_like(output)
        silenced[:, kept_C] = output[:, kept_C]
        return silenced

    handles = [weighted[name].register_forward_hook(partial(keep_only, kept_C)) for name, kept_C in known.items()]
    try:
        with torch.no_grad():
            expected_NK, found_NK = network(images_NCHW), narrower(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    difference = float((found_NK - expected_NK).abs().max())
    return expected_NK.shape == found_NK.shape and difference <= 1e-3 * float(expected_NK.abs().max())


def _can_lose_half(network: nn.Module, images_NCHW: Tensor, fixed: Collection[str]) -> bool:
    narrower = _narrowed(network, images_NCHW, 0.5, fixed)
    try:
        return narrower is not None and _is_subnetwork(narrower, network, images_NCHW)
    except RuntimeError:  # channels that were followed wrongly: shapes that do not fit each other
        return False


def _unprunable(network: nn.Module, images_NCHW: Tensor) -> tuple[str, ...]:
    """Layers whose outputs, pruned alone, break the network; found by trying each."""
    layers = _layers(network)[:-1]
    return tuple(
        name
        for name in layers
        if not _can_lose_half(network, images_NCHW, [other for other in layers if other != name])
    )


def _layers(network: nn.Module) -> list[str]:
    """Names of the modules that hold a weight; the bare parameters of attention are no modules."""
    return [key.removesuffix(".weight") for key in prunable_weights(network) if key.endswith(".weight")]


def _images(input: InputSpec) -> Tensor:
    """Two random images within the range of a normalised pixel."""
    import torch

    return torch.rand(2, *input.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingError(
            "--pattern channel needs Torch-Pruning, which is not installed",
            hint="pip install 'edgerecover[channels]'",
        ) from error
    return torch_pruning
