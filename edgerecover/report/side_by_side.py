"""Two reports side by side, as a value that terminal, HTML and JSON show. Stdlib only.

`edgerecover.commands.compare` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgerecover.artifacts import TaskKind

BETTER, WORSE, SAME, UNCERTAIN, UNCLEAR = "better", "worse", "same", "not certain", "not compared"


@dataclass(frozen=True)
class Fact:
    """Something that both reports state."""

    name: str
    a: str
    b: str

    @property
    def differs(self) -> bool:
        """Between the two."""
        return self.a != self.b


@dataclass(frozen=True)
class Measure:
    """Something that was measured of both."""

    name: str
    unit: str
    """"fraction", "ms" or "bytes"."""
    a: float | None
    b: float | None
    a_words: str
    b_words: str
    verdict: str
    """Of b against a: "better", "worse", "same" (the difference may be chance) or "not compared"."""
    difference: str
    """In words, with its 95 % interval where there is one; why they were not compared."""


@dataclass(frozen=True)
class GatePair:
    """One gate in both; "" where one has no such gate."""

    name: str
    a: str
    b: str

    @property
    def differs(self) -> bool:
        """Between the two."""
        return self.a != self.b


@dataclass(frozen=True)
class SideBySide:
    """Two bundles side by side."""

    a: str
    b: str
    facts: tuple[Fact, ...]
    measures: tuple[Measure, ...]
    gates: tuple[GatePair, ...]
    layers: tuple[Fact, ...]
    """Sparsity of the layers in which the two differ."""
    task: TaskKind = TaskKind.ONE_LABEL
    """What B is for."""
