"""The race as rows, the same in the terminal and in Markdown. Needs NumPy for the intervals, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgerecover.artifacts import Latency, Outcome, Race, Runner
from edgerecover.report.words import percent


@dataclass(frozen=True)
class Row:
    """One entrant, for people; "" where there is nothing to say."""

    name: str
    median: str
    speedup: str
    agreement: str
    outcome: str
    is_shipped: bool = False


def header(agreement: str) -> tuple[str, ...]:
    """Titles of the columns of `rows`; `agreement` is the name of what the task measures."""
    return "variant, runtime", "median", "× dense", agreement, ""


def title(race: Race) -> str:
    """Where the race was held, and at which batch size."""
    where = "on the target" if race.on_target else "on this host, which is not the target"
    return f"Race {where}: batch {race.shipped.latency.batch if race.shipped.latency else 1}, interleaved"


def rows(race: Race) -> Iterator[Row]:
    """Runners, fastest first, then the networks that ran beside them."""
    for runner in race.runners:
        yield Row(
            runner.name,
            _median(runner.latency),
            _speedup(race, runner.latency),
            _agreement(runner),
            runner.outcome.value,
            runner.outcome is Outcome.SHIPPED,
        )
    for twin in race.twins:
        macs = f", {100 * twin.macs_kept:.0f} % MACs" if twin.macs_kept < 1 else ", fp32"
        runtime = f", {twin.runtime}" if twin.runtime != race.twins[0].runtime else ""
        yield Row(f"{twin.name}{macs}{runtime}", _median(twin.latency), _speedup(race, twin.latency), "", "")


def notes(race: Race) -> Iterator[tuple[str, str]]:
    """Notes about the runners, by name."""
    yield from ((runner.name, runner.note) for runner in race.runners if runner.note)
    if not race.on_target and race.has_runner:
        yield "on the device", "the bundle's runner repeats the race there, among the variants that pass"


def _median(latency: Latency | None) -> str:
    return f"{latency.percentile_ms(50):.3f} ms" if latency else "–"


def _speedup(race: Race, latency: Latency | None) -> str:
    speedup = race.speedup(latency)
    return f"{speedup.value:.2f} ({speedup.low:.2f}–{speedup.high:.2f})" if speedup else ""


def _agreement(runner: Runner) -> str:
    if runner.agreement is None:
        return ""
    if runner.loss is None:
        return percent(runner.agreement.value)
    won = f"{-runner.loss.points:+.1f}".replace("-", "−") if runner.loss.points else "0.0"
    return f"{percent(runner.agreement.value)} ({won})"
