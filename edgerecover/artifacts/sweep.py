"""What a sweep found: the same network pruned and recovered in several ways, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts.exported import Precision
from edgerecover.artifacts.judged import GateStatus, Proportion
from edgerecover.artifacts.latency import Latency
from edgerecover.artifacts.outputs import TaskKind


@dataclass(frozen=True)
class SweepPoint:
    """One way to prune and recover."""

    name: str
    """Of its bundle: letters, digits, dots and dashes."""
    pattern: str | None
    """None: the model is not pruned."""
    sparsity: float | None
    """Fraction of weights to prune (of MACs, for channels); None where the model is not pruned."""
    profile: str

    @property
    def pruning(self) -> str:
        """For people: "unstructured 75 %", "2:4", "as it came"."""
        if self.pattern is None or self.sparsity is None:
            return "as it came"
        return self.pattern if self.pattern == "2:4" else f"{self.pattern} {100 * self.sparsity:g} %"


@dataclass(frozen=True)
class PointFound:
    """What came of a point: its bundle and what is in it, or why there is none."""

    point: SweepPoint
    bundle: str
    """Relative to the sweep's folder; "" where there is none."""
    error: str = ""
    hint: str = ""
    exit_code: int = 0
    """Of the error."""
    quality: Proportion | None = None
    """Of the exported file; what it measures is the sweep's `measure`."""
    verdict: GateStatus | None = None
    precision: Precision | None = None
    """Of the exported file."""
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    latency: Latency | None = None
    """Of the exported file, in one race of all points; None where it did not run in it."""
    on_front: bool = False
    behind: str = ""
    """Name of a point that is as good as this one in all and better in one; "" on the front."""

    @property
    def median_ms(self) -> float | None:
        """Typical time of a query."""
        return self.latency.percentile_ms(50) if self.latency else None


@dataclass(frozen=True)
class Sweep:
    """All points, in the order asked for."""

    edgerecover_version: str
    created_utc: str
    model: str
    """The user's name for it."""
    target: str
    measure: str
    """What `quality` is: "accuracy" on the real images of --eval-data, else "agreement" with the teacher on held-out
    synthetic ones; for other tasks, what theirs is called."""
    measured_on: str
    """For people: "256 held-out dreams"."""
    synthetic: str
    """Digest of the configuration of the images that all learnt from."""
    found: tuple[PointFound, ...]
    task: TaskKind = TaskKind.ONE_LABEL
    """What the network is for."""

    @property
    def failures(self) -> tuple[PointFound, ...]:
        """Points without a bundle."""
        return tuple(found for found in self.found if not found.bundle)

    @property
    def front(self) -> tuple[PointFound, ...]:
        """Points that no other one is better than."""
        return tuple(found for found in self.found if found.on_front)

    def label(self, found: PointFound) -> str:
        """What tells a point from the others, for people."""
        several = len({other.point.profile for other in self.found}) > 1
        pruned = len({other.point.pruning for other in self.found}) > 1
        parts = [found.point.pruning] if pruned or not several else []
        return ", ".join([*parts, *([found.point.profile] if several else [])])
