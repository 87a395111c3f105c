"""The race of a network's variants, and the networks that ran beside it for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgerecover.artifacts.exported import Precision
from edgerecover.artifacts.judged import PrecisionLoss, Proportion
from edgerecover.artifacts.latency import Latency


class Outcome(str, Enum):
    """How a variant came out of the race."""

    SHIPPED = "shipped"
    SLOWER = "slower"
    """It passes, and another one is faster."""
    LOSES = "loses too much"
    """Its decisions do not pass."""
    NOT_RUN = "not run"
    """It could not be made, or could not run on this runtime here."""


@dataclass(frozen=True)
class Runner:
    """One variant on one runtime."""

    precision: Precision
    runtime: str
    outcome: Outcome
    note: str
    """Why, where the outcome does not say it; nodes left in a higher precision; "" when there is nothing to say."""
    size_bytes: int | None = None
    latency: Latency | None = None
    agreement: Proportion | None = None
    """With the teacher on held-back images."""
    loss: PrecisionLoss | None = None
    """None for float32."""

    @property
    def name(self) -> str:
        """For people: "int8, openvino"."""
        return f"{self.precision.value}, {self.runtime}"


@dataclass(frozen=True)
class Twin:
    """A float32 network raced in the same rounds, to say what the pattern of zeros is worth."""

    name: str
    """For people: "dense", "channels −50 % MACs"."""
    macs_kept: float
    """Of the dense network's multiply-accumulates."""
    size_bytes: int
    compressed_bytes: int
    latency: Latency | None
    """None: it could not run."""


@dataclass(frozen=True)
class Race:
    """All that ran, interleaved, on one machine."""

    on_target: bool
    """This machine is the target; else the runtimes are the host's."""
    runners: tuple[Runner, ...]
    """Fastest first; those that did not run last."""
    twins: tuple[Twin, ...]

    @property
    def shipped(self) -> Runner:
        """The runner that won."""
        return next(runner for runner in self.runners if runner.outcome is Outcome.SHIPPED)

    def twin(self, name: str) -> Twin | None:
        """By name."""
        return next((twin for twin in self.twins if twin.name == name), None)
