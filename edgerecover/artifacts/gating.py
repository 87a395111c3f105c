"""What `edgerecover gate` compares a bundle with, and what it found."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts.judged import Accuracy, Decisions, Gate, GateStatus, Proportion, verdict_of
from edgerecover.artifacts.latency import Latency, Ratio
from edgerecover.artifacts.outputs import TaskKind

BASELINE_SCHEMA = 1


@dataclass(frozen=True)
class Release:
    """What of a bundle later ones are compared with, but for what depends on the machine."""

    bundle: str
    """Name of the bundle's folder."""
    manifest_sha256: str
    """Digest of the bundle's manifest.json."""
    model_sha256: str
    created_utc: str
    target: str
    profile: str
    teacher_sha256: str
    images: str
    """What the held-out images are: "dreams", "fractals"."""
    record_sha256: str | None
    """Of the activation record that had a part in them; None: there was none."""
    agreement: Proportion
    """With the teacher, on the held-out images."""
    decisions: Decisions | None
    accuracy: Accuracy | None
    """On real images."""
    size_bytes: int
    task: TaskKind = TaskKind.ONE_LABEL
    """What the network is for."""

    def image_differences(self, earlier: Release) -> tuple[str, ...]:
        """For people, why the two were not judged on images of one kind beside one teacher; empty where they were."""
        facts = {
            "teacher": (self.teacher_sha256[:16], earlier.teacher_sha256[:16]),
            "profile": (self.profile, earlier.profile),
            "images": (self.images, earlier.images),
            "record": tuple((digest or "none")[:16] for digest in (self.record_sha256, earlier.record_sha256)),
        }
        return tuple(f"{name}: {now}, was {was}" for name, (now, was) in facts.items() if now != was)


@dataclass(frozen=True)
class Baseline:
    """A `baseline.json`: a release, and how fast it ran, on any number of machines."""

    schema_version: int
    release: Release
    runs: tuple[Latency, ...]
    """In the order they were taken; without their warm-up."""


@dataclass(frozen=True)
class Comparison:
    """How a bundle's model and its baseline's ran."""

    latency: Latency
    """Latency of the bundle's model, over all its rounds."""
    before: Latency
    """Latency of the baseline's model, over all its rounds."""
    slower: Ratio
    how: str
    """For people: "raced in 30 rounds", "measured at different times"."""
    memory_bytes: tuple[int, ...]
    memory_before_bytes: tuple[int, ...]
    """What loading and running each added to a bare process, for each process that was measured."""


@dataclass(frozen=True)
class GateResult:
    """Everything `edgerecover gate` found."""

    edgerecover_version: str
    created_utc: str
    release: Release
    baseline: Release | None
    """None: there was none."""
    gates: tuple[Gate, ...]
    latency: Latency | None
    """Measured here; None where nothing was."""
    comparison: Comparison | None
    written: str | None
    """The baseline.json that this bundle's numbers were written to."""
    notes: tuple[str, ...]
    seconds: float

    @property
    def verdict(self) -> GateStatus:
        """The worst gate; one that needs the device, or was skipped, does not count."""
        return verdict_of(self.gates)
