"""The linear maps of a network: weights that a forward was seen to multiply its activations by, once.

Nothing is concluded from a module's class. A weight counts where a convolution or a linear layer was called with it and
the call's output is what this package computes from its arguments. All others are skipped and named.
"""

# ruff: noqa: TID253 - works on modules throughout; only the recovery stage imports it

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgerecover.models.network.linear_calls import ForwardMode, LinearCall, tensors_in
from edgerecover.recovery.patches import is_reproduced

COMPUTED = "its weight is computed in the forward pass"
NO_LINEAR_MAP = "no convolution or linear layer uses it"


@dataclass(frozen=True)
class LinearMap:
    """One weight matrix or kernel, with its bias, that a forward pass applies once."""

    weight: str
    """Name of the parameter in the network."""
    bias: str | None
    call: int
    """Index of the call among the forward pass's linear calls, from 0."""
    num_outputs: int
    form: Literal["parameter", "masked", "parametrised"] = "parameter"
    """Whether the call uses the parameter itself, the parameter under a mask, or torch's parametrisation of it."""


def layer_of(parameter: str) -> str:
    """The name of the layer that a parameter belongs to, for messages."""
    layer = parameter.partition("parametrizations.")[0] if "parametrizations." in parameter else parameter
    return re.sub(r"\.(weight(_orig|_g|_v)?)?$", "", layer) or "the network itself"


@dataclass(frozen=True)
class LinearMaps:
    """The linear maps that one forward pass showed."""

    found: tuple[LinearMap, ...]
    """In the order in which the forward pass calls them."""
    left_out: Mapping[str, str]
    """Why others were skipped, by name of the parameter, for those of two or more dimensions."""


@torch.no_grad()
def linear_maps_of(network: nn.Module, images_NCHW: Tensor) -> LinearMaps:
    """Find the weights that a forward pass of a few images multiplies by exactly once, and why others do not count."""
    seen = _Observation(network)
    with seen:
        network(images_NCHW)
    return seen.maps()


@torch.no_grad()
def run_until(network: nn.Module, linear_map: LinearMap, batch_NCHW: Tensor) -> tuple[LinearCall, Tensor]:
    """A linear map's call with its inputs, and its output; nothing after it is computed."""
    try:
        with _Until(network, [linear_map]):
            network(batch_NCHW)
    except _Reached as reached:
        return reached.call, reached.output
    raise AssertionError("the call was reached by an earlier forward")


@torch.no_grad()
def set_weight(network: nn.Module, linear_map: LinearMap, weight: Tensor, images_NCHW: Tensor) -> bool:
    """Have the network multiply by `weight`, in place; False, and nothing has changed, where it would not."""
    parameter = network.get_parameter(linear_map.weight)
    if linear_map.form == "parameter":
        parameter.copy_(weight)
        return True
    layer, _, rest = linear_map.weight.rpartition("parametrizations.")
    module = network.get_submodule(layer.removesuffix("."))
    before = [parameter.clone()] if linear_map.form == "masked" else [tensor.clone() for tensor in _tensors(module)]
    if linear_map.form == "masked":
        parameter.copy_(weight)
    else:
        with suppress(Exception):  # not every parametrisation can be turned round, and own ones raise anything
            setattr(module, rest.partition(".")[0], weight.clone())
    used = run_until(network, linear_map, images_NCHW)[0].weight
    is_used = torch.equal(used == 0, weight == 0) and torch.allclose(used, weight, rtol=1e-4, atol=1e-6)
    if not is_used:
        changed = [parameter] if linear_map.form == "masked" else _tensors(module)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
    return is_used


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@torch.no_grad()
def can_be_set(network: nn.Module, linear_map: LinearMap, images_NCHW: Tensor) -> bool:
    """Whether the network multiplies by any weight that it is given, with zeros where it has some."""
    if linear_map.form == "parameter":
        return True
    used = run_until(network, linear_map, images_NCHW)[0].weight.clone()
    other = used * torch.linspace(0.5, 2.0, used.numel(), device=used.device).view_as(used)
    return set_weight(network, linear_map, other, images_NCHW) and set_weight(network, linear_map, used, images_NCHW)


class AtMaps(ForwardMode, ABC):
    """A forward that passes through `at` where it first calls one of some linear maps."""

    def __init__(self, network: nn.Module, maps: Iterable[LinearMap]) -> None:
        super().__init__()
        self.not_reached = {linear_map.weight: linear_map for linear_map in maps}
        self._names = {
            _key(network.get_parameter(name)) if linear_map.form == "parameter" else linear_map.call: name
            for name, linear_map in self.not_reached.items()
        }
        self._num_calls = 0

    def call(self, call: LinearCall, compute: Callable[[], Tensor]) -> Tensor:
        """Pass a map's through `at`."""
        number, self._num_calls = self._num_calls, self._num_calls + 1
        name = self._names.get(_key(call.weight)) or self._names.get(number)
        linear_map = self.not_reached.pop(name, None) if name else None
        return compute() if linear_map is None else self.at(linear_map, call, compute)

    @abstractmethod
    def at(self, linear_map: LinearMap, call: LinearCall, compute: Callable[[], Tensor]) -> Tensor:
        """See a map's call before it is computed; what is returned stands for its output."""


class _Reached(BaseException):
    def __init__(self, call: LinearCall, output: Tensor) -> None:
        super().__init__()
        self.call, self.output = call, output


class _Until(AtMaps):
    """Ends a forward at a map's call."""

    def at(self, linear_map: LinearMap, call: LinearCall, compute: Callable[[], Tensor]) -> Tensor:
        raise _Reached(call, compute())


# --- what a forward shows -----------------------------------------------------------------------------------------


def _key(tensor: Tensor) -> tuple[Any, ...]:
    """The same for two tensors that are the same numbers in memory."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _is_plain(call: LinearCall) -> bool:
    return call.weight.is_floating_point() and call.weight.dim() == call.num_axes + 2


_Origins = frozenset[str]
"""Names of the parameters that a tensor was computed from, and from nothing that depends on the images."""


class _Observation(ForwardMode):
    """Which parameters enter which calls of one forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self._named = {name: p for name, p in network.named_parameters() if not is_lazy(p) and p.numel()}
        self._names = {_key(parameter): name for name, parameter in self._named.items()}
        self._buffers = {_key(buffer) for buffer in network.buffers() if not is_lazy(buffer)}
        self._derived: dict[int, tuple[Tensor, _Origins]] = {}
        """By id of the tensor, which is held so that no other tensor gets the same id."""
        self._num_calls = 0
        self._found: list[LinearMap] = []
        self._calls: Counter[str] = Counter()
        """Calls in which a parameter is the weight or the bias."""
        self._used_otherwise: set[str] = set()
        self._problems: dict[str, str] = {}

    def linear(self, call: LinearCall, output: Tensor) -> Tensor:
        number, self._num_calls = self._num_calls, self._num_calls + 1
        name, form = self._weight(call)
        bias = self._names.get(_key(call.bias)) if call.bias is not None else None
        self._calls.update(filter(None, (name, bias)))
        if name is not None and form is not None:
            if call.bias is not None and bias is None:
                self._problems[name] = "its bias is computed in the forward pass"
            elif not _is_plain(call) or not is_reproduced(call, output):
                self._problems[name] = "its output is not the product of its weight and input"
            self._found.append(LinearMap(name, bias, number, call.num_outputs, form))
        elif name is None:
            for origin in self._origins(call.weight) or ():
                self._problems[origin] = COMPUTED
        self._derive((call.inputs, call.weight, call.bias), output)
        return output

    def _weight(self, call: LinearCall) -> tuple[str | None, Literal["parameter", "masked", "parametrised"] | None]:
        """The parameter that the call multiplies by, and how it does."""
        if name := self._names.get(_key(call.weight)):
            return name, "parameter"
        for name in sorted(self._origins(call.weight) or (), reverse=True):
            parameter = self._named[name]
            if parameter.shape != call.weight.shape:
                continue
            if "parametrizations." in name:
                return name, "parametrised"
            if bool(((call.weight == parameter) | (call.weight == 0)).all()) and bool(call.weight.any()):
                return name, "masked"
        return None, None

    def other(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        results = list(tensors_in(result))
        if not results:
            return result
        given = list(tensors_in((args, kwargs)))
        same = {_key(tensor) for tensor in results}
        for tensor in given:
            name = self._names.get(_key(tensor))
            if name is not None and _key(tensor) not in same:
                self._used_otherwise.add(name)
        self._derive(given, *results)
        return result

    def maps(self) -> LinearMaps:
        """What was seen."""
        left_out: dict[str, str | None] = {
            name: self._reason(name) for name, parameter in self._named.items() if parameter.dim() > 1
        }
        for linear_map in self._found:
            left_out[linear_map.weight] = self._reason_against(linear_map)
        found = tuple(linear_map for linear_map in self._found if left_out[linear_map.weight] is None)
        return LinearMaps(found, {name: reason for name, reason in left_out.items() if reason is not None})

    def _reason_against(self, linear_map: LinearMap) -> str | None:
        if problem := self._problems.get(linear_map.weight):
            return problem
        if (times := self._calls[linear_map.weight]) > 1:
            return f"used {times} times"
        if linear_map.bias and (times := self._calls[linear_map.bias]) > 1:
            return f"its bias is used {times} times"
        if linear_map.form == "parameter" and linear_map.weight in self._used_otherwise:
            return "also used in another way"
        return None

    def _reason(self, parameter: str) -> str:
        """Why one that is no call's weight is left out."""
        if problem := self._problems.get(parameter):
            return problem
        return NO_LINEAR_MAP if parameter in self._used_otherwise else "inference does not use it"

    def _derive(self, given: Any, *results: Tensor) -> None:
        origins = [self._origins(tensor) for tensor in tensors_in(given)]
        known = [origin for origin in origins if origin is not None]
        if len(known) == len(origins):
            for tensor in results:
                self._derived[id(tensor)] = tensor, frozenset().union(*known)

    def _origins(self, tensor: Tensor) -> _Origins | None:
        if id(tensor) in self._derived:
            return self._derived[id(tensor)][1]
        key = _key(tensor)
        if key in self._names:
            return frozenset([self._names[key]])
        return frozenset() if key in self._buffers else None
