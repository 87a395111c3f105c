"""What Linux tells about the machine in small files: each is there or not, and may be forbidden. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_JETSON_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gb10b", re.IGNORECASE)


def text(path: Path) -> str | None:
    """A file's content without the white space around it; None when it cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip(" \t\r\n\0")
    except OSError:  # some drivers answer a read with an error of their own
        return None


def number(path: Path) -> float | None:
    """A file that holds one number; None when it does not."""
    content = text(path)
    try:
        return float(content) if content else None
    except ValueError:
        return None


def numbers(paths: Iterable[Path]) -> list[float]:
    """Those of `paths` that hold a number."""
    found = (number(path) for path in paths)
    return [value for value in found if value is not None]


def found(root: Path, pattern: str) -> tuple[Path, ...]:
    """What matches a pattern below `root`, sorted; nothing where a folder may not be listed."""
    try:
        return tuple(sorted(root.glob(pattern)))
    except OSError:
        return ()


def hwmon_named(root: Path, name: str) -> tuple[Path, ...]:
    """Folders of the sensors of one driver."""
    return tuple(folder for folder in found(root, "sys/class/hwmon/hwmon*") if text(folder / "name") == name)


def gpu_clock_folder(root: Path) -> Path | None:
    """Where a Jetson tells the clock of its GPU."""
    folders = found(root, "sys/class/devfreq/*")
    return next((folder for folder in folders if _JETSON_GPU.search(folder.name)), None)


def governor(root: Path, cores: Iterable[int]) -> str | None:
    """Of the clock of these cores; several, joined, where they differ."""
    files = (root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor" for core in cores)
    names = {name for name in map(text, files) if name}
    return ", ".join(sorted(names)) or None


def power_mode(root: Path) -> str | None:
    """Of a Jetson, as nvpmodel keeps it: "15W (2)"."""
    status = text(root / "var/lib/nvpmodel/status") or ""
    mode = re.search(r"pmode:(\d+)", status)
    if mode is None:
        return None
    number = int(mode[1])
    declared = text(root / "etc/nvpmodel.conf") or ""
    name = re.search(rf"<\s*POWER_MODEL\s+ID={number}\s+NAME=([^\s>]+)", declared)
    return f"{name[1]} ({number})" if name else str(number)


def cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that this process's control group may use; None where nothing bounds it."""
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(quotas, default=None)


def _quotas_v2(root: Path) -> list[float]:
    own = next((line[3:] for line in (text(root / "proc/self/cgroup") or "").splitlines() if line[:3] == "0::"), "/")
    top = root / "sys/fs/cgroup"
    folder = top / own.strip("/")
    files = [part / "cpu.max" for part in (folder, *folder.parents) if part == top or top in part.parents]
    quotas = []
    for file in files:
        parts = (text(file) or "").split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]):
            quotas.append(int(parts[0]) / int(parts[1]))
    return quotas


def _quotas_v1(root: Path) -> list[float]:
    folder = root / "sys/fs/cgroup/cpu"
    quota, period = (number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return [quota / period] if quota and period and quota > 0 else []
