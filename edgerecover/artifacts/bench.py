"""What `bench` measured: files, each on a runtime with a number of threads and a batch size."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts.latency import Ratio
from edgerecover.artifacts.race import Raced


@dataclass(frozen=True)
class Lane:
    """One file, as one runtime ran it with one number of threads and one batch size."""

    name: str
    """What tells it from the others."""
    file: str
    sha256: str
    runtime: str
    threads: int | None
    batch: int | None
    """Both as asked for."""
    raced: Raced
    compared_with: str = ""
    """Name of the lane of the same batch size that it is compared with; empty for that lane itself."""
    slower: Ratio | None = None
    """Than that one; None where either has no latency."""


@dataclass(frozen=True)
class Bench:
    """All that was measured at once."""

    edgerecover_version: str
    created_utc: str
    target: str | None
    max_p99_ms: float | None
    """The target's limit."""
    lanes: tuple[Lane, ...]

    @property
    def failures(self) -> tuple[Raced, ...]:
        """The entrants without a latency."""
        return tuple(lane.raced for lane in self.lanes if lane.raced.latency is None)
