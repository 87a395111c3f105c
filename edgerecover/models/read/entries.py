"""Which entries of a parsed tree hold tensors."""

from __future__ import annotations

from typing import Any

from edgerecover.models.read.masks_beside import MAX_NESTING
from edgerecover.models.read.modules import MAX_NAME, is_module
from edgerecover.models.read.records import Made, entries_of
from edgerecover.models.read.tensors import is_tensor

STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "shadow",
)
"""Keys under which training scripts save the state_dict, most specific first."""

TORCH_PRUNING = ("full_state_dict", "attributions")
"""Keys of a file of torch_pruning.state_dict."""


def holds_tensors(value: Any, known: dict[int, bool], depth: int = 0) -> bool:
    """Whether `value` holds weights; `known` keeps answers by id, since a file can refer to one dictionary often."""
    if id(value) not in known:
        known[id(value)] = False  # for a dictionary that contains itself
        entries = entries_of(value) or {}
        known[id(value)] = (
            is_module(value)
            or torch_pruning_module(value) is not None
            or any(isinstance(key, str) and is_tensor(inner) for key, inner in entries.items())
            or (
                depth < MAX_NESTING
                and any(holds_tensors(entries[key], known, depth + 1) for key in STATE_KEYS if key in entries)
            )
        )
    return known[id(value)]


def tensors_of(content: Any) -> dict[str, Any]:
    """Records of the tensors that stand in a dictionary under names."""
    entries = entries_of(content) or {}
    return {
        key: value
        for key, value in entries.items()
        if isinstance(key, str) and len(key) <= MAX_NAME and is_tensor(value)
    }


def torch_pruning_module(content: Any) -> Made | None:
    """The network in a file of torch_pruning.state_dict, which holds every module's __dict__ by name."""
    dicts = entries_of((entries_of(content) or {}).get(TORCH_PRUNING[0])) or {}
    root = Made(None, ())
    root.state = dicts.get("")
    return root if is_module(root) else None
