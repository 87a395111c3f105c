"""Finding masks beside the weights in a file: dictionaries and lists whose name says so, at any depth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgerecover.models.read.arrays import is_array
from edgerecover.models.read.modules import MAX_NAME, MAX_PARTS
from edgerecover.models.read.records import Made, entries_of
from edgerecover.models.read.tensors import is_bool, is_tensor

MAX_NESTING = 4
"""How deeply nested dictionaries are searched."""

_MASKS = re.compile(r"mask|sparsif|pruner", re.IGNORECASE)
"""In the names of entries that hold masks: NNI's, those of torch.ao's sparsifiers, people's own."""


@dataclass(frozen=True)
class Beside:
    """An entry beside the weights with a name such as `masks`."""

    name: str
    tensors: dict[str, Any]
    """Records of tensors and NumPy arrays, by the path of keys that leads to each."""
    is_certain: bool = True
    """Whether entries that fit no weight are certainly masks; if not, they are not mentioned."""


def is_called_masks(name: str) -> bool:
    """Whether a name speaks of masks: `masks`, `weight_mask`, `pruner`, `sparsifier_config`."""
    return _MASKS.search(name) is not None


def find_masks(root: Any, under: tuple[str, ...]) -> tuple[Beside, ...]:
    """Find entries named like masks, on every level from the root of the file to the weights.

    Args:
        root: what the file holds.
        under: the keys that lead to the weights.
    """
    found: list[Beside] = []
    seen: set[int] = set()
    content = root
    for level in range(len(under) + 1):
        entries = entries_of(content) or {}
        way = under[level] if level < len(under) else None
        for key, value in entries.items():
            if (
                isinstance(key, str)
                and key != way
                and is_called_masks(key)
                and (way is not None or not (is_tensor(value) or is_array(value)))
            ):
                found += _beside(key, value)
            elif key != way:
                found += _masks_inside(value, (str(key),), seen)
        content = entries.get(way)
    return tuple(found)


def _masks_inside(content: Any, under: tuple[str, ...], seen: set[int]) -> list[Beside]:
    """Find entries named like masks inside an entry with another name: `pruning`, `meta`.

    Args:
        content: any part of the tree.
        under: keys that lead to it.
        seen: ids of the parts searched already; a tree may refer to one many times.
    """
    if len(under) > MAX_NESTING or id(content) in seen:
        return []
    seen.add(id(content))
    found = []
    for key, value in (entries_of(content) or {}).items():
        way = (*under, str(key))
        if is_tensor(value):
            continue  # another network may have a weight with that name
        is_called_so = isinstance(key, str) and is_called_masks(key)
        found += _beside(".".join(way), value) if is_called_so else _masks_inside(value, way, seen)
    if bits := _bits_in(content):
        found.append(Beside(f"bool tensors under '{'.'.join(under)}'", bits, is_certain=False))
    return found


def _bits_in(content: Any) -> dict[str, Any]:
    """Bool tensors and arrays by name, if an entry holds nothing else: masks, whatever it is called (`keep`)."""
    entries = entries_of(content) or {}
    named = {key: value for key, value in entries.items() if isinstance(key, str) and len(key) <= MAX_NAME}
    return named if named and all(map(is_bool, entries.values())) else {}


def _beside(name: str, content: Any) -> list[Beside]:
    tensors = _leaves(content)
    return [Beside(name, tensors)] if tensors else []


def _leaves(root: Any) -> dict[str, Any]:
    """Tensors and arrays in nested dictionaries and lists, by their dotted paths."""
    tensors: dict[str, Any] = {}
    seen = {id(root)}
    waiting = [("", root)]
    while waiting and len(tensors) < MAX_PARTS:
        path, value = waiting.pop()
        if is_tensor(value) or is_array(value):
            if len(path) <= MAX_NAME:
                tensors[path.removesuffix(".")] = value
            continue
        entries = entries_of(value)
        children = (
            entries.items() if entries is not None else enumerate(value) if isinstance(value, list | tuple) else ()
        )
        for key, child in reversed(list(children)):
            if is_tensor(child) or (isinstance(child, Made | dict | list | tuple) and id(child) not in seen):
                seen.add(id(child))
                waiting.append((f"{path}{key}."[: MAX_NAME + 2], child))
    return tensors
