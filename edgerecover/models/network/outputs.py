"""Reading logits from networks that end in softmax or sigmoid, so that these are not applied twice.

What reads them gives one row of numbers for each image, whatever shape a network's own outputs have.
Shapes: N images, D numbers for each.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgerecover.artifacts import NUM_BOX_VALUES, Activation, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.models.network.subclasses import become

_TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1."""
_LEAST = 1e-38
"""Lower bound for probabilities, so that their logarithms are finite."""


@torch.no_grad()
def activation_of(network: nn.Module, images_NCHW: Tensor) -> Activation:
    """Determine it from a few outputs: probabilities add up to 1, autograd shows whether a sigmoid comes last."""
    scores = network(images_NCHW.clone())
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        return Activation.NONE
    has_classes = scores.dim() > 1 and scores.shape[1] > 1
    if has_classes and bool(((scores.sum(1) - 1).abs() < _TOLERANCE).all()):
        return Activation.SOFTMAX
    return Activation.SIGMOID if last_step(network, images_NCHW) == "Sigmoid" else Activation.NONE


def last_step(network: nn.Module, images_NCHW: Tensor, through: tuple[str, ...] = ()) -> str:
    """What autograd calls the last operation, apart from those that only move values (views, slices, casts, resizing).

    Those whose name begins as one in `through` does are passed over too.

    "Sigmoid", "Relu", "Addmm"; empty where nothing differentiable leads to the outputs.
    """
    with torch.enable_grad():
        try:
            node = network(images_NCHW.clone().requires_grad_().clone()).grad_fn
        except Exception:  # without gradients it worked; the probe of the networks refuses it, with the reason
            return ""
    while node is not None and node.name().startswith((*_ONLY_MOVE, *through)):
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return "" if node is None else re.sub(r"Backward\d*$", "", node.name())


_ONLY_MOVE = (
    "View", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "ToCopy", "Transpose",
    "Upsample",
)  # fmt: skip
"""Of a map of probabilities, interpolation makes one of probabilities."""


def read_as_logits(network: nn.Module, output: OutputSpec) -> None:
    """Make the network return logits (N, D) from now on, in place; `as_it_is` gives it with its own outputs.

    For probabilities, these are their logarithms, which keep all differences between the original logits; for
    sigmoids, their inputs. Values of tasks without scores stay as they are. Names of parameters and layers stay.

    Raises:
        BadInputError: the network runs or is copied in a way of its own, in which this would be lost.
    """
    own = type(network)
    is_row = len(output.shape) == 1 and output.num_values > 1 and not output.parts
    if output.activation is Activation.NONE and is_row:
        return  # (N, D) already
    if hasattr(own, "__deepcopy__") or "forward" in vars(network):  # torch.fx.GraphModule; a forward put in its place
        raise BadInputError(
            f"the network outputs {_WORDS[output.activation]}; logits cannot be taken from a {own.__name__} instead",
            hint="let its factory leave out the last softmax or sigmoid: decisions stay the same",
        )

    class Logits(own):  # type: ignore[valid-type, misc]
        of_output = output
        reads_logits = True

        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            outputs = super().forward(*args, **kwargs)
            if not output.parts:
                outputs = _as_logits(outputs, output)
                return outputs.reshape(len(outputs), -1)
            pairs = zip(outputs, output.parts, strict=True)
            return as_rows(tuple(_as_logits(one, part.output) for one, part in pairs))

    become(network, Logits)


def as_rows(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A network's own outputs, or several, as rows of numbers (N, D)."""
    if isinstance(outputs, Tensor):
        return outputs.reshape(len(outputs), -1)
    return torch.cat([one.reshape(len(one), -1) for one in outputs], 1)


def only_output(network: nn.Module, place: int) -> nn.Module:
    """A network that gives one of several outputs; weights and layers are shared with the one given."""
    itself, own = copy.copy(network), type(network)

    class Only(own):  # type: ignore[valid-type, misc]
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            output: Tensor = super().forward(*args, **kwargs)[place]
            return output

    itself.__class__ = Only
    return itself


def as_it_is(network: nn.Module) -> nn.Module:
    """The network with its own outputs; weights and layers are shared with the one given."""
    if declared_output(network) is None:
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


def declared_output(network: nn.Module) -> OutputSpec | None:
    """The network's own output, where `read_as_logits` had to read it otherwise; else None."""
    output: OutputSpec | None = vars(type(network)).get("of_output")
    return output


def _as_logits(outputs: Tensor, output: OutputSpec) -> Tensor:
    """Outputs as the network gives them, with scores before the last softmax or sigmoid."""
    to_logits = _TO_LOGITS[output.activation]
    if output.task is not TaskKind.DETECTION:
        return to_logits(outputs)
    axis = 2 if output.has_candidates_first else 1
    boxes = outputs.narrow(axis, 0, NUM_BOX_VALUES)
    scores = outputs.narrow(axis, NUM_BOX_VALUES, outputs.shape[axis] - NUM_BOX_VALUES)
    return torch.cat([boxes, to_logits(scores)], axis)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.float().clamp_min(_LEAST).log()


def _logit(sigmoids: Tensor) -> Tensor:
    return torch.logit(sigmoids.float(), eps=torch.finfo(torch.float32).eps / 2)


def _same(values: Tensor) -> Tensor:
    return values


_TO_LOGITS: Mapping[Activation, Callable[[Tensor], Tensor]] = MappingProxyType(
    {Activation.SOFTMAX: _log, Activation.SIGMOID: _logit, Activation.NONE: _same}
)
_WORDS = MappingProxyType(
    {Activation.SOFTMAX: "probabilities", Activation.SIGMOID: "sigmoids", Activation.NONE: "more than one axis"}
)
