"""Memory of this machine: how much is free, inside a container too, and keeping what is freed for the next step."""

from __future__ import annotations

import ctypes
import math
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BELOW_BYTES = 1 << 30
_JUDGED_AT_ONCE = 128
_JUDGED_PIXELS = 16 * 224 * 224
"""At most: what a first layer makes of more is hundreds of megabytes."""
_UNBOUNDED_BYTES = 1 << 60
"""From here on, version 1 of control groups means that there is no limit."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 1 GiB a block; whether the system's allocator can be told so.

    glibc gives blocks above 32 MiB back at once, and gets them again as pages of zeros: up to a third of the CPU time
    of a step over large images. `release_freed_memory` is for between two stages.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(threshold, _KEPT_BELOW_BYTES) == 1 for threshold in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    return all(done)


def release_freed_memory() -> None:
    """Give back what `keep_freed_memory` kept: one stage's need is no part of the next one's peak."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def judged_at_once(shape_CHW: tuple[int, ...]) -> int:
    """How many images go through a network at once where nothing is learnt: fewer where they are large."""
    return max(1, min(_JUDGED_AT_ONCE, _JUDGED_PIXELS // math.prod(shape_CHW[1:])))


def free_bytes(root: Path = Path("/")) -> int:
    """What this process may still allocate: free memory of the machine, or less where a control group allows less."""
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """In each control group around this process that has a limit; what it keeps of files is free too."""
    yield from _left_v2(root)
    folder = root / "sys/fs/cgroup/memory"
    yield from _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left_v2(root: Path) -> Iterator[int]:
    own = next((line[3:] for line in _text(root / "proc/self/cgroup").splitlines() if line[:3] == "0::"), "/")
    top = root / "sys/fs/cgroup"
    folder = top / own.strip("/")
    for part in (folder, *folder.parents):
        if part == top or top in part.parents:
            yield from _left(part, "memory.max", "memory.current", "inactive_file")


def _left(folder: Path, limit_name: str, used_name: str, files_name: str) -> Iterator[int]:
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if limit.isdigit() and used.isdigit() and int(limit) < _UNBOUNDED_BYTES:
        numbers = dict(line.split(None, 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
        yield int(limit) - int(used) + int(numbers.get(files_name, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
