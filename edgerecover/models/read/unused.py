"""What a file holds beside the weights that were taken: a head, a teacher, an average without names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from edgerecover.models.read.masks_beside import MAX_NESTING, is_called_indices, is_called_masks
from edgerecover.models.read.modules import is_module, state_of
from edgerecover.models.read.records import Made, entries_of, printable
from edgerecover.models.read.tensors import is_bool, is_tensor, shape_of

_OF_TRAINING = re.compile(r"optim|sched|scaler|rng|criterion|loss|metric|hist|queue|sampler", re.IGNORECASE)
_OF_AVERAGES = re.compile(r"(?:^|_)(?:ema|swa|avg|averaged?|shadow)(?:_|$)", re.IGNORECASE)
_OPTIMIZER = {"state", "param_groups"}
_MAX_TENSORS = 10_000
_MAX_NAMED = 3


def unused_in_words(root: Any, under: tuple[str, ...], taken: Collection[str] = ()) -> list[str]:
    """Entries with tensors of two or more dimensions that are no part of the weights, in words for people.

    Args:
        root: what the file holds.
        under: the keys that lead to the weights.
        taken: other keys, on any level, that were used or told of.
    """
    found: dict[str, int] = {}
    words = []
    content = root
    for level in range(len(under) + 1):
        entries = entries_of(content) or {}
        way = under[level] if level < len(under) else None
        for key, value in entries.items():
            is_other = isinstance(key, str) and key != way and key not in taken
            is_other = is_other and not is_called_masks(key) and not is_called_indices(key)
            if not is_other or _OF_TRAINING.search(key) or is_tensor(value):
                continue
            num_tensors = _num_tensors(value)
            if num_tensors and _OF_AVERAGES.search(key):
                many = f"{num_tensors} tensors" if num_tensors > 1 else "1 tensor"
                words.append(f"not the running average under '{printable(key)}', {many} without the weights' names")
            elif num_tensors:
                found[key] = num_tensors
        content = entries.get(way)
    if found:
        shown = " and ".join(f"'{printable(key)}'" for key in list(found)[:_MAX_NAMED])
        more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
        number = sum(found.values())
        words.append(f"{shown}{more} beside them not used ({number} tensor{'s' if number > 1 else ''})")
    return words


def _num_tensors(content: Any) -> int:
    """Number of tensors in an entry; 0 if none of them is a matrix, or if they are an optimiser's."""
    tensors = list(_tensors_in(content, 0, set()))
    return len(tensors) if any(len(shape_of(one) or (1, 1)) > 1 for one in tensors) else 0


def _tensors_in(content: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if is_tensor(content):
        yield from () if is_bool(content) else (content,)
        return
    entries = entries_of(content) or {}
    if depth > MAX_NESTING or id(content) in seen or len(seen) > _MAX_TENSORS or entries.keys() >= _OPTIMIZER:
        return
    seen.add(id(content))
    if is_module(content):
        yield from state_of(content).values()
        return
    if isinstance(content, Made | dict | list | tuple):
        for child in content if isinstance(content, list | tuple) else entries.values():
            yield from _tensors_in(child, depth + 1, seen)
