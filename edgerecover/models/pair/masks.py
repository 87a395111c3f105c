"""Which entries of a student's parameters are pruned and must stay zero, whatever the class of the module.

Pruned are all entries that explicit masks drop, and all zeros of weights that multiply (`sparsity`). Zeros of other
parameters with two dimensions (embeddings, position tables), and of a normalisation's gain γ with its shift β (network
slimming, soft filter pruning), count as pruned only where the dense teacher has none: some networks start with such
zeros and keep a few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgerecover.models.network.sparsity import prunable_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


def masks_of(network: nn.Module, explicit: Mapping[str, Tensor], teacher: nn.Module | None = None) -> dict[str, Tensor]:
    """Masks by the names that `named_parameters` gives, for every parameter with pruned entries.

    A parameter with several names has one mask, which keeps what all of them keep.

    Args:
        network: the student; explicit masks are applied to it, in place.
        explicit: bool by state_dict key, True where kept; for a parametrised weight, by the weight's own name.
        teacher: the dense network; None if unknown: then every zero counts.

    Returns:
        bool masks on the CPU, True where kept.
    """
    masks = _by_parameter(network, explicit)
    parameters = dict(network.named_parameters())
    _apply(parameters, masks)
    for name, kept in _zeros(network, parameters, teacher):
        if not bool(kept.all()):
            masks[name] = masks[name] & kept if name in masks else kept
    return masks


def gains_of(network: nn.Module) -> dict[str, str | None]:
    """Names of one-dimensional `weight`s (γ of a normalisation), each with that of its `bias` (β), if it has one."""
    parameters = dict(network.named_parameters())
    found: dict[str, str | None] = {}
    for name, gain in parameters.items():
        module, _, own_name = name.rpartition(".")
        if own_name == "weight" and gain.dim() == 1 and gain.is_floating_point():
            shift = f"{module}.bias".removeprefix(".")
            fits = shift in parameters and parameters[shift].shape == gain.shape
            found[name] = shift if fits else None
    return found


def _by_parameter(network: nn.Module, explicit: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    every = dict(network.named_parameters(remove_duplicate=False))
    masks: dict[str, Tensor] = {}
    for key, mask in explicit.items():
        for alias in _spellings(key):
            if alias in every and every[alias].shape == mask.shape:
                name = named[id(every[alias])]
                masks[name] = masks[name] & mask if name in masks else mask
                break
    return masks


def _spellings(key: str) -> Iterator[str]:
    """A weight's own name, and names of the parameter that it is computed from, which has the same zeros."""
    module, _, own_name = key.rpartition(".")
    prefix = f"{module}." if module else ""
    yield key
    yield from (f"{prefix}parametrizations.{own_name}.{original}" for original in ("original", "original1"))
    yield from (f"{key}_v", f"{key}_orig")


def _apply(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def _zeros(
    network: nn.Module, parameters: Mapping[str, nn.Parameter], teacher: nn.Module | None
) -> Iterator[tuple[str, Tensor]]:
    """Name and mask of each parameter whose zeros may be pruned."""
    taught = dict(teacher.named_parameters()) if teacher is not None else {}
    weights = prunable_weights(network)

    def lost(name: str) -> Tensor:
        """Where the parameter is zero and the teacher's is not."""
        is_zero = parameters[name].detach() == 0
        has = taught.get(name)
        return is_zero if has is None or has.shape != is_zero.shape else is_zero & (has.detach() != 0)

    for name, parameter in parameters.items():
        if name in weights:
            yield name, parameter.detach() != 0
        elif parameter.is_floating_point() and parameter.dim() >= 2:
            yield name, ~lost(name)
    for gain, shift in gains_of(network).items():
        yield gain, ~lost(gain)
        if shift is not None:
            yield shift, ~(lost(gain) & lost(shift))
