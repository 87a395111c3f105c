"""The state_dict of a whole module in a parsed pickle, whose classes are not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from edgerecover.models.read.records import Made, PickleError, printable
from edgerecover.models.read.tensors import is_tensor

MAX_NAME = 1000
"""Characters in a weight's name; no network has longer ones, and many of them would fill the memory."""

MAX_PARTS = 200_000
"""Modules and tensors of one network; a file can refer to the same ones again and again."""

_MAX_DEPTH = 100
_MAX_ATTRIBUTES = 1000
_GETATTR = ("__builtin__.getattr", "builtins.getattr")
_GRAPH_CLASS = "torch.fx.graph_module.GraphModule"
_GRAPH_MODULE = "torch.fx.graph_module.reduce_graph_module"


def is_module(value: Any) -> bool:
    """Whether `value` is the record of a pickled torch.nn.Module."""
    return _attributes(value) is not None


def state_of(module: Any) -> dict[str, Any]:
    """Records of tensors under the names that `state_dict()` would have given; empty for anything but a module.

    Raises:
        PickleError: modules are more, or more deeply nested, than in any network.
    """
    state: dict[str, Any] = {}
    num_seen = 0
    for prefix, inner in children_of(module, _submodules):
        attributes = _attributes(inner) or {}
        passing = _elements(attributes.get("_non_persistent_buffers_set"))
        for kind in ("_parameters", "_buffers"):
            tensors = attributes.get(kind)
            tensors = tensors if isinstance(tensors, dict) else {}
            num_seen += len(tensors)
            if num_seen > MAX_PARTS:
                raise PickleError("more tensors than any network has")
            for name, value in tensors.items():
                is_kept = isinstance(name, str) and is_tensor(value) and not (kind == "_buffers" and name in passing)
                if is_kept and len(prefix + str(name)) <= MAX_NAME:
                    state[prefix + str(name)] = value
    return state


def mask_attributes(module: Any) -> dict[str, Any]:
    """Records of tensors named like masks that `state_dict()` leaves out: plain attributes, non-persistent buffers."""
    found: dict[str, Any] = {}
    for prefix, inner in children_of(module, _submodules):
        attributes = _attributes(inner) or {}
        buffers = attributes.get("_buffers")
        passing = _elements(attributes.get("_non_persistent_buffers_set"))
        candidates = [*attributes.items(), *(buffers.items() if isinstance(buffers, dict) else ())]
        for name, value in candidates[:_MAX_ATTRIBUTES]:
            is_hidden = isinstance(name, str) and "mask" in name and (name in attributes or name in passing)
            if is_hidden and is_tensor(value) and len(prefix + name) <= MAX_NAME and len(found) < MAX_PARTS:
                found[prefix + name] = value
    return found


def adapter_scales(module: Any) -> dict[tuple[str, str], float]:
    """Scales of PEFT's adapters, by layer path and adapter name; empty if any is not plain LoRA."""
    scales: dict[tuple[str, str], float] = {}
    for prefix, inner in children_of(module, _submodules):
        attributes = _attributes(inner) or {}
        scaling = attributes.get("scaling")
        if not isinstance(scaling, dict) or "lora_A" not in attributes["_modules"]:
            continue
        variants = attributes.get("use_dora")
        has_variants = isinstance(variants, dict) and any(variants.values())
        # Merged adapters are in the weight already; swapped ones compute something else.
        if has_variants or attributes.get("merged_adapters") or attributes.get("_disable_adapters"):
            return {}
        for name, scale in scaling.items():
            if isinstance(scale, int | float) and isinstance(name, str) and name in _active_adapters(attributes):
                scales[prefix.removesuffix("."), name] = float(scale)
    return scales


def _active_adapters(attributes: dict[Any, Any]) -> tuple[str, ...]:
    """Names of the adapters that a layer applies."""
    active = attributes.get("_active_adapter")
    names = active if isinstance(active, list) else [active]
    return tuple(name for name in names if isinstance(name, str))


def classes_of(module: Any) -> tuple[str, ...]:
    """Names of the classes of a module and those inside it, outermost first, each once."""
    makers = (inner.maker or inner.by for _, inner in children_of(module, _submodules))
    found = (_GRAPH_CLASS if maker == _GRAPH_MODULE else printable(maker) for maker in makers)
    return tuple(dict.fromkeys(found))


def children_of(root: Any, submodules: Callable[[Any], dict[str, Any] | None]) -> Iterator[tuple[str, Made]]:
    """`root` and every module below it, with the prefix of its tensors' names; shared modules come once per name.

    Raises:
        PickleError: modules are more, or more deeply nested, than in any network, or one contains itself.
    """
    waiting, count = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        children = submodules(module)
        if children is None:
            continue
        count += 1 + len(children)
        if count > MAX_PARTS or depth > _MAX_DEPTH:
            raise PickleError("more modules inside each other than any network has")
        yield prefix, module
        for name, child in reversed(children.items()):
            if len(prefix) + len(name) < MAX_NAME:
                waiting.append((f"{prefix}{name}.", child, depth + 1))


def _submodules(module: Any) -> dict[str, Any] | None:
    attributes = _attributes(module)
    if attributes is None:
        return None
    inner = attributes["_modules"]
    return {name: child for name, child in inner.items() if isinstance(name, str)}


def _attributes(value: Any) -> dict[Any, Any] | None:
    """The dictionary that would have become a module's __dict__; None for anything else."""
    value = owner_of_method(value) or value
    if not isinstance(value, Made):
        return None
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    if value.maker == _GRAPH_MODULE and isinstance(value.args, tuple) and value.args:
        state = value.args[0]
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), dict) or "_parameters" not in state:
        return None
    return state


def owner_of_method(value: Any) -> Made | None:
    """The record of the module in `torch.save(model.state_dict)`, which was not called; None for anything else."""
    args = value.args if isinstance(value, Made) and value.maker in _GETATTR else None
    is_method = isinstance(args, tuple) and len(args) == 2 and args[1] == "state_dict" and isinstance(args[0], Made)
    return args[0] if is_method and args is not None else None


def _elements(value: Any) -> frozenset[str]:
    """The strings in the record of a set."""
    if not isinstance(value, Made):
        return frozenset()
    args = value.args[0] if isinstance(value.args, tuple) and value.args else ()
    given = args if isinstance(args, list) else []
    return frozenset(item for item in [*given, *(value.elements or ())] if isinstance(item, str))
