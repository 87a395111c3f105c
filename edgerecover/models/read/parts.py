"""Weights in several files: Hugging Face's shards with their index, and torch.distributed.checkpoint.

    model.safetensors.index.json   {"weight_map": {key: name of the file}}
    .metadata                      a pickle: shapes, and for each piece of a tensor the file, offset and length
    __0_0.distcp                   pieces, each a small archive of torch.save

Nothing is unpickled: both are parsed as single files are.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import sha256_of
from edgerecover.models.read.folders import DISTRIBUTED_METADATA
from edgerecover.models.read.pickles import parse
from edgerecover.models.read.records import Made, PickleError, UnusableTensorError, printable
from edgerecover.models.read.tensors import TensorReader
from edgerecover.models.read.torch_files import MAX_PICKLE_BYTES, Content, NoWeightsError, read_zip
from edgerecover.models.read.zips import MAX_EXPANSION, MAX_EXPANSION_FREE_BYTES, Archive

if TYPE_CHECKING:
    from torch import Tensor

MAX_INDEX_BYTES = 64 << 20
MAX_PARTS = 10_000

_TENSOR = "torch.distributed.checkpoint.metadata.TensorStorageMetadata"
_OPTIMIZERS = ("optim", "optimizer", "optimizers", "optimizer_states", "lr_scheduler", "lr_schedulers")


def is_in_parts(path: Path) -> bool:
    """Whether a path from `folders.weights_in` stands for several files."""
    return path.is_dir() or path.name.endswith(".index.json")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of a checkpoint in a fixed order: the only one, or an index and its parts.

    Raises:
        PickleError: the index is damaged.
    """
    if path.is_dir():
        return (path / DISTRIBUTED_METADATA, *sorted(path.glob("*.distcp")))
    if not is_in_parts(path):
        return (path,)
    return (path, *(path.parent / name for name in sorted(set(_weight_map(path).values()))))


def size_of(path: Path) -> int:
    """Size of a checkpoint in bytes, over all its files."""
    return sum(file.stat().st_size for file in files_of(path) if file.is_file())


def digest_of(path: Path) -> str:
    """SHA-256 of a checkpoint; for several files, that of their names and digests."""
    if not is_in_parts(path):
        return sha256_of(path)
    lines = (f"{file.name} {sha256_of(file)}\n" for file in files_of(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# --- shards of Hugging Face -----------------------------------------------------------------------------------


def read_shards(path: Path, read: Callable[[Path], dict[str, Tensor]]) -> Content:
    """Read the tensors that an index lists.

    Args:
        path: the index.
        read: gives the tensors of one shard.

    Raises:
        PickleError: the index is damaged, or a shard is missing.
    """
    names = _weight_map(path)
    state: dict[str, Tensor] = {}
    for name in sorted(set(names.values())):
        if not (path.parent / name).is_file():
            raise PickleError(f"its shard {printable(name)} is missing")
        shard = read(path.parent / name)
        wanted = [key for key, file in names.items() if file == name]
        if missing := next((key for key in wanted if key not in shard), None):
            raise PickleError(f"{printable(missing)} is not in {printable(name)}")
        state |= {key: shard[key] for key in wanted}
    return Content(state, TensorReader(_no_storage), f"{len(set(names.values()))} shards")


def _weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise PickleError("the index is larger than that of any checkpoint")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PickleError("the index is not JSON") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or len(set(map(str, names.values()))) > MAX_PARTS:
        raise PickleError("the index has no weight_map")
    for name in names.values():
        if not isinstance(name, str) or not _is_plain(name):
            raise PickleError("the index names a file outside its folder")
    return names


def _is_plain(name: str) -> bool:
    return 0 < len(name) < 256 and name not in (".", "..") and not set(name) & set("/\\\0:")


def _no_storage(key: str) -> bytearray:
    raise PickleError(f"storage {key[:40]!r} is not in the file")


# --- torch.distributed.checkpoint -----------------------------------------------------------------------------


def read_distributed(folder: Path) -> Content:
    """Read the tensors of a folder of torch.distributed.checkpoint, in the dictionaries that they were saved in.

    Tensors of optimizers are left out.

    Raises:
        PickleError: the folder is damaged, or pieces are missing.
        NoWeightsError: its pieces are compressed.
    """
    metadata = _metadata(folder)
    described = _entries(metadata.get("state_dict_metadata"))
    paths = _entries(metadata.get("planner_data"))
    pieces: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
    for index, stored in _entries(metadata.get("storage_data"), str | Made).items():
        where = _state(index)
        pieces.setdefault(str(where.get("fqn")), []).append((where.get("offset"), _state(stored)))
    root: dict[str, Any] = {}
    budget = MAX_EXPANSION * size_of(folder) + MAX_EXPANSION_FREE_BYTES
    for name, entry in described.items():
        path = paths.get(name)
        keys = [key for key in path if isinstance(key, str | int)] if isinstance(path, tuple) and path else [name]
        if not isinstance(entry, Made) or entry.maker != _TENSOR or keys[0] in _OPTIMIZERS:
            continue
        sizes = _sizes(_state(entry).get("size"))
        budget -= 4 * math.prod(sizes)
        if budget < 0:
            raise PickleError("its tensors claim to be larger than its files can hold")
        _put(root, keys, _join(folder, name, sizes, pieces.get(name, [])))
    return Content(root, TensorReader(_no_storage), "folder of torch.distributed.checkpoint")


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / DISTRIBUTED_METADATA
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise PickleError("its metadata is larger than that of any checkpoint")
    return _state(parse(path.read_bytes()).root)


def _join(folder: Path, name: str, sizes: tuple[int, ...], pieces: list[tuple[Any, dict[str, Any]]]) -> Tensor:
    import torch

    whole: Tensor | None = None
    num_filled = 0
    for offset, stored in pieces:
        piece = _piece(folder, name, stored)
        start = _sizes(offset) if offset is not None else (0,) * len(sizes)
        ends = tuple(first + side for first, side in zip(start, piece.shape, strict=False))
        if not len(start) == piece.dim() == len(sizes) or any(
            end > side for end, side in zip(ends, sizes, strict=True)
        ):
            raise PickleError(f"a piece of {printable(name)} does not fit it")
        if tuple(piece.shape) == sizes:
            return piece
        whole = torch.zeros(sizes, dtype=piece.dtype) if whole is None else whole
        whole[tuple(slice(first, end) for first, end in zip(start, ends, strict=True))] = piece
        num_filled += piece.numel()
    if whole is None or num_filled != whole.numel():
        raise PickleError(f"pieces of {printable(name)} are missing")
    return whole


def _piece(folder: Path, name: str, stored: dict[str, Any]) -> Tensor:
    file, offset, length = (stored.get(key) for key in ("relative_path", "offset", "length"))
    if stored.get("transform_descriptors"):
        raise NoWeightsError(
            "a folder of torch.distributed.checkpoint with compressed pieces",
            hint="make one file of it: torch.distributed.checkpoint.format_utils.dcp_to_torch_save(FOLDER, FILE)",
        )
    if not isinstance(file, str) or not _is_plain(file) or type(offset) is not int or type(length) is not int:
        raise PickleError(f"the location of {printable(name)} is not understood")
    path = folder / file
    if not path.is_file() or offset < 0 or length < 0 or offset + length > path.stat().st_size:
        raise PickleError(f"{printable(file)}, which holds {printable(name)}, is missing or truncated")
    with path.open("rb") as opened:
        opened.seek(offset)
        packed = opened.read(length)
    content = read_zip(Archive(io.BytesIO(packed), len(packed)))
    try:
        return content.reader.tensor(content.root)
    except UnusableTensorError as fault:
        raise PickleError(f"{printable(name)} {fault}") from fault


def _put(root: dict[str, Any], keys: list[str | int], tensor: Tensor) -> None:
    at = root
    for key in keys[:-1]:
        at = at.setdefault(str(key), {})
        if not isinstance(at, dict):
            raise PickleError("a tensor is said to hold others")
    at[str(keys[-1])] = tensor


def _state(value: Any) -> dict[str, Any]:
    state = value.state if isinstance(value, Made) else None
    return {key: inner for key, inner in state.items() if isinstance(key, str)} if isinstance(state, dict) else {}


def _entries(value: Any, kinds: Any = str) -> dict[Any, Any]:
    return {key: inner for key, inner in _pairs(value) if isinstance(key, kinds)}


def _pairs(value: Any) -> Iterator[tuple[Any, Any]]:
    yield from value.items() if isinstance(value, dict) else ()


def _sizes(value: Any) -> tuple[int, ...]:
    """The sizes in a record of torch.Size."""
    given = value.args[0] if isinstance(value, Made) and isinstance(value.args, tuple) and value.args else value
    if not isinstance(given, tuple | list) or not all(type(side) is int and 0 <= side < 1 << 40 for side in given):
        raise PickleError("a shape is not a list of whole numbers")
    return tuple(given)
