"""What this machine says of a bundle, and of it beside its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from edgerecover.artifacts import Baseline, Comparison, GoldenCheck, Latency
from edgerecover.gate.drift import against_runs
from edgerecover.gate.duel import Pair, duel
from edgerecover.gate.machine import BEFORE, NOW, Measure, Model, golden_check, query_shape, race_of, ready
from edgerecover.gate.opening import Opened
from edgerecover.progress import Progress
from edgerecover.validation.regressions import FIRST

if TYPE_CHECKING:
    from edgerecover.validation.limits import Limits


@dataclass(frozen=True)
class Here:
    """All of it; None where it was not found out."""

    golden: GoldenCheck | None = None
    latency: Latency | None = None
    comparison: Comparison | None = None
    reason: str = ""
    """Why there is no comparison."""


def measure(
    bundle: Opened,
    before: Opened | Baseline | None,
    limits: Limits,
    measure: Measure,
    max_races: int,
    seed: int,
    progress: Progress,
) -> Here:
    """Run the bundle's model on this machine, interleaved with the baseline's where that is available.

    Args:
        bundle: verified.
        before: a verified bundle, numbers, or nothing.
        limits: of which `max_latency_regression` says when a race has told enough.
        measure: how long.
        max_races: while it has not.
        seed: of the order of turns.
        progress: where to report.

    Raises:
        BadInputError: a bundle does not hold what its runner needs, or the runtime does not take a model.
        MissingError: the runtime is not here.
    """
    model = ready(bundle, None, progress)
    progress.note(f"golden check: {bundle.release.bundle} in {model.surface.runtime}")
    golden = golden_check(model)
    if not golden.passed:
        return Here(golden, reason="the model does not answer as its bundle says, so it was not timed")
    if before is None or isinstance(before, Baseline):
        (latency,) = race_of([(NOW, model)], measure, seed, progress)
        return beside_numbers(golden, latency, before.runs if before else None)
    other = ready(before, model.surface, progress)
    if query_shape(model) != query_shape(other):
        (latency,) = race_of([(NOW, model)], measure, seed, progress)
        shapes = ["×".join(map(str, query_shape(one))) for one in (model, other)]
        return Here(golden, latency, reason=f"it takes other images ({shapes[0]}, was {shapes[1]})")
    return _race(golden, model, other, limits, measure, max_races, seed, progress)


def beside_numbers(golden: GoldenCheck | None, latency: Latency, runs: Sequence[Latency] | None) -> Here:
    """A measurement beside stored ones, as far as they are of this machine and scope; None: there is no baseline."""
    if runs is None:
        return Here(golden, latency, reason=FIRST)
    alike = runs_like(latency, runs)
    if not alike:
        return Here(golden, latency, reason=_why_not(latency, runs))
    return Here(golden, latency, against_runs(latency, alike))


def runs_like(latency: Latency, runs: Sequence[Latency]) -> tuple[Latency, ...]:
    """Those of the same machine, software and scope; none where it is not known what machine it was."""
    return tuple(run for run in runs if not _differences(latency, run))


def _race(
    golden: GoldenCheck,
    model: Model,
    other: Model,
    limits: Limits,
    measure: Measure,
    max_races: int,
    seed: int,
    progress: Progress,
) -> Here:
    def races() -> Iterator[Pair]:
        for number in range(max_races):
            if number:
                progress.note(f"not certain yet: race {number + 1} of up to {max_races}")
            now, before = race_of([(NOW, model), (BEFORE, other)], measure, seed + number, progress)
            yield now, before

    held = races()
    first = next(held)
    if differences := first[0].scope_differences(first[1]):
        return Here(golden, first[0], reason=f"it ran otherwise ({'; '.join(differences)})")
    comparison = duel(chain([first], held), limits).comparison
    return Here(golden, comparison.latency, comparison)


def _differences(latency: Latency, run: Latency) -> tuple[str, ...]:
    """Of machine, software and scope, in words."""
    if latency.fingerprint is None or run.fingerprint is None:
        return ("the machine: not known",)
    return (*latency.fingerprint.differences(run.fingerprint), *latency.scope_differences(run))


def _why_not(latency: Latency, runs: Sequence[Latency]) -> str:
    """By the run that is nearest."""
    if not runs:
        return "the baseline holds no latency"
    nearest = min((_differences(latency, run) for run in runs), key=len)
    return f"it was measured on another machine or otherwise ({'; '.join(nearest)})"
