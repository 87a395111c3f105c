"""Reading files of torch.save and pickle.dump into a parsed tree and a reader of its tensors; nothing is run."""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgerecover.models.read.pickles import Parsed, parse
from edgerecover.models.read.records import Outside, PickleError, UnusableTensorError
from edgerecover.models.read.tensors import STORAGE_DTYPES, TensorReader, storage_id
from edgerecover.models.read.zips import Archive, ZipError

MAX_PICKLE_BYTES = 256 << 20
"""torch stores weights outside of the pickle; a larger pickle holds something else."""

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_MAX_STORAGES = 1_000_000

_ELEMENT_BYTES = {
    "float64": 8, "int64": 8, "complex64": 8, "complex128": 16, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2,
    "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


class NoWeightsError(Exception):
    """The file holds no named weights, or several sets without saying which one; the text is for people."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    root: Any
    """A tree as in `pickles.Parsed`, which may also hold tensors."""
    reader: TensorReader
    kind: str
    """The kind of file in words: "state_dict", "TorchScript archive"."""
    names: frozenset[str] = frozenset()
    """Names that unpickling would have imported."""
    notes: tuple[str, ...] = ()
    """Further words for people, to follow `kind`."""
    example_shape: tuple[int, ...] | None = None
    """Shape (N, C, H, W) of the example input that the file was made with."""


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open the zip at `path`.

    Raises:
        ZipError: it is not a zip, or an unsafe one; see `Archive`.
    """
    with path.open("rb") as file:
        yield Archive(file, path.stat().st_size)


def read_zip(archive: Archive) -> Content:
    """Read the format of torch.save since torch 1.6; `archive` must stay open while tensors are read.

    Raises:
        ZipError, PickleError: the file is damaged.
    """
    check_byte_order(archive)
    parsed = read_pickle(archive, "data.pkl")
    return Content(parsed.root, TensorReader(lambda key: archive.read(f"data/{key}")), "state_dict", parsed.names)


def check_byte_order(archive: Archive) -> None:
    """Refuse files of big-endian machines."""
    if "byteorder" in archive and archive.size_bytes("byteorder") < 16 and archive.read("byteorder") == b"big":
        raise ZipError("it was written on a big-endian machine")


def read_pickle(archive: Archive, name: str) -> Parsed:
    """Parse the pickle in one member of an archive.

    Raises:
        ZipError, PickleError: it is missing, damaged or too large.
    """
    if archive.size_bytes(name) > MAX_PICKLE_BYTES:
        raise PickleError(f"{name} takes {archive.size_bytes(name):,} bytes, more than in any checkpoint")
    return parse(bytes(archive.read(name)))


def read_stream(stream: mmap.mmap | io.BytesIO, size_bytes: int) -> Content:
    """Read the format of torch.save before torch 1.6, or a plain pickle.

    Raises:
        PickleError: the file is damaged or truncated.
    """
    first = parse(stream)
    if first.root != _MAGIC_NUMBER:
        return Content(first.root, TensorReader(_no_storages, _unpack), "pickle", first.names)
    if parse(stream).root != _PROTOCOL_VERSION:
        raise PickleError("of an unknown version of torch's format")
    system = parse(stream).root
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise PickleError("it was written on a big-endian machine")
    parsed = parse(stream)
    storages = _Storages(stream, size_bytes, parsed.stored)
    return Content(parsed.root, TensorReader(storages.read), "state_dict", parsed.names)


class _Storages:
    """The storages after the pickles of the older format: for each, the number of its elements, then the elements."""

    def __init__(self, stream: mmap.mmap | io.BytesIO, size_bytes: int, stored: tuple[Outside, ...]) -> None:
        keys = parse(stream).root
        if not isinstance(keys, list) or len(keys) > _MAX_STORAGES:
            raise PickleError("the list of storages is missing")
        self._stream = stream
        element_bytes = _element_bytes(stored)
        self._span_by_key: dict[str, tuple[int, int]] = {}
        position = stream.tell()
        for key in keys:
            if not isinstance(key, str) or key not in element_bytes:
                raise PickleError("a storage that no tensor refers to")
            stream.seek(min(position, size_bytes))
            num_bytes = int.from_bytes(stream.read(8), "little") * element_bytes[key]
            if position + 8 + num_bytes > size_bytes:
                raise PickleError(f"the file ends inside storage {key[:40]!r}")
            self._span_by_key[key] = (position + 8, num_bytes)
            position += 8 + num_bytes

    def read(self, key: str) -> bytearray:
        if key not in self._span_by_key:
            raise PickleError(f"storage {key[:40]!r} is missing")
        start, num_bytes = self._span_by_key[key]
        self._stream.seek(start)
        return bytearray(self._stream.read(num_bytes))


def _element_bytes(stored: tuple[Outside, ...]) -> dict[str, int]:
    """Bytes per element of each storage that the pickle refers to, by key; as in torch, the first reference counts."""
    found: dict[str, int] = {}
    for outside in stored:
        fields = outside.id
        if isinstance(fields, tuple) and len(fields) >= 5 and fields[0] == "storage" and isinstance(fields[2], str):
            dtype_name = STORAGE_DTYPES.get(getattr(fields[1], "name", ""), "")
            found.setdefault(fields[2], _ELEMENT_BYTES.get(dtype_name, 1))
    return found


def _no_storages(key: str) -> bytearray:
    raise PickleError(f"storage {key[:40]!r} is not in the file")


def _unpack(packed: bytes) -> tuple[Any, bytearray]:
    """Read a storage that torch.save wrote into a plain pickle: the reference to it, and its bytes."""
    stream = io.BytesIO(packed)
    for _ in range(3):
        parse(stream)
    parsed = parse(stream)
    try:
        key = storage_id(parsed.root, quantized=True)[0]
    except UnusableTensorError as fault:
        raise PickleError(f"a packed storage {fault}") from fault
    return parsed.root, _Storages(stream, len(packed), parsed.stored).read(key)
