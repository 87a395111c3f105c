"""Networks that end in softmax or sigmoid, read as logits: what learns from them must not apply it twice.

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
"""Of a sum that should be 1."""
_LEAST = 1e-38
"""Stands for a probability that float32 rounds to 0; its logarithm is finite."""


class Outputs(str, Enum):
    """What a network puts out for K classes."""

    LOGITS = "logits"
    """Or log-probabilities, of which softmax gives the same as of the logits behind them."""
    PROBABILITIES = "probabilities"
    SIGMOIDS = "sigmoids"
    """Of each class, whatever the others are."""


@torch.no_grad()
def outputs_of(network: nn.Module, images_NCHW: Tensor) -> Outputs:
    """Told from a few outputs: rows of probabilities add up to 1, sigmoids come from where autograd says."""
    scores_NK = network(images_NCHW.clone())
    if not bool(((scores_NK >= 0) & (scores_NK <= 1)).all()):
        return Outputs.LOGITS
    if bool(((scores_NK.sum(1) - 1).abs() < _TOLERANCE).all()):
        return Outputs.PROBABILITIES
    with torch.enable_grad():
        last = network(images_NCHW.clone().requires_grad_().clone()).grad_fn
    return Outputs.SIGMOIDS if _ends_in_sigmoid(last) else Outputs.LOGITS


def _ends_in_sigmoid(node: Any) -> bool:
    """Whether a sigmoid comes last, but for what only moves values (views, slices, casts)."""
    while node is not None and node.name().startswith(_ONLY_MOVE):
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return node is not None and node.name().startswith("Sigmoid")


_ONLY_MOVE = ("View", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "ToCopy", "Transpose")


def read_as_logits(network: nn.Module, outputs: Outputs) -> None:
    """Let the network give logits from now on, in place; `as_it_is` has what it puts out itself.

    Of probabilities their logarithms, which keep every difference of the logits behind them; of sigmoids the numbers
    that went into them. Names of parameters and layers stay.

    Raises:
        BadInputError: the network has a way of its own to run or to be copied, in which this would be lost.
    """
    if outputs is Outputs.LOGITS:
        return
    own = type(network)
    if hasattr(own, "__deepcopy__") or "forward" in vars(network):  # torch.fx.GraphModule; a forward put in its place
        raise BadInputError(
            f"the network puts out {outputs.value}, and logits cannot be had from a {own.__name__} instead",
            hint="let its factory leave the last softmax or sigmoid out: decisions stay the same",
        )

    class Logits(own):  # type: ignore[valid-type, misc]
        of_outputs = outputs

        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            return _TO_LOGITS[outputs](super().forward(*args, **kwargs))

    Logits.__name__, Logits.__qualname__, Logits.__module__ = own.__name__, own.__qualname__, own.__module__
    network.__class__ = Logits


def as_it_is(network: nn.Module) -> nn.Module:
    """The network with the outputs that it has by itself; weights and layers are shared with the one given."""
    if declared_outputs(network) is Outputs.LOGITS:
        return network
    itself = copy.copy(network)
    itself.__class__ = type(network).__mro__[1]
    return itself


def declared_outputs(network: nn.Module) -> Outputs:
    """What the network puts out by itself, as `read_as_logits` was told."""
    outputs: Outputs = getattr(type(network), "of_outputs", Outputs.LOGITS)
    return outputs


def _log(probabilities_NK: Tensor) -> Tensor:
    return probabilities_NK.float().clamp_min(_LEAST).log()


def _logit(sigmoids_NK: Tensor) -> Tensor:
    return torch.logit(sigmoids_NK.float(), eps=torch.finfo(torch.float32).eps / 2)


_TO_LOGITS: Mapping[Outputs, Callable[[Tensor], Tensor]] = MappingProxyType(
    {Outputs.PROBABILITIES: _log, Outputs.SIGMOIDS: _logit}
)
