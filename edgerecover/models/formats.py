"""What kind of file a checkpoint is, told by its content, and whether unpacking is bounded. Stdlib only."""

from __future__ import annotations

import mmap
import zipfile
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from edgerecover.errors import BadInputError

MAX_EXPANSION = 16
"""A file may unpack to this many times its size: zip-compressed zeros do, a zip bomb does more."""

MAX_EXPANSION_FREE_BYTES = 1 << 20
"""Below this size, expansion is no danger and is not looked at."""

SAVE_HINT = 'save the weights alone: torch.save(model.state_dict(), "model.pt")'

_FOREIGN_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
)


class Container(Enum):
    """The kinds of file that a state_dict comes in."""

    SAFETENSORS = "safetensors"
    ZIP = "zip"
    """What torch.save writes since torch 1.6."""
    PICKLE = "pickle"
    """What torch.save wrote before: pickles followed by raw storages."""


def detect(path: Path) -> Container:
    """Tell by its content how to read a checkpoint.

    Raises:
        BadInputError: missing, a folder, unreadable, empty, cut short, a zip bomb, or no checkpoint at all.
    """
    try:
        _check_is_file(path)
        with path.open("rb") as file:
            return _detect(path, file, path.stat().st_size)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise BadInputError(f"{path}: no such file", hint="give the path of a checkpoint (.pt, .pth, .safetensors)")
    if path.is_dir():
        raise BadInputError(f"{path}: is a folder", hint="name the checkpoint file in it")
    if not path.is_file():
        raise BadInputError(f"{path}: is not a regular file")


def _detect(path: Path, file: BinaryIO, size_bytes: int) -> Container:
    head = file.read(32)
    if not head:
        raise BadInputError(f"{path}: is empty", hint="was it copied or downloaded completely?")
    if _is_safetensors(head, size_bytes):
        return Container.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, file, size_bytes)
        return Container.ZIP
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        _refuse_bytearrays(path, file)
        return Container.PICKLE
    raise _foreign(path, head)


def _is_safetensors(head: bytes, size_bytes: int) -> bool:
    header_bytes = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and header_bytes <= size_bytes - 8


def _foreign(path: Path, head: bytes) -> BadInputError:
    if _looks_like_onnx(head):
        return BadInputError(
            f"{path}: is an ONNX file; recovery trains the network and needs PyTorch weights", hint=SAVE_HINT
        )
    for magic, kind in _FOREIGN_MAGIC:
        if head.startswith(magic):
            return BadInputError(f"{path}: is {kind}, not a checkpoint", hint=SAVE_HINT)
    if head[8:9] == b"{":
        return BadInputError(
            f"{path}: a safetensors file that is cut short", hint="was it copied or downloaded completely?"
        )
    return BadInputError(
        f"{path}: is neither safetensors nor written by torch.save (it begins with {head[:8].hex(' ')})",
        hint=SAVE_HINT,
    )


def _looks_like_onnx(head: bytes) -> bool:
    """A ModelProto begins with ir_version (field 1, a small varint), then another of its fields 2 to 8."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 30 and head[2] in range(0x12, 0x48, 8)


def _check_zip(path: Path, file: BinaryIO, size_bytes: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _refuse_other_archives(path, {member.filename.partition("/")[2] for member in members})
            _refuse_bomb(path, sum(member.file_size for member in members), size_bytes)
            for member in members:
                if member.filename.endswith("/data.pkl") and b"\nbytearray\n" in archive.read(member):
                    raise _bytearray_error(path)
    except BadInputError:
        raise
    except Exception as error:  # hostile bytes raise anything
        raise BadInputError(
            f"{path}: the file is cut short or damaged ({error})",
            hint="was it copied or downloaded completely?",
        ) from error


def _refuse_other_archives(path: Path, names: set[str]) -> None:
    """`names` are relative to the archive's top folder."""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise BadInputError(f"{path}: is a TorchScript archive, which is not supported yet", hint=SAVE_HINT)
    if "archive_format" in names or any("exported_program" in name for name in names):
        raise BadInputError(f"{path}: is a torch.export archive, which is not supported yet", hint=SAVE_HINT)
    if "data.pkl" not in names:
        raise BadInputError(f"{path}: is a zip archive without a checkpoint inside", hint=SAVE_HINT)


def _refuse_bomb(path: Path, unpacked_bytes: int, size_bytes: int) -> None:
    if unpacked_bytes > MAX_EXPANSION * size_bytes + MAX_EXPANSION_FREE_BYTES:
        raise BadInputError(
            f"{path}: {size_bytes:,} bytes claim to unpack to {unpacked_bytes:,}: refused as a zip bomb",
            hint=SAVE_HINT,
        )


def _refuse_bytearrays(path: Path, file: BinaryIO) -> None:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"\nbytearray\n") >= 0:
            raise _bytearray_error(path)


def _bytearray_error(path: Path) -> BadInputError:
    """torch allows this one global although `bytearray(10**12)` takes the machine's memory."""
    return BadInputError(f"{path}: holds a Python object (builtins.bytearray), not only tensors", hint=SAVE_HINT)
