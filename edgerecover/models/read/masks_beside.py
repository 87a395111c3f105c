"""Finding masks beside the weights in a file: dictionaries and lists whose name says so, at any depth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgerecover.models.read.arrays import is_array
from edgerecover.models.read.modules import MAX_NAME, MAX_PARTS
from edgerecover.models.read.records import Made, entries_of
from edgerecover.models.read.tensors import is_bool, is_tensor

_MIN_LISTED = 16
"""Shorter lists of numbers may be settings: `mask_size`."""

MAX_NESTING = 4
"""How deeply nested dictionaries are searched."""

_MASKS = re.compile(r"mask|sparsif|pruner", re.IGNORECASE)
"""In the names of entries that hold masks: NNI's, those of torch.ao's sparsifiers, people's own."""

_STATES = "prune|keep|kept|remain|surviv|alive|zero|dead"
_PLACES = "ind(?:ex|ic)|idx|pos|channel|filter"
_INDICES = re.compile(
    rf"(?:{_STATES}).*(?:{_PLACES})|(?:{_PLACES}).*(?:{_STATES})|^(?:pruned|kept|keep|dead|zeroed)$", re.IGNORECASE
)
"""In the names of entries that hold indices of pruned or kept weights."""


@dataclass(frozen=True)
class Beside:
    """An entry beside the weights with a name such as `masks`."""

    name: str
    tensors: dict[str, Any]
    """Records of tensors and NumPy arrays, by the path of keys that leads to each."""
    is_certain: bool = True
    """Whether entries that fit no weight are certainly masks; if not, they are not mentioned."""
    are_indices: bool = False
    """Whether they are indices of weights or channels, by the entry's name."""


def is_called_masks(name: str) -> bool:
    """Whether a name speaks of masks: `masks`, `weight_mask`, `pruner`, `sparsifier_config`."""
    return _MASKS.search(name) is not None


def is_called_indices(name: str) -> bool:
    """Whether a name speaks of kept or pruned weights: `pruned_indices`, `keep`."""
    return _INDICES.search(name) is not None


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
                found += _indices_in(key, value, (str(key),)) or _masks_inside(value, (str(key),), seen)
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
        if isinstance(key, str) and is_called_masks(key):
            found += _beside(".".join(way), value)
        else:
            found += _indices_in(key, value, way) or _masks_inside(value, way, seen)
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


def _indices_in(key: Any, value: Any, way: tuple[str, ...]) -> list[Beside]:
    """An entry whose name says that it holds indices of weights, if it holds numbers; bools are masks."""
    if not isinstance(key, str) or not is_called_indices(key) or _bits_in(value):
        return []
    numbers = _numbers_in(value)
    return [Beside(".".join(way), numbers, are_indices=True)] if numbers else []


def _numbers_in(content: Any) -> dict[str, Any]:
    """Tensors, arrays and lists of integers by name, from one dictionary: `{"conv1": [0, 3, 7]}`."""
    import torch

    found: dict[str, Any] = {}
    for key, value in (entries_of(content) or {}).items():
        if not isinstance(key, str) or len(key) > MAX_NAME:
            continue
        if is_tensor(value) or is_array(value):
            found[key] = value
        elif (
            isinstance(value, list | tuple) and value and all(type(one) is int and 0 <= one < 1 << 62 for one in value)
        ):
            found[key] = torch.tensor(value)
    return found


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _numbers(value: Any) -> Any:
    """A tensor of nested lists of many numbers, all of one shape; None for anything else."""
    import torch

    first = value
    while isinstance(first, list | tuple) and first:
        first = first[0]
    if value is first or not isinstance(first, bool | int):
        return None
    try:
        numbers = torch.tensor(value)
    except (ValueError, TypeError, RuntimeError, OverflowError, RecursionError):  # of several shapes, or huge
        return None
    return numbers if numbers.numel() >= _MIN_LISTED else None


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
        if path and (numbers := _numbers(value)) is not None:
            tensors[path.removesuffix(".")] = numbers
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
