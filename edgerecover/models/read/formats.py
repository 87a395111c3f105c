"""Detecting a checkpoint's format from its content, and refusing files that unpack to too much. Stdlib only."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import BinaryIO

from edgerecover.errors import UNREADABLE_HINT, BadInputError
from edgerecover.models.read.folders import DISTRIBUTED_METADATA
from edgerecover.models.read.records import printable
from edgerecover.models.read.zips import Archive, ZipBombError, ZipError

SAVE_HINT = 'save the weights alone: torch.save(model.state_dict(), "model.pt")'
COPY_HINT = "was the file copied or downloaded completely?"

UNPACK_HINT = "unpack it and give the checkpoint inside"
_FOREIGN_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file, of weights quantised for llama.cpp"),
    (b"ptrt", "a TensorRT engine"),
    (b"ftrt", "a TensorRT engine"),
)
_PACKED_MAGIC = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"Rar!", "a RAR archive"),
)
_DOWNLOAD_HINT = "download the file itself: a server may ask for a login or a confirmation first"
_NOT_FETCHED = (
    (b"version https://git-lfs", "a Git LFS pointer, not the checkpoint it points to", "fetch the file: git lfs pull"),
    (b"<!doctype", "a web page, not a checkpoint", _DOWNLOAD_HINT),
    (b"<html", "a web page, not a checkpoint", _DOWNLOAD_HINT),
)
"""First bytes in lower case, what the file is, and what to do."""
_FOREIGN_SUFFIXES = {
    ".h5": "a file of Keras", ".hdf5": "a file of Keras", ".keras": "a file of Keras", ".pb": "a graph of TensorFlow",
    ".tflite": "a file of TensorFlow Lite", ".mlmodel": "a file of Core ML", ".xml": "a graph of OpenVINO",
    ".msgpack": "a file of Flax", ".npz": "an archive of NumPy arrays", ".pdparams": "a file of Paddle",
}  # fmt: skip
_ZIP_MAGIC = b"PK\x03\x04"
_TAR_OFFSET = 257
_HEAD_BYTES = 264
_TFLITE_MAGIC = b"TFL3"
FOREIGN_HINT = (
    "recovery trains the network and needs its PyTorch weights: the file that it was converted from; "
    "`edgerecover validate` judges ONNX files"
)


class Container(Enum):
    """The kinds of file that weights come in."""

    SAFETENSORS = "safetensors"
    ZIP = "zip"
    """What torch.save writes since torch 1.6."""
    PICKLE = "pickle"
    """What torch.save wrote before torch 1.6: pickles followed by raw storages. Also what pickle.dump writes."""
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export"
    ONNX = "ONNX"
    SHARDS = "shards"
    """Hugging Face's index of several safetensors or bin files."""
    DISTRIBUTED = "torch.distributed.checkpoint"
    """A folder with `.metadata` and `.distcp` files."""


def detect(path: Path) -> Container:
    """Detect a checkpoint's format from its content.

    Raises:
        BadInputError: the file is missing, a folder, unreadable, empty, truncated, a zip bomb, or not a checkpoint.
    """
    try:
        if (path / DISTRIBUTED_METADATA).is_file():
            return Container.DISTRIBUTED
        _check_is_file(path)
        with path.open("rb") as file:
            return _detect(path, file, path.stat().st_size)
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise BadInputError(f"{path}: no such file", hint="give the path of a checkpoint (.pt, .pth, .safetensors)")
    if path.is_dir():
        raise BadInputError(f"{path}: is a folder", hint="give the checkpoint file in it")
    if not path.is_file():
        raise BadInputError(f"{path}: is not a regular file", hint="give a file, or the folder of a checkpoint")


def _detect(path: Path, file: BinaryIO, size_bytes: int) -> Container:
    head = file.read(_HEAD_BYTES)
    if not head:
        raise BadInputError(f"{path}: is empty", hint=COPY_HINT)
    kind = _FOREIGN_SUFFIXES.get(path.suffix.lower())
    if kind and not _is_of_torch(head, file, size_bytes):
        raise BadInputError(f"{path}: is {kind}, not a PyTorch checkpoint", hint=FOREIGN_HINT)
    if head[4:8] == _TFLITE_MAGIC:
        raise BadInputError(f"{path}: is a file of TensorFlow Lite, not a PyTorch checkpoint", hint=FOREIGN_HINT)
    if _is_safetensors(head, size_bytes):
        return Container.SAFETENSORS
    if head.startswith(_ZIP_MAGIC):
        return _kind_of_zip(path, file, size_bytes)
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return Container.PICKLE
    if _looks_like_onnx(head):
        return Container.ONNX
    if path.name.endswith(".index.json") and head[:1] == b"{":
        return Container.SHARDS
    raise _foreign(path, head)


def _is_of_torch(head: bytes, file: BinaryIO, size_bytes: int) -> bool:
    """Whether a file with the name of another framework's has the content of torch.save or safetensors."""
    if not head.startswith(_ZIP_MAGIC):
        return _is_safetensors(head, size_bytes)
    try:
        return "data.pkl" in Archive(file, size_bytes).names
    except ZipError:
        return False


def _is_safetensors(head: bytes, size_bytes: int) -> bool:
    header_bytes = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and header_bytes <= size_bytes - 8


def _foreign(path: Path, head: bytes) -> BadInputError:
    for magic, kind in _FOREIGN_MAGIC:
        if head.startswith(magic):
            return BadInputError(f"{path}: is {kind}, not a checkpoint", hint=SAVE_HINT)
    for magic, kind in _PACKED_MAGIC:
        if head.startswith(magic):
            return BadInputError(f"{path}: is {kind}, not a checkpoint", hint=UNPACK_HINT)
    if head[_TAR_OFFSET:].startswith(b"ustar"):
        return BadInputError(f"{path}: is a tar archive, not a checkpoint", hint=UNPACK_HINT)
    for magic, kind, hint in _NOT_FETCHED:
        if head.lstrip().lower().startswith(magic):
            return BadInputError(f"{path}: is {kind}", hint=hint)
    if head[8:9] == b"{":
        return BadInputError(f"{path}: is a truncated safetensors file", hint=COPY_HINT)
    return BadInputError(
        f"{path}: is neither a safetensors file nor one written by torch.save (it begins with {head[:8].hex(' ')})",
        hint=SAVE_HINT,
    )


def _looks_like_onnx(head: bytes) -> bool:
    """A ModelProto begins with ir_version (field 1, a small varint), then another of its fields 2 to 8."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 30 and head[2] in range(0x12, 0x48, 8)


def onnx_error(path: Path) -> BadInputError:
    """The error that says why an ONNX file cannot be recovered."""
    return BadInputError(
        f"{path}: is an ONNX file; recovery trains the network and needs PyTorch weights",
        hint=f"`edgerecover validate` judges ONNX files; for recovery, {SAVE_HINT}",
    )


def _kind_of_zip(path: Path, file: BinaryIO, size_bytes: int) -> Container:
    try:
        names = Archive(file, size_bytes).names
    except ZipBombError as bomb:
        raise BadInputError(f"{path}: {bomb}", hint=SAVE_HINT) from bomb
    except ZipError as fault:
        raise BadInputError(f"{path}: the file is truncated or damaged ({fault})", hint=COPY_HINT) from fault
    if is_torchscript(names):
        return Container.TORCHSCRIPT
    if is_exported(names):
        return Container.EXPORTED
    if "data.pkl" not in names:
        raise BadInputError(f"{path}: is {_words_of_zip(names)}", hint=_hint_of_zip(names))
    return Container.ZIP


def _words_of_zip(names: tuple[str, ...]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays, not a PyTorch checkpoint"
    if any(name.startswith(".data/") for name in names):
        return "a torch.package archive, which cannot be read without running its code"
    if inside := _checkpoint_in(names):
        return f"a zip archive of files, with {printable(inside)!r} inside"
    return "a zip archive without a checkpoint inside"


def _hint_of_zip(names: tuple[str, ...]) -> str:
    is_package = any(name.startswith(".data/") for name in names)
    return UNPACK_HINT if _checkpoint_in(names) and not is_package else SAVE_HINT


def _checkpoint_in(names: tuple[str, ...]) -> str | None:
    """The first member whose name is that of a checkpoint."""
    suffixes = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".tar", ".pkl")
    return next((name for name in names if name.endswith(suffixes)), None)


def is_torchscript(names: tuple[str, ...]) -> bool:
    """Whether a zip with these members was written by torch.jit.save."""
    return "constants.pkl" in names or any(name.startswith("code/") for name in names)


def is_exported(names: tuple[str, ...]) -> bool:
    """Whether a zip with these members was written by torch.export.save or AOTInductor."""
    return "archive_format" in names or any("exported_program" in name for name in names)
