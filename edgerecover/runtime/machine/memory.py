"""Peak memory of this process, from the operating system. Stdlib only (psutil on Windows)."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_bytes() -> int:
    """Largest resident size so far.

    Linux: VmHWM, which starts anew at exec. `ru_maxrss` does not: there a child inherits its parent's.
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
