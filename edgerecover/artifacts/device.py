"""What a runner found on a device."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts.engines import EngineFacts
from edgerecover.artifacts.exported import Precision
from edgerecover.artifacts.judged import Gate, GateStatus, GoldenCheck, verdict_of
from edgerecover.artifacts.latency import Host, Latency
from edgerecover.artifacts.machine import Deployment, TargetMachine
from edgerecover.artifacts.outputs import OutputSpec
from edgerecover.artifacts.report import StageTime


@dataclass(frozen=True)
class DeviceTask:
    """What a bundle requires of the machine that it is run on."""

    target: str
    machine: TargetMachine
    runtime: str
    """"onnxruntime", "openvino", "mnn", "tensorrt" or "tensorrt-rtx"."""
    providers: tuple[str, ...]
    """Execution providers of onnxruntime, best first."""
    num_warmup: int
    """Warm-up queries of the measurement, as the profile says."""
    min_queries: int
    """Minimum number of timed queries."""
    min_duration_s: float
    """Minimum seconds of timed queries."""
    also_runtimes: tuple[str, ...] = ()
    """Other runtimes to race where they are installed."""
    precision: Precision = Precision.FP32
    """Of model.onnx."""
    output: OutputSpec | None = None
    """Of model.onnx; None in bundles from before there were tasks, which hold classifiers."""

    @property
    def deployment(self) -> Deployment:
        """Where its models are to run."""
        return Deployment(self.machine, self.runtime, self.providers, self.also_runtimes)


@dataclass(frozen=True)
class Tried:
    """One file of a bundle in one runtime, on the device."""

    path: str
    """Inside the bundle."""
    precision: Precision
    runtime: str
    """"onnxruntime", "openvino", "mnn", "tensorrt" or "tensorrt-rtx"."""
    engine: EngineFacts | None = None
    """The engine built from the file; None for runtimes that run the file itself."""
    golden: GoldenCheck | None = None
    """Its answers to the golden images; None where it did not run."""
    latency: Latency | None = None
    """None where it did not run or failed the golden check."""
    error: str = ""
    """Why it did not run; "" where it did."""
    hint: str = ""
    """What to do about the error."""


@dataclass(frozen=True)
class DeviceResult:
    """Everything a runner found: which file runs how fast on this machine, and how the target's gates came out."""

    edgerecover_version: str
    created_utc: str
    bundle: str
    """Name of the bundle's folder."""
    manifest_sha256: str
    """Digest of the bundle's manifest.json, which lists the digests of all other files."""
    target: str
    host: Host
    host_is_target: bool
    python: str
    tried: tuple[Tried, ...]
    fastest: int | None
    """Index in `tried` of the file to deploy: of the highest precision among those with correct outputs that are not
    significantly slower than the fastest; None where nothing was timed."""
    gates: tuple[Gate, ...]
    """Gates of the report, judged by `fastest` where this machine can settle them, and the golden check."""
    stages: tuple[StageTime, ...]
    warnings: tuple[str, ...]
    signature: str = ""
    """For people: who signed the bundle, as far as was checked; "" in results that were written before it was."""

    @property
    def verdict(self) -> GateStatus:
        """The worst gate; one that still needs the device does not count."""
        return verdict_of(self.gates)
