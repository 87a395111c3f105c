"""Writing files and folders whole or not at all, and arrays as files. Stdlib, and numpy where an array is given."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def replace_file(path: Path, content: bytes | Path) -> None:
    """Put `content` at `path` in one step: readers see the old file or the new one, never half of it.

    Nothing is synced, so a power failure can still leave an empty file: for files that can be made again.

    Args:
        path: in a folder that exists.
        content: bytes, or a file to copy.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, temporary)
        else:
            temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --- what a user keeps: built beside its place, synced, then renamed into it -----------------------------------


@contextlib.contextmanager
def building_beside(out: Path) -> Iterator[Path]:
    """A free name beside `out` for a file or folder under way; `move_into_place` puts it at `out`.

    What is still there when the block ends is removed, and so are parents that were made for it and are empty.

    Raises:
        OSError: the parents cannot be made.
    """
    parent = out.absolute().parent
    existing = nearest_existing(parent)
    building = _sibling(out, "partial")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        yield building
    finally:
        if building.is_dir():
            shutil.rmtree(building, ignore_errors=True)
        building.unlink(missing_ok=True)
        _remove_empty(parent, until=existing)


def move_into_place(building: Path, out: Path) -> None:
    """Make a finished file or folder durable and let it take the place of what was at `out`.

    Raises:
        OSError: it cannot be synced or renamed; what was at `out` is there as before.
    """
    _sync_all(building)
    if not out.exists() or building.is_file():
        building.replace(out)
        return
    earlier = _sibling(out, "old")
    out.rename(earlier)
    try:
        building.rename(out)
    except OSError:
        earlier.rename(out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def nearest_existing(folder: Path) -> Path:
    """`folder`, or the first of its parents that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _sibling(out: Path, suffix: str) -> Path:
    """A free name beside `out`; `tempfile` would close the folder to other users."""
    return out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.{suffix}")


def _remove_empty(folder: Path, until: Path) -> None:
    while folder != until:
        try:
            folder.rmdir()
        except OSError:  # not empty: what was built is there
            return
        folder = folder.parent


def _sync_all(root: Path) -> None:
    """Files, and where the system opens folders at all, the names in them."""
    if root.is_file():
        _sync(root, os.O_RDWR)
    for folder, _, names in os.walk(root):
        for name in names:
            _sync(Path(folder, name), os.O_RDWR)
        if os.name != "nt":
            _sync(Path(folder), os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- arrays and sizes -------------------------------------------------------------------------------------------


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array as the content of a .npy file; the same array gives the same bytes."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def compressed_bytes(path: Path) -> int:
    """How large a file is once gzip (level 6) has been over it: what it takes to send it."""
    compressor, total = zlib.compressobj(6), 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total += len(compressor.compress(piece))
    return total + len(compressor.flush())
