"""A limit, and how a measured value comes out beside it. Stdlib only, so a device can judge again."""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts import Gate, GateStatus

AT_LEAST, AT_MOST = "at least", "at most"
_WORDS = {
    AT_LEAST: {GateStatus.PASS: "meets", GateStatus.FAIL: "is below"},
    AT_MOST: {GateStatus.PASS: "keeps to", GateStatus.FAIL: "is above"},
}
_UNCERTAIN = "is too uncertain to judge against"


@dataclass(frozen=True)
class Limit:
    """The number that a gate's measured value must reach or keep to."""

    name: str
    """Of the gate."""
    value: float
    unit: str = ""
    """"%", "ms", "MB", "points" or ""."""
    source: str = "edgerecover"
    """Who set it: "profile balanced", "target jetson-orin", "--max-latency-regression"."""
    direction: str = AT_MOST

    def status(self, low: float, high: float | None = None) -> GateStatus:
        """How an interval comes out: settled where all of it is on one side of the limit.

        Args:
            low: its lower edge, in the limit's unit.
            high: its upper edge; None: `low` is the value itself, without an interval.
        """
        high = low if high is None else high
        if self.direction == AT_LEAST:
            passes, fails = low >= self.value, high < self.value
        else:
            passes, fails = high <= self.value, low > self.value
        return GateStatus.PASS if passes else GateStatus.FAIL if fails else GateStatus.INCONCLUSIVE

    def gate(self, status: GateStatus, measured: float | None, message: str) -> Gate:
        """The gate, with a message of its own."""
        return Gate(self.name, status, measured, self.value, self.direction, self.unit, self.source, message)

    def judge(
        self,
        status: GateStatus,
        measured: float,
        found: str,
        *,
        more: str = "",
        fail: str,
        inconclusive: str = "",
    ) -> Gate:
        """The gate whose message says what was found, how that compares with the limit, and what to do next.

        Args:
            status: how it came out.
            measured: in the limit's unit.
            found: opens the message: "latency p99 9.10 ms (9.00–9.30)".
            more: to say before the advice, with its own punctuation.
            fail: what to do where the gate fails.
            inconclusive: what could settle it where it is inconclusive.
        """
        asked = f"{self.value:g} {self.unit}".rstrip()
        words = _WORDS[self.direction].get(status, _UNCERTAIN)
        message = f"{found} {words} the {asked} of {self.source}{more}"
        return self.gate(status, measured, message + advice(status, fail=fail, inconclusive=inconclusive))


def advice(status: GateStatus, *, fail: str, inconclusive: str = "") -> str:
    """What to do next, after a colon; nothing where a gate passes."""
    next_step = {GateStatus.FAIL: fail, GateStatus.INCONCLUSIVE: inconclusive}.get(status, "")
    return f": {next_step}" if next_step else ""
