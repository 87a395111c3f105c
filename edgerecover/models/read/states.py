"""From the records of one set of weights to plain tensors under an unpruned network's names, and their masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError
from edgerecover.models.read.adapters import merge_adapters
from edgerecover.models.read.file_masks import Doubt, Sibling, find_masks
from edgerecover.models.read.formats import COPY_HINT, SAVE_HINT
from edgerecover.models.read.leftovers import MERGE_HINT, foreign_form, is_adapter, list_some, take_leftovers
from edgerecover.models.read.mask_shapes import is_binary
from edgerecover.models.read.masks_beside import Beside
from edgerecover.models.read.parts import size_of
from edgerecover.models.read.records import UnusableTensorError, printable
from edgerecover.models.read.sound import check_values, plain
from edgerecover.models.read.tensors import DTYPES, META_HINT, SUBCLASS_HINT, TensorReader, compact_kind
from edgerecover.models.read.wrappings import COUNTER, FLOAT_HINT, ZERO_HINT, Weights, plain_names
from edgerecover.models.read.zips import MAX_EXPANSION, MAX_EXPANSION_FREE_BYTES

if TYPE_CHECKING:
    from torch import Tensor

MAX_SPARSE_EXPANSION = 256
"""How many times larger a sparse tensor may become when dense: with 99.8 % zeros, CSR grows 170 times."""
MAX_SPARSE_FREE_BYTES = 48 << 20
"""If all sparse tensors together stay below this size, their growth is not limited."""


_COMPLEX_HINT = (
    "only networks of real weights can be recovered; a constant may stay out of the file: "
    "register_buffer(name, value, persistent=False)"
)
_SCALES = ("_scale_inv", "_scale", "_scales")
_FLOAT8_HINT = "multiply the weights by their scales and save them as float32 or bfloat16"
MASK_HINT = (
    "give the file with the weights; masks are read when they stand beside them: "
    'torch.save({"state_dict": model.state_dict(), "masks": masks}, "model.pt")'
)
_MIN_MASK_VALUES = 100
_RESIDUE = 1e-3
"""Under masks, relative to the largest kept weight: smaller ones are no dense network's."""
_MIN_PRUNED = 0.05
"""Of the weights without a mask, zero: those were pruned too, and are not the dense network's."""
"""Tensors with fewer values may consist of 0 and 1 and be no masks."""


@dataclass(frozen=True)
class State:
    """One set of weights: CPU tensors, floating ones as float32."""

    weights: Weights
    tensors: dict[str, Tensor]
    """The weights, with masks applied."""
    masks: dict[str, Tensor]
    """bool, by weight key, True where the weight is kept."""
    dense_tensors: dict[str, Tensor] | None
    """The weights before masks were applied, if they differ."""
    prefixes: tuple[str, ...]
    own_keys: dict[str, str]
    """Key in the file, without the prefixes, by key in `tensors`, where the two differ."""
    aside: dict[str, Tensor]
    """Tensors that tools keep beside weights, by their key in the file, without the prefixes."""
    mask_keys: frozenset[str]
    """Keys in `aside` of the masks that were used."""
    cast_from: str
    """Floating types other than float32 in the file, in words."""
    words: tuple[str, ...]
    doubts: tuple[Doubt, ...]


def read_state(path: Path, reader: TensorReader, weights: Weights, beside: tuple[Beside, ...]) -> State:
    """Read one set of weights.

    Args:
        path: the file, for messages.
        reader: reads its tensors.
        weights: records of the weights.
        beside: records that may be masks of the weights.

    Raises:
        BadInputError: tensors cannot be used, hold values with which no forward pass can work, or claim to be larger
            than the file can hold.
        ZipError, PickleError: the file is damaged.
    """
    if form := foreign_form(weights.state):
        raise _unusable(path, form.key, UnusableTensorError(form.fault, form.hint))
    budget = _Budget(path, size_of(path))
    raw = {key: budget.read(reader, key, record) for key, record in weights.state.items()}
    _check_scales(path, raw)
    merged = merge_adapters(raw, weights.scales) if weights.scales else None
    found = find_masks(
        raw if merged is None else merged,
        tuple(_sibling(budget, reader, entry) for entry in beside),
    )
    if merged is not None:
        found.words.append(f"{len(weights.scales)} low-rank adapters merged")
    found.tensors.pop(COUNTER, None)
    _check_not_masks(path, found.tensors)
    _check_not_empty(path, found.tensors)
    leftovers, words = take_leftovers(found.tensors)
    tensors, cast_from = plain(found.tensors)
    check_values(path, tensors, cast_from)
    pruned = {key: tensor * found.masks[key] if key in found.masks else tensor for key, tensor in tensors.items()}
    names, prefixes = plain_names(found.plain_names.get(key, key) for key in tensors)
    names = {key: names[found.plain_names.get(key, key)] for key in tensors}
    prefix = "".join(prefixes)
    own = {names[key]: key.removeprefix(prefix) for key in tensors if names[key] != key.removeprefix(prefix)}
    own |= {names[key]: weights.own_keys[key] for key in tensors if key in weights.own_keys}
    aside = {key.removeprefix(prefix): tensor for key, tensor in (found.aside | leftovers).items()}
    is_dense_inside = any(_has_values_under(tensors[key], mask) for key, mask in found.masks.items())
    is_dense_inside &= _share_of_zeros(tensors, found.masks) < _MIN_PRUNED
    return State(
        weights=weights,
        tensors={names[key]: tensor for key, tensor in pruned.items()},
        masks={names[key]: mask for key, mask in found.masks.items()},
        dense_tensors={names[key]: tensor for key, tensor in tensors.items()} if is_dense_inside else None,
        prefixes=prefixes,
        own_keys=own,
        aside=aside,
        mask_keys=frozenset(key.removeprefix(prefix) for key in found.mask_keys),
        cast_from=cast_from,
        words=(*budget.words, *found.words, *words),
        doubts=(*(doubt.without_prefix(prefix) for doubt in found.doubts), *_adapter_doubts(tensors, prefix)),
    )


def _has_values_under(weight: Tensor, mask: Tensor) -> bool:
    """Whether a weight has values where its mask has none; what rounding or decay left there does not count."""
    pruned, kept = weight[~mask], weight[mask]
    if not kept.numel():
        return bool(pruned.any())
    return pruned.numel() > 0 and float(pruned.abs().max()) > _RESIDUE * float(kept.abs().max())


def _share_of_zeros(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> float:
    """Of the weights without a mask: where masks were made permanent, what was dense is gone."""
    weights = [tensor for key, tensor in tensors.items() if tensor.dim() >= 2 and key not in masks]
    num_zeros = sum(tensor.numel() - int(tensor.count_nonzero()) for tensor in weights)
    return num_zeros / max(1, sum(tensor.numel() for tensor in weights))


def _check_not_masks(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a file of masks alone, as NNI's `export_model` writes beside the weights."""
    matrices = {key: tensor for key, tensor in tensors.items() if tensor.dim() >= 2}
    has_zeros = any(not bool((tensor == 1).all()) for tensor in matrices.values())
    is_long = sum(tensor.numel() for tensor in matrices.values()) >= _MIN_MASK_VALUES
    if has_zeros and is_long and all(is_binary(tensor) for tensor in tensors.values()):
        raise BadInputError(
            f"{path}: holds nothing but 0 and 1, in {list_some(matrices)}: these look like masks, not weights",
            hint=MASK_HINT,
        )


def _check_not_empty(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse placeholders of weights that DeepSpeed's ZeRO stage 3 keeps in other files."""
    empty = [key for key, tensor in tensors.items() if key.endswith("weight") and tensor.numel() == 0]
    if empty:
        raise BadInputError(f"{path}: {list_some(empty)} have no values: they are in other files", hint=ZERO_HINT)


def _check_scales(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse float8 weights whose scales stand beside them: their values alone are not the network's."""
    key = next((key for key in state if key.endswith(_SCALES) and _without_scale(key) in state), None)
    if key is not None and "float8" in str(state[_without_scale(key)].dtype):
        error = UnusableTensorError(f"is float8, and its scale stands beside it in {printable(key)!r}", _FLOAT8_HINT)
        raise _unusable(path, _without_scale(key), error)


def _without_scale(key: str) -> str:
    return next((key.removesuffix(ending) for ending in _SCALES if key.endswith(ending)), key)


def _adapter_doubts(keys: Iterable[str], prefix: str) -> list[Doubt]:
    adapters = tuple(key.removeprefix(prefix) for key in keys if is_adapter(key))
    if not adapters:
        return []
    return [
        Doubt(f"low-rank adapters (LoRA), {list_some(adapters)}, are not merged into the weights", adapters, MERGE_HINT)
    ]


def _sibling(budget: _Budget, reader: TensorReader, entry: Beside) -> Sibling:
    """Read tensors beside the weights; single numbers are left out, unreadable ones counted among the others."""
    tensors: dict[str, Tensor] = {}
    for name, record in entry.tensors.items():
        with contextlib.suppress(UnusableTensorError):
            tensor = reader.tensor(record, budget.num_left)
            tensors[name] = budget.claim(name, tensor, is_sparse=compact_kind(record) == "sparse")
    num_unread = len(entry.tensors) - len(tensors)
    masks = {name: tensor for name, tensor in tensors.items() if tensor.numel() > 1 or entry.are_indices}
    return Sibling(entry.name, masks, num_unread, entry.is_certain, entry.are_indices)


class _Budget:
    """How much memory the tensors of a file may take as float32, and how many were stored sparse or quantised."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._dense_bytes = 0
        self._sparse_bytes = 0
        self._num_by_kind: dict[str, int] = {}

    @property
    def num_left(self) -> int:
        """Number of values that sparse tensors may still grow to."""
        return (MAX_SPARSE_EXPANSION * self._size_bytes + MAX_SPARSE_FREE_BYTES - self._sparse_bytes) // 4

    @property
    def words(self) -> list[str]:
        return [f"{num} {kind} tensors made dense" for kind, num in self._num_by_kind.items()]

    def read(self, reader: TensorReader, key: str, record: Any) -> Tensor:
        """Read one tensor.

        Raises:
            BadInputError: it cannot be used, or is too large.
        """
        kind = compact_kind(record)
        try:
            tensor = reader.tensor(record, self.num_left)
            _check_storage(key, tensor)
        except UnusableTensorError as error:
            raise _unusable(self._path, key, error) from error
        if kind:
            self._num_by_kind[kind] = self._num_by_kind.get(kind, 0) + 1
        return self.claim(key, tensor, is_sparse=kind == "sparse")

    def claim(self, key: str, tensor: Tensor, *, is_sparse: bool = False) -> Tensor:
        """Count a tensor; `num_left` already limits sparse ones.

        Raises:
            BadInputError: no file of this size can hold that much.
        """
        num_bytes = tensor.numel() * max(4, tensor.element_size())  # smaller ones become float32
        if is_sparse:
            self._sparse_bytes += num_bytes
            return tensor
        self._dense_bytes += num_bytes
        if self._dense_bytes > MAX_EXPANSION * self._size_bytes + MAX_EXPANSION_FREE_BYTES:
            raise BadInputError(
                f"{self._path}: {self._size_bytes:,} bytes claim to hold tensors of {self._dense_bytes:,} bytes "
                f"and more; {printable(key)!r} has shape {list(tensor.shape)}",
                hint="save contiguous tensors: .contiguous() copies values that .expand() only repeats",
            )
        return tensor


def _unusable(path: Path, key: str, error: UnusableTensorError) -> BadInputError:
    return BadInputError(
        f"{path}: tensor {printable(key)!r} {error}; ordinary float tensors are expected",
        hint=error.hint or COPY_HINT,
    )


def _check_storage(key: str, tensor: Tensor) -> None:
    """Refuse kinds of tensors that cannot be weights.

    Raises:
        UnusableTensorError: it is of such a kind.
    """
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnusableTensorError("is of a tensor subclass", SUBCLASS_HINT)
    if tensor.is_complex():
        raise UnusableTensorError("is complex", _COMPLEX_HINT)
    if tensor.is_meta:
        raise UnusableTensorError("has no data (device meta)", META_HINT)
    if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
        raise UnusableTensorError(f"is of type {tensor.dtype}", f"save it as float32: {SAVE_HINT}")
    if key.endswith("weight") and tensor.dtype in (torch.int8, torch.uint8):
        is_binary_mask = tensor.dtype is torch.uint8 and is_binary(tensor)
        what = "and holds nothing but 0 and 1, as masks do" if is_binary_mask else "whose scales stand elsewhere"
        raise UnusableTensorError(f"is of 8-bit integers, {what}", MASK_HINT if is_binary_mask else FLOAT_HINT)
