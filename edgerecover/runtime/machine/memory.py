"""Memory of this machine and process: how much is free, the peak so far, a bound, and what to do with freed blocks.

Stdlib only; what is free, and the peak on Windows, come from psutil.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BELOW_BYTES = 1 << 30
_LARGE_BYTES = 1 << 23
_keeps = False
"""Whether `keep_freed_memory` has been called with success."""
_UNBOUNDED_BYTES = 1 << 60
"""A limit from here on means none in version 1 of control groups."""


# --- what is free --------------------------------------------------------------------------------------------


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process may still allocate: the machine's free memory, or less where a control group says so.

    Args:
        root: of /proc and /sys.
    """
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group around this process that has a limit; cached pages of files count as free."""
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


# --- what was used at most -----------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Largest resident size so far.

    Linux: VmHWM, which restarts at exec. `ru_maxrss` does not: there a child inherits its parent's.
    """
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    return _from_proc_status() or _from_rusage()


def _from_proc_status() -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(kib) * 1024 for _, kib, _ in lines), None)


def _from_rusage() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- what may be used ----------------------------------------------------------------------------------------


def bound_memory(*, address_space: bool = True) -> None:
    """Let this process take no more memory than the machine has, and leave no core file.

    Args:
        address_space: False bounds nothing but the core file: CUDA maps many times the memory that it uses.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not address_space:
        return
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = available if hard == resource.RLIM_INFINITY else min(available, hard)
    if soft == resource.RLIM_INFINITY or soft > wanted:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


# --- what becomes of freed blocks ----------------------------------------------------------------------------


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 1 GiB a block; whether the allocator has such a setting.

    glibc returns blocks above 32 MiB to the system at once and gets them again as pages of zeros, which costs up to a
    third of a step's CPU time on large images. Call `release_freed_memory` between two stages.
    """
    global _keeps
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(threshold, _KEPT_BELOW_BYTES) == 1 for threshold in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    _keeps = all(done)
    return _keeps


@contextmanager
def returning_large_blocks() -> Iterator[None]:
    """Inside the block, what is freed of 8 MiB or more goes back to the system at once.

    For a few passes with tensors of hundreds of megabytes, of which no two have the same size: kept, they lie in memory
    with gaps into which the next one does not fit.
    """
    if not _keeps:
        yield
        return
    release_freed_memory()
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    try:
        yield
    finally:
        keep_freed_memory()


def release_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept, so that it does not count in the peak of the next stage."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
