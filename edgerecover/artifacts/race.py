"""The race: how each entrant came out, the variants of a network, and the networks raced for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgerecover.artifacts.exported import Precision
from edgerecover.artifacts.judged import PrecisionLoss, Proportion
from edgerecover.artifacts.latency import Latency, Ratio
from edgerecover.errors import BadInputError, EdgeRecoverError, MissingError, StageError


class Outcome(str, Enum):
    """How a variant came out of the race."""

    SHIPPED = "shipped"
    SLOWER = "slower"
    """It passes, and another one is faster."""
    LOSES = "loses too much"
    """Its decisions do not pass, or its file is too large."""
    UNDECIDED = "cannot tell"
    """It lost more than it may, on so few images that it may be chance."""
    REFUSED = "refused"
    """The target's runtime does not take it."""
    NOT_RUN = "not run"
    """It could not be made, or could not run on this runtime here."""


@dataclass(frozen=True)
class Raced:
    """How an entrant came out: its latency, or why there is none."""

    name: str
    latency: Latency | None
    error: str = ""
    hint: str = ""
    exit_code: int = 0
    """Of the error."""

    def latency_or_error(self) -> Latency:
        """The latency.

        Raises:
            EdgeRecoverError: there is none, for the reason and with the exit code that are here.
        """
        if self.latency is not None:
            return self.latency
        family: dict[int, type[EdgeRecoverError]] = {kind.exit_code: kind for kind in (BadInputError, MissingError)}
        raise family.get(self.exit_code, StageError)(self.error, hint=self.hint)


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
    """With the teacher on held-out images."""
    loss: PrecisionLoss | None = None
    """None for float32."""

    @property
    def name(self) -> str:
        """For people: "int8, openvino"."""
        return f"{self.precision.value}, {self.runtime}"

    @property
    def passes(self) -> bool:
        """It may be shipped; only its speed decides whether it is."""
        return self.outcome in (Outcome.SHIPPED, Outcome.SLOWER)


@dataclass(frozen=True)
class Twin:
    """A float32 network raced in the same rounds, to say what the pattern of zeros is worth."""

    name: str
    """For people: "dense", "fewer channels"."""
    macs_kept: float
    """Of the dense network's multiply-accumulates."""
    size_bytes: int
    compressed_bytes: int
    latency: Latency | None
    """None: it could not run."""
    runtime: str = ""
    """"" in reports from before the dense network was raced in every runtime: it is that of the first one."""


@dataclass(frozen=True)
class Race:
    """All that ran, interleaved, on one machine."""

    on_target: bool
    """This machine is the target; else the runtimes are the host's."""
    runners: tuple[Runner, ...]
    """Fastest first; those that did not run last."""
    twins: tuple[Twin, ...]
    has_runner: bool = True
    """The bundle's runner can run on the target, and repeats the race there."""

    @property
    def shipped(self) -> Runner:
        """The runner that won."""
        return next(runner for runner in self.runners if runner.outcome is Outcome.SHIPPED)

    def path_in_bundle(self, precision: Precision) -> str:
        """Where the file of a precision stands in the bundle: the shipped one is the model."""
        return "model.onnx" if precision is self.shipped.precision else f"variants/{precision.value}.onnx"

    def judged(self, precision: Precision) -> bool:
        """Whether a file of it was, here or before the race, where what loses too much is given up."""
        return any(
            runner.precision is precision and (runner.agreement or runner.outcome is not Outcome.NOT_RUN)
            for runner in self.runners
        )

    @property
    def latency(self) -> Latency:
        """Of the shipped runner, which ran."""
        latency = self.shipped.latency
        assert latency is not None, "what did not run is not shipped"
        return latency

    @property
    def float32(self) -> Runner | None:
        """The float32 variant on the first runtime: as the dense one but for its zeros."""
        return next((runner for runner in self.runners if runner.precision is Precision.FP32 and runner.latency), None)

    @property
    def dense(self) -> Twin | None:
        """The twin that speed-ups are told against: float32, on the first runtime of the race."""
        return next((twin for twin in self.twins if twin.macs_kept == 1), None)

    def dense_in(self, runtime: str) -> Twin | None:
        """The dense network in one runtime, for what its zeros bring there."""
        dense = (twin for twin in self.twins if twin.macs_kept == 1)
        return next((twin for twin in dense if twin.runtime == runtime), None)

    def speedup(self, latency: Latency | None) -> Ratio | None:
        """How many times as fast as the dense network, by the medians of the same rounds; None where either did not
        run."""
        dense = self.dense
        return dense.latency.slower_than(latency) if dense and dense.latency and latency else None
