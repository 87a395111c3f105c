"""The parts of a network that can be run one by one, found by watching a forward pass.

A unit is a block, or a few layers outside blocks of which one holds weights. It is called once, with one tensor, and
returns one; where its input is the output of the unit before, it can be run on that without the rest of the network.
"""

# Shapes: N images, C channels, H height, W width.
# ruff: noqa: TID253 - works on modules throughout; only the recovery stage imports it

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgerecover.recovery.blocks import CONTAINERS, repeated_blocks
from edgerecover.recovery.pair import Pair

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
_PLAIN = (bool, int, float, str, type(None))
"""An argument beside the tensor: a rate, a size, a switch."""
_RUN_DIFFERENTLY = "the teacher runs it in a different way"


@dataclass(frozen=True)
class Unit:
    """Modules of a network that are run one after another."""

    names: tuple[str, ...]
    """Of the modules, in the order in which they are run."""
    arguments: tuple[Arguments, ...]
    """What each is called with beside the tensor, in both networks."""
    follows: bool
    """Its input is the output of the unit before in the same list, in both networks."""
    values_per_image: int
    """Numbers in its input or in its output for each image, whichever has more, in the wider network."""

    def of(self, network: nn.Module) -> list[nn.Module]:
        """Its modules in one of the two networks."""
        return [network.get_submodule(name) for name in self.names]

    def run(self, network: nn.Module, x: Tensor) -> Tensor:
        """Its output; the input may be overwritten."""
        for module, (rest, named) in zip(self.of(network), self.arguments, strict=True):
            x = module(x, *rest, **named)
        return x


def units_of(pair: Pair, images_NCHW: Tensor) -> tuple[list[Unit], dict[str, str]]:
    """The units that student and teacher have in common, in the order of a forward pass, without the last layer.

    Also why blocks, and layers with weights, belong to none, by name.

    Args:
        pair: in eval mode; not changed.
        images_NCHW: a few, which both are run on.
    """
    parts = _parts_of(pair.student)
    own, left_out = _calls_of(pair.student, parts, images_NCHW)
    its, _ = _calls_of(pair.teacher, parts, images_NCHW)
    of_teacher = {call.name: call for call in its}
    shared = _shared_parameters(pair.student, parts)
    groups = _grouped(pair.student, own)
    if groups and not _is_block(pair.student, groups[-1][-1].name):
        groups.pop()  # what the logits are for only distillation knows
    units: list[Unit] = []
    last: list[_Call] = []
    for group in groups:
        taught = [of_teacher[call.name] for call in group if call.name in of_teacher]
        name = next((call.name for call in group if _has_weights(pair.student, call.name)), group[0].name)
        if (
            len(taught) < len(group)
            or not all(map(_follows, taught[1:], taught))
            or any(call.arguments != its.arguments for call, its in zip(group, taught, strict=True))
        ):
            left_out[name], last = _RUN_DIFFERENTLY, []
            continue
        if any(call.name in shared for call in group):
            left_out[name], last = "it shares weights with another", []
            continue
        follows = bool(last) and _follows(group[0], last[0]) and _follows(taught[0], last[1])
        sizes = [t.numel() // len(images_NCHW) for c in (*group, *taught) for t in (c.input, c.output)]
        names, arguments = tuple(call.name for call in group), tuple(call.arguments for call in group)
        units.append(Unit(names, arguments, follows, max(sizes)))
        last = [group[-1], taught[-1]]
    named = {name for name in left_out if _has_weights(pair.student, name)}
    return units, {name: left_out[name] for name in parts if name in named}


def is_trainable(student: nn.Module, unit: Unit) -> bool:
    """Whether it holds a weight that multiplies."""
    return any(_has_weights(student, name) for name in unit.names)


class _Reached(BaseException):
    """Ends a forward pass; the network may itself catch any Exception."""


def input_of(network: nn.Module, unit: Unit, images_NCHW: Tensor) -> Tensor:
    """A unit's input in a forward pass of the network, which ends there."""
    found: list[Tensor] = []

    def stop(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    handle = network.get_submodule(unit.names[0]).register_forward_pre_hook(stop, prepend=True)
    try:
        network(images_NCHW)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


# --- watching -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A call of a module, with the versions of its tensors, which count what is written into them."""

    name: str
    input: Tensor
    input_version: int
    output: Tensor
    output_version: int
    arguments: Arguments
    """Beside the tensor."""


def _follows(call: _Call, before: _Call) -> bool:
    return call.input is before.output and call.input_version == before.output_version


def _parts_of(network: nn.Module) -> list[str]:
    """Blocks, and the layers outside them."""
    return list(_outermost(network, "", frozenset(repeated_blocks(network))))


def _outermost(module: nn.Module, prefix: str, blocks: frozenset[str]) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in blocks or _is_layer(child):
            yield path
        else:
            yield from _outermost(child, f"{path}.", blocks)


def _is_layer(module: nn.Module) -> bool:
    """Whether it has no children, or none that anything is learnt by (one that pads, say)."""
    if hasattr(module, "parametrizations") or not any(True for _ in module.children()):
        return not isinstance(module, CONTAINERS)
    return not isinstance(module, CONTAINERS) and not any(
        True for child in module.children() for _ in child.parameters()
    )


def _is_block(network: nn.Module, name: str) -> bool:
    return not _is_layer(network.get_submodule(name))


def _has_weights(network: nn.Module, name: str) -> bool:
    return any(p.dim() > 1 and p.is_floating_point() for p in network.get_submodule(name).parameters())


@torch.no_grad()
def _calls_of(network: nn.Module, parts: list[str], images_NCHW: Tensor) -> tuple[list[_Call], dict[str, str]]:
    """The calls of these modules in a forward pass, in its order, and why others are left out."""
    calls: list[_Call] = []
    entered: dict[str, tuple[Tensor, int, Arguments]] = {}
    left_out: dict[str, str] = {}
    times: Counter[str] = Counter()

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            times[name] += 1
            if (
                inputs
                and _is_batch(inputs[0], len(images_NCHW))
                and all(isinstance(value, _PLAIN) for value in (*inputs[1:], *named.values()))
            ):
                entered[name] = (inputs[0], inputs[0]._version, (inputs[1:], dict(named)))

        return hook

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in entered and _is_batch(output, len(images_NCHW)):
                entering, version, arguments = entered[name]
                calls.append(_Call(name, entering, version, output, output._version, arguments))
            else:
                left_out[name] = "it does not turn one tensor into one, with a row for each image"

        return hook

    handles = []
    for name in parts:
        module = network.get_submodule(name)
        handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(module.register_forward_hook(after(name)))
    try:
        network(images_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    for name in parts:
        if times[name] != 1:
            left_out[name] = "it is used more than once" if times[name] else "a forward pass does not reach it"
    return [call for call in calls if times[call.name] == 1], left_out


def _is_batch(value: Any, num_images: int) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1 and value.shape[0] == num_images


def _grouped(network: nn.Module, calls: list[_Call]) -> list[list[_Call]]:
    """Each block alone; layers outside together up to the next one with weights."""
    groups: list[list[_Call]] = []
    for before, call in zip((None, *calls), calls, strict=False):
        is_next = before is not None and _follows(call, before)
        alone = _is_block(network, call.name) or (before is not None and _is_block(network, before.name))
        has_enough = _has_weights(network, call.name) and any(
            _has_weights(network, earlier.name) for earlier in (groups[-1] if groups else ())
        )
        if is_next and not alone and not has_enough:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


def _shared_parameters(network: nn.Module, parts: list[str]) -> set[str]:
    """The parts that hold a parameter which another part holds too."""
    holders: dict[int, list[str]] = {}
    for name in parts:
        for parameter in network.get_submodule(name).parameters():
            holders.setdefault(id(parameter), []).append(name)
    return {name for names in holders.values() if len(names) > 1 for name in names}
