"""What the machine does while it measures: clocks, heat, throttling, and who else is at work.

Everything is optional: what a machine does not tell stays None. The readings are taken between blocks, never inside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgerecover.artifacts import Conditions
from edgerecover.runtime.machine import sysfs
from edgerecover.runtime.machine.nvml import Nvml

_THROTTLED_PI = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of what a Raspberry Pi's firmware answers to get_throttled; 16 higher: it has been so since the start."""
_COOLING = ("cpufreq", "devfreq", "processor")
"""Cooling devices that cool by slowing down; the others are fans, or count what is normal."""


@dataclass(frozen=True)
class _Reading:
    """The machine at one moment."""

    at_s: float
    busy_s: float | None
    """Processor time that all processes have taken since the start, on the cores in use."""
    stolen_s: float | None
    total_s: float | None
    cpu_mhz: float | None
    gpu_mhz: float | None
    temperature_c: float | None
    throttled: frozenset[str]
    throttle_counts: dict[str, float]


class Watch:
    """Readings of one measurement. Ask for `conditions` at its end."""

    def __init__(
        self,
        root: Path = Path("/"),
        cores: Sequence[int] = (),
        nvml: Nvml | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find what this machine tells.

        Args:
            root: of /proc, /sys, /var and /etc.
            cores: those in use; empty: all that this process may use.
            nvml: the GPU at work, where there is one.
            clock_s: for the time between readings.
        """
        self._root, self._cores, self._nvml, self._clock_s = root, tuple(cores), nvml, clock_s
        in_use = self._cores or _allowed_cores()
        folders = [root / f"sys/devices/system/cpu/cpu{core}" for core in in_use]
        self._clocks = [folder / "cpufreq/scaling_cur_freq" for folder in folders]
        self._gpu = sysfs.gpu_clock_folder(root)
        self._zones = (
            *sysfs.found(root, "sys/class/thermal/thermal_zone*/temp"),
            *sysfs.found(root, "sys/class/hwmon/hwmon*/temp*_input"),
        )
        self._counters = (
            *sysfs.found(root, "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"),
            *sysfs.found(root, "sys/class/hwmon/hwmon*/oc*_event_cnt"),
        )
        self._pi = next(iter(sysfs.found(root, "sys/devices/platform/soc*/*firmware/get_throttled")), None)
        self._under_voltage = tuple(folder / "in0_lcrit_alarm" for folder in sysfs.hwmon_named(root, "rpi_volt"))
        self._cooling = _cooling_devices(root)
        limits = sysfs.numbers(folder / "cpufreq/cpuinfo_max_freq" for folder in folders)
        bounds = [(folder / "cpufreq/scaling_min_freq", folder / "cpufreq/scaling_max_freq") for folder in folders]
        if self._gpu is not None:
            bounds.append((self._gpu / "min_freq", self._gpu / "max_freq"))
        self._steady = {
            "governor": sysfs.governor(root, in_use),
            "power_mode": sysfs.power_mode(root),
            "cpu_quota": sysfs.cpu_quota(root),
            "load_before": _load(root),
            "cpu_mhz_limit": max(limits) / 1e3 if limits else None,
            "clocks_locked": _are_locked(bounds),
        }
        self._readings: list[_Reading] = []
        self._ours_s = 0.0
        self._self_before_s = time.process_time()

    def ours(self, cpu_s: float) -> None:
        """Count processor time that a measured process took as no one else's."""
        self._ours_s += cpu_s

    def read(self) -> None:
        """Take one reading."""
        root = self._root
        ticks = _ticks(root, self._cores)
        clocks = sysfs.numbers(self._clocks)
        zones = [value / 1e3 for value in sysfs.numbers(self._zones)]
        counts = {str(file): value for file in self._counters if (value := sysfs.number(file)) is not None}
        gpu_hz = sysfs.number(self._gpu / "cur_freq") if self._gpu is not None else None
        gpu_mhz = gpu_hz / 1e6 if gpu_hz is not None else None
        throttled = self._throttled_now()
        if self._nvml is not None:
            gpu_mhz = self._nvml.clock_mhz()
            throttled |= self._nvml.throttle_reasons()
            zones += [value for value in (self._nvml.temperature_c(),) if value is not None]
        self._readings.append(
            _Reading(
                at_s=self._clock_s(),
                busy_s=ticks[0] if ticks else None,
                stolen_s=ticks[1] if ticks else None,
                total_s=ticks[2] if ticks else None,
                cpu_mhz=sum(clocks) / len(clocks) / 1e3 if clocks else None,
                gpu_mhz=gpu_mhz,
                # Zones that are off answer nonsense such as -256 degrees.
                temperature_c=max((zone for zone in zones if 0 < zone < 150), default=None),
                throttled=frozenset(throttled),
                throttle_counts=counts,
            )
        )

    def _throttled_now(self) -> set[str]:
        reasons = set()
        if self._pi is not None and (word := sysfs.text(self._pi)):
            reasons |= _pi_reasons(word)
        if any(sysfs.numbers(self._under_voltage)):
            reasons.add(_THROTTLED_PI[0])
        for kind, state in self._cooling:
            if (sysfs.number(state) or 0) > 0:
                reasons.add(f"cooled by {kind}")
        return reasons

    def conditions(self) -> Conditions:
        """What the readings say together."""
        readings = self._readings
        if not readings:
            return Conditions(num_readings=0)
        first, last = readings[0], readings[-1]
        clocks = [reading.cpu_mhz for reading in readings if reading.cpu_mhz is not None]
        gpu_clocks = [reading.gpu_mhz for reading in readings if reading.gpu_mhz is not None]
        zones = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
        reasons = set().union(*(reading.throttled for reading in readings))
        reasons |= {
            _counter_reason(file)
            for file, count in last.throttle_counts.items()
            if count > first.throttle_counts.get(file, count)
        }
        tells = bool(
            self._pi or self._under_voltage or self._cooling or first.throttle_counts or self._nvml is not None
        )
        return Conditions(
            num_readings=len(readings),
            busy_elsewhere=self._busy_elsewhere(first, last),
            stolen=_share(first.stolen_s, last.stolen_s, first.total_s, last.total_s),
            cpu_mhz_lowest=min(clocks, default=None),
            cpu_mhz_highest=max(clocks, default=None),
            gpu_mhz_lowest=min(gpu_clocks, default=None),
            gpu_mhz_highest=max(gpu_clocks, default=None),
            temperature_before_c=first.temperature_c,
            temperature_peak_c=max(zones, default=None),
            throttled=tuple(sorted(reasons)) if tells else None,
            **self._steady,  # type: ignore[arg-type]
        )

    def _busy_elsewhere(self, first: _Reading, last: _Reading) -> float | None:
        elapsed_s = last.at_s - first.at_s
        if first.busy_s is None or last.busy_s is None or elapsed_s <= 0:
            return None
        # This process waits on some core, of which only those in use are counted.
        ours_s = self._ours_s + (0.0 if self._cores else time.process_time() - self._self_before_s)
        return max(0.0, (last.busy_s - first.busy_s - ours_s) / elapsed_s)


def _allowed_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _load(root: Path) -> float | None:
    parts = (sysfs.text(root / "proc/loadavg") or "").split()
    try:
        return float(parts[0])
    except (IndexError, ValueError):
        return None


def _ticks(root: Path, cores: Sequence[int]) -> tuple[float, float, float] | None:
    """Busy, stolen and total seconds since the start, over `cores` or all (proc_stat(5))."""
    wanted = {f"cpu{core}" for core in cores} or {"cpu"}
    rows = [line.split() for line in (sysfs.text(root / "proc/stat") or "").splitlines()]
    try:
        counts = [[int(value) for value in row[1:9]] for row in rows if row and row[0] in wanted]
    except ValueError:
        return None
    if not counts or any(len(row) < 8 for row in counts):
        return None
    per_s = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    user, nice, system, idle, iowait, irq, softirq, steal = (sum(column) for column in zip(*counts, strict=True))
    busy = user + nice + system + irq + softirq
    return busy / per_s, steal / per_s, (busy + steal + idle + iowait) / per_s


def _share(
    before: float | None, after: float | None, total_before: float | None, total_after: float | None
) -> float | None:
    if before is None or after is None or total_before is None or total_after is None or total_after <= total_before:
        return None
    return max(0.0, after - before) / (total_after - total_before)


def _are_locked(bounds: Sequence[tuple[Path, Path]]) -> bool | None:
    pairs = [(sysfs.number(low), sysfs.number(high)) for low, high in bounds]
    known = [(low, high) for low, high in pairs if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None


def _cooling_devices(root: Path) -> tuple[tuple[str, Path], ...]:
    folders = sysfs.found(root, "sys/class/thermal/cooling_device*")
    named = ((sysfs.text(folder / "type") or "", folder / "cur_state") for folder in folders)
    return tuple((kind, state) for kind, state in named if _slows_down(kind.lower()))


def _slows_down(kind: str) -> bool:
    return kind.startswith(_COOLING) or kind.endswith("throttle-alert")


def _pi_reasons(word: str) -> set[str]:
    """Of the firmware's word in hexadecimal; only what holds now: the high bits tell of any time since the start."""
    try:
        bits = int(word.rpartition("=")[2], 16)
    except ValueError:
        return set()
    return {reason for bit, reason in _THROTTLED_PI.items() if bits >> bit & 1}


def _counter_reason(file: str) -> str:
    return "over-current" if Path(file).name.startswith("oc") else "CPU too hot"
