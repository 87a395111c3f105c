"""Channels that can only be removed together: of a convolution and its batch norm, of both sides of a shortcut.

Torch-Pruning (Fang et al. 2023, DepGraph, arXiv 2301.12900) traces the network, knows how a channel moves through
concatenations and slices, and removes it from each kind of layer. Following a channel from layer to layer is done here:
the library's own walk visits a node again for every path that leads to it, and took more than ten minutes on networks
of a few hundred layers (timm's rexnet_100, iformer_s). Here every channel of a node is visited once.

The result is verified: see `edgerecover.pruning.channels`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.errors import (
    MissingError,
    pip_line,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_VISITS = 20_000_000
"""Limit for visited channels, over all nodes and groups: about a minute, and 30 times what a ResNet-50 takes."""


class CannotFollowError(Exception):
    """The channels of a network cannot be followed."""


@dataclass(frozen=True)
class Member:
    """One side of a layer that loses channels with its group."""

    layer: str
    cut: Callable[[nn.Module, Sequence[int]], Any]
    """Removes channels from a module, by their indices."""
    is_output: bool
    num_channels: int
    """Number of channels on that side of the layer."""
    units: Mapping[int, int]
    """Unit of the group that each channel belongs to."""


@dataclass(frozen=True)
class Group:
    """Layers that lose channels together, one unit at a time.

    A unit is one channel of each layer, or more where a layer needs it: one of every group of a grouped convolution,
    both halves of what is split and multiplied.
    """

    width: int
    """Output channels of the layer from which the group was found."""
    importances: tuple[float, ...]
    """L2 norm of each unit's weights, over the group's layers."""
    members: tuple[Member, ...]

    @property
    def num_units(self) -> int:
        """Number of units in the group."""
        return len(self.importances)

    def weakest(self, num_units: int) -> frozenset[int]:
        """This many units, least important first."""
        order = sorted(range(self.num_units), key=lambda unit: (self.importances[unit], unit))
        return frozenset(order[:num_units])


@dataclass(frozen=True)
class Cut:
    """A network without some units, and the widths of its layers."""

    network: nn.Module
    kept: Mapping[str, tuple[int, ...]]
    """Remaining output channels of the layers that lost some, by name."""


def find_groups(
    network: nn.Module, images_NCHW: Tensor, fixed: Collection[str], ends: Collection[str] = ()
) -> tuple[Group, ...]:
    """The groups that contain no outputs of the `fixed` layers or of the network.

    Args:
        network: on the CPU, in eval mode; not changed.
        images_NCHW: images to trace it with.
        fixed: names of layers that keep their outputs.
        ends: names of layers whose outputs are the network's as far as channels are followed; empty: its own.

    Raises:
        CannotFollowError: a channel leads to more places than a layer has, or the walk takes more than MAX_VISITS.
        MissingError: Torch-Pruning is not installed.
    """
    from edgerecover.models.network.outputs import as_it_is, declared_output

    torch_pruning = _torch_pruning()
    output = declared_output(network)
    # Side by side in one row, several outputs would look like parts that lose their places together.
    own = as_it_is(network) if output is not None and output.parts else network
    traced = copy.deepcopy(own).requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            traced, example_inputs=images_NCHW, forward_fn=_run_up_to(ends) if ends else None
        )
    return tuple(_Walk(torch_pruning, graph, frozenset(fixed)).groups())


def cut(network: nn.Module, groups: Sequence[Group], removed: Sequence[frozenset[int]]) -> Cut:
    """A copy of `network` without the units `removed` of each group."""
    places: dict[tuple[str, Callable[..., Any]], tuple[Member, set[int]]] = {}
    for group, units in zip(groups, removed, strict=True):
        for member in group.members if units else ():
            gone = {place for place, unit in member.units.items() if unit in units}
            places.setdefault((member.layer, member.cut), (member, set()))[1].update(gone)
    narrower = copy.deepcopy(network).requires_grad_(True)
    kept: dict[str, tuple[int, ...]] = {}
    for member, gone in places.values():
        member.cut(narrower.get_submodule(member.layer), sorted(gone))
        if member.is_output:
            kept[member.layer] = tuple(place for place in range(member.num_channels) if place not in gone)
    return Cut(narrower, kept)


def _run_up_to(ends: Collection[str]) -> Callable[[nn.Module, Tensor], tuple[Tensor, ...]]:
    def run(network: nn.Module, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        handles = [
            network.get_submodule(name).register_forward_hook(lambda _layer, _inputs, output: found.append(output))
            for name in ends
        ]
        try:
            network(images_NCHW)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(found)

    return run


class _Walk:
    """Follows each layer's outputs to everything that must go with them, over Torch-Pruning's graph."""

    def __init__(self, torch_pruning: Any, graph: Any, fixed: frozenset[str]) -> None:
        from torch_pruning import _helpers

        self._library, self._graph, self._fixed = torch_pruning, graph, fixed
        self._index = _helpers._HybridIndex
        self._importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        counts = (graph.get_in_channels, graph.get_out_channels)
        sides = [count(node) for node in graph.module2node.values() for count in counts]
        self._widest = max(channels for channels in sides if channels)
        self._visits = 0
        torch_pruning.dependency.index_mapping.update_index_mapping(graph)

    def groups(self) -> Iterator[Group]:
        from torch import nn
        from torch.nn.modules.conv import _ConvNd

        met: set[nn.Module] = set()
        for module in list(self._graph.module2node):
            if not isinstance(module, (_ConvNd, nn.Linear)) or module in met:
                continue
            group, outputs, is_free = self._group_of(module)
            met |= outputs
            if is_free:
                yield group

    def _group_of(self, module: nn.Module) -> tuple[Group, set[nn.Module], bool]:
        """The group; the modules whose outputs it cuts; whether it may be cut."""
        graph, ops = self._graph, self._library.ops
        pruner = graph.get_pruner_of_module(module)
        width = pruner.get_out_channels(module)
        unions = _Unions(width)
        reached = self._reach(graph.module2node[module], pruner.prune_out_channels, width, unions)
        outputs = {dep.target.module for dep, _ in reached if graph.is_out_channel_pruning_fn(dep.handler)}
        names = {graph._module2name.get(target) for target in outputs}
        is_free = (
            not names & self._fixed
            and not any(dep.target.type == ops.OPTYPE.OUTPUT for dep, _ in reached)
            and not any(self._is_overrun(dep, roots) for dep, roots in reached)
        )
        for dep, roots in reached:
            self._unite_blocks(dep, roots, unions)
        units = unions.number_channels()
        members = tuple(
            Member(
                graph._module2name[dep.target.module],
                dep.handler,
                graph.is_out_channel_pruning_fn(dep.handler),
                self._num_channels(dep) or width,
                {place: units[root] for place, root in roots.items()},
            )
            for dep, roots in reached
            if graph._module2name.get(dep.target.module) is not None and list(dep.target.module.parameters())
        )
        return Group(width, self._importances(reached, units) if is_free else (), members), outputs, is_free

    def _reach(self, root: Any, cut_outputs: Any, width: int, unions: _Unions) -> list[tuple[Any, dict[int, int]]]:
        """Dependencies on the way; for each place of a target, the first layer's channel that leads there."""
        first = self._library.dependency.Dependency(cut_outputs, cut_outputs, source=root, target=root)
        start = [self._index(place, place) for place in range(width)]
        reached: dict[tuple[Any, Any], tuple[Any, dict[int, int]]] = {
            (root, cut_outputs): (first, {place: place for place in range(width)})
        }
        waiting = [(root, cut_outputs, start)]
        while waiting:
            node, cut_here, indices = waiting.pop()
            for dep in node.dependencies:
                if not dep.is_triggered_by(cut_here):
                    continue
                fresh = self._fresh(dep, indices, reached, unions)
                if fresh:
                    waiting.append((dep.target, dep.handler, fresh))
        return list(reached.values())

    def _fresh(self, dep: Any, indices: list[Any], reached: dict[Any, Any], unions: _Unions) -> list[Any]:
        """Places of the target that were not visited before; those visited from another channel unite the two."""
        for mapping in dep.index_mapping:
            indices = mapping(indices) if mapping is not None else indices
        self._visits += len(indices)
        if len(indices) > self._widest:
            raise CannotFollowError(
                f"from {dep.source.name} they lead to {len(indices)} places, more than any layer has channels"
            )
        if self._visits > MAX_VISITS:
            raise CannotFollowError(f"they lead to more than {MAX_VISITS:,} places")
        _, roots = reached.setdefault((dep.target, dep.handler), (dep, {}))
        fresh = []
        for index in indices:
            if index.idx not in roots:
                roots[index.idx] = index.root_idx
                fresh.append(index)
            elif roots[index.idx] != index.root_idx:
                unions.join(roots[index.idx], index.root_idx)
        return fresh

    def _unite_blocks(self, dep: Any, roots: Mapping[int, int], unions: _Unions) -> None:
        """Unite the channels at the same place of each block: grouped convolutions lose the same places of each."""
        if dep.target.type == self._library.ops.OPTYPE.DEPTHWISE_CONV:
            return
        pruner = self._graph.get_pruner_of_module(dep.target.module)
        is_output = self._graph.is_out_channel_pruning_fn(dep.handler)
        count_blocks = pruner.get_out_channel_groups if is_output else pruner.get_in_channel_groups
        num_blocks = count_blocks(dep.target.module)
        if num_blocks > 1:
            block = self._num_channels(dep) // num_blocks
            for place, root in roots.items():
                if place % block in roots:
                    unions.join(roots[place % block], root)

    def _is_overrun(self, dep: Any, roots: Mapping[int, int]) -> bool:
        """Whether channels lead to places that the layer does not have, as after a padded shortcut."""
        num_channels = self._num_channels(dep)
        return num_channels > 0 and max(roots, default=0) >= num_channels

    def _num_channels(self, dep: Any) -> int:
        """Number of channels on the side of the target that loses some; 0 if it has no channels of its own."""
        is_output = self._graph.is_out_channel_pruning_fn(dep.handler)
        count = self._graph.get_out_channels if is_output else self._graph.get_in_channels
        return count(dep.target) or 0

    def _importances(self, reached: Sequence[tuple[Any, dict[int, int]]], units: Sequence[int]) -> tuple[float, ...]:
        group = self._library.dependency.Group()
        for dep, roots in reached:
            group.add_dep(dep, list(roots))
            group[len(group) - 1].root_idxs = list(roots.values())
        sums, counts = [0.0] * (max(units) + 1), [0] * (max(units) + 1)
        for unit, importance in zip(units, self._importance(group).tolist(), strict=True):
            sums[unit] += importance
            counts[unit] += 1
        return tuple(total / count for total, count in zip(sums, counts, strict=True))


class _Unions:
    """Channels of one layer that belong together (union-find)."""

    def __init__(self, width: int) -> None:
        self._first = list(range(width))

    def join(self, one: int, other: int) -> None:
        one, other = sorted((self._leader(one), self._leader(other)))
        self._first[other] = one

    def number_channels(self) -> list[int]:
        """The unit of each channel, counted from 0."""
        leaders = [self._leader(channel) for channel in range(len(self._first))]
        numbers = {leader: number for number, leader in enumerate(dict.fromkeys(leaders))}
        return [numbers[leader] for leader in leaders]

    def _leader(self, channel: int) -> int:
        while self._first[channel] != channel:
            self._first[channel] = self._first[self._first[channel]]
            channel = self._first[channel]
        return channel


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingError(
            "--pattern channel needs Torch-Pruning, which is not installed",
            hint=pip_line("install 'edgerecover[channels]'"),
        ) from error
    return torch_pruning
