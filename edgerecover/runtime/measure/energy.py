"""Energy of a block of queries, from whichever sensor the machine lets one read. Stdlib only.

Sensors see more than one process: what they read is what the machine took while it answered, its idle share included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgerecover.runtime.machine import sysfs
from edgerecover.runtime.machine.nvml import Nvml

_WHOLE_BOARD = ("VDD_IN",)
_WHOLE_AGX = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""On boards without a rail for all, these together are."""
_SAMPLE_EVERY_S = 0.02


class Meter(Protocol):
    """Something that tells the energy between two moments."""

    source: str
    """Which sensor, and what it sees."""

    def start(self) -> None:
        """From now on it counts."""

    def stop_mj(self) -> float:
        """Millijoules since `start`; 0 where a reading failed."""


def meter_here(root: Path = Path("/"), nvml: Nvml | None = None) -> Meter | None:
    """The nearest sensor to what is measured: the GPU at work, a Jetson's board, the processor; None: none."""
    if nvml is not None and nvml.energy_mj() is not None:
        return _Counter(nvml.energy_mj, f"NVML, {nvml.name() or 'the GPU'}", wraps_at_mj=0.0)
    return _rails(root) or _rapl(root)


class _Counter:
    """Energy from counters that only rise, and wrap around."""

    def __init__(self, read_mj: Callable[[], float | None], source: str, wraps_at_mj: float) -> None:
        self.source = source
        self._read_mj, self._wraps_at_mj = read_mj, wraps_at_mj
        self._before_mj: float | None = None

    def start(self) -> None:
        self._before_mj = self._read_mj()

    def stop_mj(self) -> float:
        after_mj = self._read_mj()
        if after_mj is None or self._before_mj is None:
            return 0.0
        used_mj = after_mj - self._before_mj
        return used_mj if used_mj >= 0 else max(0.0, used_mj + self._wraps_at_mj)


class _Sum:
    """Several meters that see different parts."""

    def __init__(self, parts: list[_Counter], source: str) -> None:
        self._parts, self.source = parts, source

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def stop_mj(self) -> float:
        return sum(part.stop_mj() for part in self._parts)


def _rapl(root: Path) -> Meter | None:
    """Intel's and AMD's running average power limit: one counter per package (powercap, Linux documentation)."""
    parts, names = [], []
    for folder in sysfs.found(root, "sys/class/powercap/intel-rapl:*"):
        name = sysfs.text(folder / "name") or ""
        if not name.startswith("package") or sysfs.number(folder / "energy_uj") is None:
            continue
        wraps_at_mj = (sysfs.number(folder / "max_energy_range_uj") or 0.0) / 1e3
        parts.append(_Counter(_microjoules(folder / "energy_uj"), name, wraps_at_mj))
        names.append(name)
    return _Sum(parts, f"RAPL, {', '.join(names)}") if parts else None


def _microjoules(file: Path) -> Callable[[], float | None]:
    def read_mj() -> float | None:
        value = sysfs.number(file)
        return None if value is None else value / 1e3

    return read_mj


@dataclass(frozen=True)
class _Rail:
    name: str
    millivolts: Path
    milliamperes: Path

    def milliwatts(self) -> float | None:
        volts, amperes = sysfs.number(self.millivolts), sysfs.number(self.milliamperes)
        return None if volts is None or amperes is None else volts * amperes / 1e3


class _Sampled:
    """Energy as mean power times duration: a Jetson's sensors tell the power of the moment."""

    def __init__(self, rails: list[_Rail], source: str) -> None:
        self.source = source
        self._rails = rails
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._milliwatts: list[float] = []
        self._started_s = 0.0

    def start(self) -> None:
        self._milliwatts.clear()
        self._stopping.clear()
        self._started_s = time.monotonic()
        self._sample()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def stop_mj(self) -> float:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()
        elapsed_s = time.monotonic() - self._started_s
        return elapsed_s * sum(self._milliwatts) / len(self._milliwatts) if self._milliwatts else 0.0

    def _go_on(self) -> None:
        while not self._stopping.wait(_SAMPLE_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        parts = [rail.milliwatts() for rail in self._rails]
        if all(part is not None for part in parts):
            self._milliwatts.append(sum(part for part in parts if part is not None))


def _rails(root: Path) -> Meter | None:
    """A Jetson's INA3221 monitors (hwmon): in*_input in mV, curr*_input in mA, names in in*_label."""
    rails = {}
    for folder in sysfs.hwmon_named(root, "ina3221"):
        for label in sysfs.found(folder, "in*_label"):
            channel = label.name.removeprefix("in").removesuffix("_label")
            rail = _Rail(sysfs.text(label) or "", folder / f"in{channel}_input", folder / f"curr{channel}_input")
            if rail.milliwatts() is not None:
                rails[rail.name] = rail
    for names in (_WHOLE_BOARD, _WHOLE_AGX):
        if all(name in rails for name in names):
            return _Sampled([rails[name] for name in names], f"INA3221 {' + '.join(names)}, the whole board")
    return None
