"""How fast a file runs, and on what."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from statistics import median

from edgerecover.artifacts.bootstrap import nearest_rank, percentile_interval, ratio_interval
from edgerecover.artifacts.machine import Gpu

COVERAGE = 0.95
"""Of every interval here."""
_SCOPE = ("runtime", "provider", "batch", "num_threads", "cores", "copies", "cuda_graph", "scope")
"""Fields without whose equality two latencies do not compare."""


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
class Fingerprint:
    """What about a machine moves its latencies: two baselines compare where these agree."""

    facts: dict[str, str]
    """By name for people: "cpu", "cores", "instructions", "governor", "kernel", "power mode", "onnxruntime"."""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that are the same where all facts are."""
        text = json.dumps(self.facts, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, earlier: Fingerprint) -> tuple[str, ...]:
        """For people, a line per fact: "governor: powersave, was performance"."""
        names = sorted(set(self.facts) | set(earlier.facts))
        return tuple(
            f"{name}: {self.facts.get(name, 'not known')}, was {earlier.facts.get(name, 'not known')}"
            for name in names
            if self.facts.get(name) != earlier.facts.get(name)
        )


@dataclass(frozen=True)
class Conditions:
    """What the machine did while it measured; None where it does not tell."""

    num_readings: int
    """Taken before, after each round, and at the end."""
    governor: str | None = None
    """Of the CPU's clock: "performance", "powersave", "schedutil"."""
    power_mode: str | None = None
    """Of a Jetson: "MAXN (0)"."""
    clocks_locked: bool | None = None
    """Lowest and highest clock of CPU and GPU are the same, as `jetson_clocks` leaves them."""
    cpu_quota: float | None = None
    """Cores' worth of time that the control group may use."""
    load_before: float | None = None
    """Average number of running processes in the minute before."""
    busy_elsewhere: float | None = None
    """Cores' worth of time that other processes took meanwhile."""
    stolen: float | None = None
    """Fraction of the time that the hypervisor gave to other guests."""
    cpu_mhz_lowest: float | None = None
    cpu_mhz_highest: float | None = None
    """Means over the cores in use, lowest and highest reading."""
    cpu_mhz_limit: float | None = None
    """What the fastest of them can do."""
    gpu_mhz_lowest: float | None = None
    gpu_mhz_highest: float | None = None
    temperature_before_c: float | None = None
    temperature_peak_c: float | None = None
    """Of the hottest zone."""
    throttled: tuple[str, ...] | None = None
    """Reasons for which clocks were held down at any reading; empty: none, as far as the machine tells."""


@dataclass(frozen=True)
class Energy:
    """What the queries cost, read from a sensor."""

    mj_per_query: float
    """Millijoules, everything that the sensor sees included."""
    source: str
    """Which sensor, and what it sees: "RAPL package-0", "INA3221 VDD_IN, the whole board"."""
    num_queries: int


@dataclass(frozen=True)
class Ratio:
    """How many times slower one is than another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_settled(self) -> bool:
        """The interval lies on one side of 1."""
        return self.low > 1 or self.high < 1


@dataclass(frozen=True)
class Latency:
    """Single-stream latency of the exported file, raw: statistics are derived, warm-up is kept apart."""

    scope: str
    """What one query is: "one onnxruntime call, images in and scores out in host memory"."""
    runtime: str
    """"onnxruntime 1.31.1"."""
    provider: str
    """The execution provider or device that ran, read from the session, not the one asked for."""
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
    round_sizes: tuple[int, ...] = ()
    """How many of the samples belong to each round of the race, in order."""
    settled: bool = True
    """The warm-up ended because queries got no faster, not because it had lasted long enough."""
    cores: tuple[int, ...] = ()
    """The process was held on these; empty: on none in particular."""
    copies: bool = False
    """Copies to and from a device's own memory are inside."""
    cuda_graph: bool = False
    """A captured CUDA graph was replayed."""
    notes: tuple[str, ...] = ()
    """What the runtime decided that the numbers depend on, for people."""
    conditions: Conditions | None = None
    fingerprint: Fingerprint | None = None
    energy: Energy | None = None
    """None where no sensor can be read."""

    def percentile_ms(self, percent: float) -> float:
        """Nearest-rank percentile of the raw samples."""
        return nearest_rank(self.samples_ms, percent)

    def percentile_interval_ms(self, percent: float) -> tuple[float, float]:
        """95 % interval of that percentile: block bootstrap over the rounds."""
        return percentile_interval(self.samples_ms, self.round_sizes, percent, COVERAGE)

    def slower_than(self, other: Latency) -> Ratio:
        """How many times longer a typical query takes than the other's; paired by round where both are of one race."""
        return Ratio(*ratio_interval(self.samples_ms, self.round_sizes, other.samples_ms, other.round_sizes, COVERAGE))

    @property
    def drift(self) -> float:
        """Median of the last third of the samples divided by that of the first: 1.1 has slowed down by a tenth."""
        third = max(1, len(self.samples_ms) // 3)
        first = median(self.samples_ms[:third])
        return median(self.samples_ms[-third:]) / first if first else 1.0

    @property
    def memory_model_bytes(self) -> int:
        """Peak memory that loading and running the model added to a bare process."""
        return max(0, self.memory_peak_bytes - self.memory_before_bytes)

    def scope_differences(self, other: Latency) -> tuple[str, ...]:
        """For people, why the two do not measure the same thing: "batch: 1, was 8"; empty where they do."""
        return tuple(
            f"{name.replace('_', ' ')}: {_describe(getattr(self, name))}, was {_describe(getattr(other, name))}"
            for name in _SCOPE
            if getattr(self, name) != getattr(other, name)
        )


def _describe(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "any"
    return str(value)
