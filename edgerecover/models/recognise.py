"""Telling torchvision's classifiers from a checkpoint's keys and shapes alone, whatever its number of classes.

`torchvision_fingerprints.json` holds one digest per architecture; scripts/fingerprint_torchvision.py wrote it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AUXILIARY_PREFIXES = ("AuxLogits.", "aux1.", "aux2.")
"""Classifiers inside Inception v3 and GoogLeNet that only training uses; checkpoints may or may not hold them."""


@dataclass(frozen=True)
class _Family:
    """Architectures whose tensors of the same names grow with the number of classes."""

    head: tuple[str, ...]
    architecture_by_sha256: dict[str, str]


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """`torchvision:NAME` of the classifier that has exactly these keys and shapes; None when none has."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for family in _families():
        if all(key in shapes for key in family.head):
            name = family.architecture_by_sha256.get(fingerprint(shapes, family.head))
            if name is not None:
                return f"torchvision:{name}"
    return None


def num_torchvision_classes(tensors: Mapping[str, Tensor], name: str) -> int | None:
    """Output size of the classifying layer of a torchvision architecture; None when it is not there."""
    for family in _families():
        if name in family.architecture_by_sha256.values() and family.head[0] in tensors:
            return int(tensors[family.head[0]].shape[0])
    return None


def without_auxiliary_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What inference needs of an Inception v3 or GoogLeNet checkpoint."""
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(AUXILIARY_PREFIXES)}


def fingerprint(shapes: Mapping[str, tuple[int, ...]], head: Iterable[str]) -> str:
    """Digest of keys and shapes, less what varies: number of classes, auxiliary heads, batch counters."""
    head = frozenset(head)
    lines = (
        f"{key} {list(shape[1:] if key in head else shape)}"
        for key, shape in sorted(shapes.items())
        if not key.startswith(AUXILIARY_PREFIXES) and not key.endswith("num_batches_tracked")
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@functools.cache
def _families() -> tuple[_Family, ...]:
    table = json.loads(Path(__file__).with_name("torchvision_fingerprints.json").read_text(encoding="utf-8"))
    return tuple(
        _Family(tuple(entry["head"]), {sha256: name for name, sha256 in entry["architectures"].items()})
        for entry in table
    )
