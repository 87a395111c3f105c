"""Reading logits from networks that end in softmax or sigmoid, so that these are not applied twice.

Shapes: N images, K classes.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgerecover.errors import BadInputError

_TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1."""
_LEAST = 1e-38
"""Lower bound for probabilities, so that their logarithms are finite."""


class Outputs(str, Enum):
    """Kinds of outputs for K classes."""

    LOGITS = "logits"
    """Logits, or log-probabilities, whose softmax is the same as that of the logits."""
    PROBABILITIES = "probabilities"
    SIGMOIDS = "sigmoids"
    """A sigmoid for each class, independent of the others."""


@torch.no_grad()
def outputs_of(network: nn.Module, images_NCHW: Tensor) -> Outputs:
    """Determine the kind from a few outputs: probabilities add up to 1, autograd shows whether a sigmoid comes last."""
    scores_NK = network(images_NCHW.clone())
    if not bool(((scores_NK >= 0) & (scores_NK <= 1)).all()):
        return Outputs.LOGITS
    if bool(((scores_NK.sum(1) - 1).abs() < _TOLERANCE).all()):
        return Outputs.PROBABILITIES
    with torch.enable_grad():
        last = network(images_NCHW.clone().requires_grad_().clone()).grad_fn
    return Outputs.SIGMOIDS if _ends_in_sigmoid(last) else Outputs.LOGITS


def _ends_in_sigmoid(node: Any) -> bool:
    """Whether a sigmoid comes last, apart from operations that only move values (views, slices, casts)."""
    while node is not None and node.name().startswith(_ONLY_MOVE):
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return node is not None and node.name().startswith("Sigmoid")


_ONLY_MOVE = ("View", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "ToCopy", "Transpose")


def read_as_logits(network: nn.Module, outputs: Outputs) -> None:
    """Make the network return logits from now on, in place; `as_it_is` gives the network with its own outputs.

    For probabilities, these are their logarithms, which keep all differences between the original logits; for
    sigmoids, their inputs. Names of parameters and layers stay.

    Raises:
        BadInputError: the network runs or is copied in a way of its own, in which this would be lost.
    """
    if outputs is Outputs.LOGITS:
        return
    own = type(network)
    if hasattr(own, "__deepcopy__") or "forward" in vars(network):  # torch.fx.GraphModule; a forward put in its place
        raise BadInputError(
            f"the network outputs {outputs.value}; logits cannot be taken from a {own.__name__} instead",
            hint="let its factory leave out the last softmax or sigmoid: decisions stay the same",
        )

    class Logits(own):  # type: ignore[valid-type, misc]
        of_outputs = outputs
        reads_logits = True

        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            return _TO_LOGITS[outputs](super().forward(*args, **kwargs))

    Logits.__name__, Logits.__qualname__, Logits.__module__ = own.__name__, own.__qualname__, own.__module__
    network.__class__ = Logits


def as_it_is(network: nn.Module) -> nn.Module:
    """The network with its own outputs; weights and layers are shared with the one given."""
    if declared_outputs(network) is Outputs.LOGITS:
        return network
    itself = copy.copy(network)
    itself.__class__ = type(network).__mro__[1]
    return itself


def own_network(network: nn.Module) -> nn.Module:
    """A copy of a network as its makers wrote it: of its own class, with its own outputs, in eval mode, trainable."""
    itself = copy.deepcopy(network)
    while "reads_logits" in vars(type(itself)):
        itself.__class__ = type(itself).__mro__[1]
    return itself.cpu().eval().requires_grad_(True)


def declared_outputs(network: nn.Module) -> Outputs:
    """The kind of the network's own outputs, as `read_as_logits` was told."""
    outputs: Outputs = getattr(type(network), "of_outputs", Outputs.LOGITS)
    return outputs


def _log(probabilities_NK: Tensor) -> Tensor:
    return probabilities_NK.float().clamp_min(_LEAST).log()


def _logit(sigmoids_NK: Tensor) -> Tensor:
    return torch.logit(sigmoids_NK.float(), eps=torch.finfo(torch.float32).eps / 2)


_TO_LOGITS: Mapping[Outputs, Callable[[Tensor], Tensor]] = MappingProxyType(
    {Outputs.PROBABILITIES: _log, Outputs.SIGMOIDS: _logit}
)
