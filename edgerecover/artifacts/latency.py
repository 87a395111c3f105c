"""How fast a file runs, and on what."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgerecover.artifacts.machine import Gpu


@dataclass(frozen=True)
class Host:
    """The machine a measurement was taken on."""

    machine: str
    cpu: str
    num_cores: int
    system: str
    board: str = ""
    """/proc/device-tree/model where there is one (Jetson, Raspberry Pi)."""
    isa: tuple[str, ...] = ()
    """Which of `machine.ISA` the processor has; empty where the system does not tell."""
    gpus: tuple[Gpu, ...] = ()
    l4t: str = ""
    """Release of Jetson Linux, such as "36.4.3"; empty elsewhere."""


@dataclass(frozen=True)
class Latency:
    """Single-stream latency of the exported file, raw: statistics are derived, warm-up is kept apart."""

    scope: str
    runtime: str
    """"onnxruntime 1.31.1"."""
    provider: str
    """The execution provider that ran, read from the session, not the one asked for."""
    nodes_by_provider: dict[str, int]
    num_threads: int
    batch: int
    host: Host
    host_is_target: bool
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    load_ms: float
    memory_before_bytes: int
    memory_peak_bytes: int

    def percentile_ms(self, percent: float) -> float:
        """Nearest-rank percentile of the raw samples."""
        ordered = sorted(self.samples_ms)
        rank = max(1, math.ceil(percent * len(ordered) / 100))
        return ordered[rank - 1]

    def percentile_interval_ms(self, percent: float, z: float = 1.959964) -> tuple[float, float]:
        """95 % interval of that percentile from order statistics (David & Nagaraja, Order Statistics, 7.1)."""
        ordered = sorted(self.samples_ms)
        n, q = len(ordered), percent / 100
        half = z * math.sqrt(n * q * (1 - q))
        low = min(n, max(1, math.floor(n * q - half)))
        high = min(n, max(1, math.ceil(n * q + half) + 1))
        return ordered[low - 1], ordered[high - 1]

    @property
    def memory_model_bytes(self) -> int:
        """Peak memory that loading and running the model added to a bare process."""
        return max(0, self.memory_peak_bytes - self.memory_before_bytes)
