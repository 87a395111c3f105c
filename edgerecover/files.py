"""Writing files whole or not at all. Stdlib, and numpy where an array is given."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: readers see the old file or the new one, never half of it.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
