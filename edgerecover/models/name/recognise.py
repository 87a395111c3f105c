"""Recognising torchvision's classifiers, segmentation networks and detectors by a checkpoint's keys and shapes.

Their number of classes may be any.

`torchvision_fingerprints.json` holds one digest per architecture; scripts/fingerprint_torchvision.py wrote it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.models.name.libraries import is_detector

if TYPE_CHECKING:
    from torch import Tensor

AUXILIARY_PREFIXES = ("AuxLogits.", "aux1.", "aux2.", "aux_classifier.")
"""Auxiliary classifiers of Inception v3, GoogLeNet and segmentation networks, for training only; checkpoints may or
may not hold them."""


@dataclass(frozen=True)
class _Family:
    """Architectures whose tensors of the same names grow with the number of classes."""

    head: tuple[str, ...]
    rows_per_class: int
    """Of the first tensor of the head; SSD's background is a class."""
    architecture_by_sha256: dict[str, str]
    skeleton_by_architecture: dict[str, str]


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """`torchvision:NAME` of the network with exactly these keys and shapes; None if there is none."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for family in _families():
        if all(key in shapes for key in family.head):
            name = family.architecture_by_sha256.get(fingerprint(shapes, family.head))
            if name is not None:
                return f"torchvision:{name}"
    return None


def recognise_narrower(tensors: Mapping[str, Tensor]) -> str | None:
    """`torchvision:NAME` of the smallest network with these keys whose layers are at least as wide.

    This recognises channel-pruned checkpoints, however many channels each layer lost.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    digest = skeleton(shapes)
    names = [
        name
        for family in _families()
        for name, candidate in family.skeleton_by_architecture.items()
        if candidate == digest and all(key in shapes for key in family.head)
    ]
    wide_enough = [(num_weights, name) for name in names if (num_weights := _num_weights_if_wider(name, shapes))]
    return f"torchvision:{min(wide_enough)[1]}" if wide_enough else None


def _num_weights_if_wider(name: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Size of an architecture whose tensors are all at least as large as these; 0 if they are not."""
    num_classes = num_torchvision_classes_of(shapes, name)
    assert num_classes is not None
    wide = {key: shape for key, shape in shapes_of(name, num_classes).items() if key in shapes}
    fits = all(
        len(shape) == len(shapes[key]) and all(has <= full for has, full in zip(shapes[key], shape, strict=True))
        for key, shape in wide.items()
    )
    return sum(math.prod(shape) for shape in wide.values()) if fits else 0


def shapes_of(name: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a torchvision network's state_dict; no memory is taken for its parameters."""
    import torch
    from torchvision import models

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name not in models.list_models(module=models):
        options["weights_backbone"] = None  # the default is downloaded
    with torch.device("meta") if is_detector(f"torchvision:{name}") else _parameters_on_meta():
        network = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Build networks inside without storage for their parameters; buffers and plain tensors stay real.

    `torch.device("meta")` would not do: RegNet computes its widths with tensors. SSDlite runs its backbone, which then
    needs buffers without storage too.
    """
    from torch import nn

    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, None if param is None else nn.Parameter(param.to("meta")))

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def num_torchvision_classes(tensors: Mapping[str, Tensor], name: str) -> int | None:
    """Output size of the classifying layer in a torchvision checkpoint; None if the layer is missing."""
    return num_torchvision_classes_of({key: tuple(tensor.shape) for key, tensor in tensors.items()}, name)


def num_torchvision_classes_of(shapes: Mapping[str, tuple[int, ...]], name: str) -> int | None:
    """Output size of the classifying layer, from shapes; None if the layer is missing."""
    for family in _families():
        if name in family.architecture_by_sha256.values() and family.head[0] in shapes:
            return shapes[family.head[0]][0] // family.rows_per_class
    return None


def without_auxiliary_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that inference needs, of a checkpoint of a network that is trained with auxiliary classifiers."""
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(AUXILIARY_PREFIXES)}


def fingerprint(shapes: Mapping[str, tuple[int, ...]], head: Iterable[str]) -> str:
    """Digest of keys and shapes, without what varies: number of classes, auxiliary heads, batch counters."""
    head = frozenset(head)
    lines = (
        f"{key} {list(shape[1:] if key in head else shape)}"
        for key, shape in sorted(shapes.items())
        if not key.startswith(AUXILIARY_PREFIXES) and not key.endswith("num_batches_tracked")
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def skeleton(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Digest of keys, kernel sizes and numbers of dimensions, which channel pruning does not change."""
    bones = {key: (len(shape), *shape[2:]) for key, shape in shapes.items()}
    return fingerprint(bones, head=())


@functools.cache
def _families() -> tuple[_Family, ...]:
    table = json.loads(Path(__file__).with_name("torchvision_fingerprints.json").read_text(encoding="utf-8"))
    return tuple(
        _Family(
            tuple(entry["head"]),
            entry["rows_per_class"],
            {sha256: name for name, sha256 in entry["architectures"].items()},
            entry["skeletons"],
        )
        for entry in table
    )
