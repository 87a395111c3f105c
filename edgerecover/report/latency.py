"""The latency report in the terminal: percentiles with intervals, the queries' spread, ratios, and doubts."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from edgerecover.artifacts import Latency
from edgerecover.report.layout import bar, facts_grid, grid, section, show
from edgerecover.report.plain import make_plain
from edgerecover.report.samples import (
    PERCENTILES,
    conditions_words,
    energy_words,
    histogram,
    milliseconds,
    ratio_words,
    round_medians,
)
from edgerecover.report.words import count, size
from edgerecover.runtime.measure.doubts import doubts

if TYPE_CHECKING:
    from edgerecover.artifacts.bench import Bench, Lane

_STEPS = "▁▂▃▄▅▆▇█"
_STEPS_ASCII = "_.:-=+*#"
_BAR_COLUMNS = 16


def print_bench(console: Console, bench: Bench) -> None:
    """Show what was measured, and what could not be and how to fix that."""
    bench = make_plain(bench)
    ran = [(lane, lane.raced.latency) for lane in bench.lanes if lane.raced.latency is not None]
    steps = steps_for(console)
    parts: list[RenderableType] = [_headline(bench)]
    if ran:
        parts += [section("One query: median, 95 % interval"), _medians(ran)]
        for other in dict.fromkeys(lane.compared_with for lane in bench.lanes if lane.slower):
            parts += [section(f"Round by round against {other}"), _ratios(bench, other)]
        parts += [section("All queries"), *_spreads(ran, steps)]
        if any(latency.energy for _, latency in ran):
            parts += [section("Energy"), grid((lane.name, energy_words(latency.energy)) for lane, latency in ran)]
        parts += [section("Measured"), _measurement(ran[0][0].name, [latency for _, latency in ran])]
    if limit := _limit(bench, ran):
        parts += [section(f"Limit of {bench.target}"), limit]
    if bench.failures:
        parts += [section("Not measured"), _failures(bench)]
    if warnings := _warnings(ran):
        parts += [section("Warnings"), grid((warning,) for warning in warnings)]
    show(console, *parts)


def steps_for(console: Console) -> str:
    """Characters of rising height that this terminal can write."""
    try:
        _STEPS.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return _STEPS_ASCII
    return _STEPS


def sparkline(values: Sequence[float], steps: str) -> str:
    """A character per value, its height from zero to the largest."""
    top = max(values, default=0.0)
    if top <= 0:
        return steps[0] * len(values)
    return "".join(steps[min(len(steps) - 1, int(value / top * len(steps)))] for value in values)


# --- parts ----------------------------------------------------------------------------------------------------


def _headline(bench: Bench) -> RenderableType:
    return Text.assemble(
        ("edgerecover ", "bold"), bench.edgerecover_version, ": latency of ", (bench.lanes[0].file, "bold"),
        *((" for ", (bench.target, "bold")) if bench.target else (" on this machine",)),
    )  # fmt: skip


def _medians(ran: Sequence[tuple[Lane, Latency]]) -> RenderableType:
    longest = max(latency.percentile_ms(50) for _, latency in ran)
    rows: list[tuple[str | Text, ...]] = []
    for lane, latency in ran:
        value_ms = latency.percentile_ms(50)
        per_second = 1000 * latency.batch / value_ms if value_ms else math.inf
        rows.append(
            (lane.name, _with_interval(latency, 50), f"{per_second:,.0f}/s", bar(value_ms / longest, _BAR_COLUMNS))
        )
    return grid(rows, right=(1, 2), folds=0)


def _with_interval(latency: Latency, percent: float) -> str:
    low_ms, high_ms = latency.percentile_interval_ms(percent)
    return f"{milliseconds(latency.percentile_ms(percent))} ms ({milliseconds(low_ms)}–{milliseconds(high_ms)})"


def _ratios(bench: Bench, other: str) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = []
    for lane in bench.lanes:
        if lane.slower is None or lane.compared_with != other:
            continue
        word, interval = ratio_words(lane.slower)
        style = "green" if "faster" in word else "red" if "slower" in word else ""
        rows.append((lane.name, Text(word, style), Text(interval, "dim")))
    return grid(rows, right=(1,), folds=0)


def _spreads(ran: Sequence[tuple[Lane, Latency]], steps: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for lane, latency in ran:
        counts, low_ms, high_ms = histogram(latency.samples_ms)
        told = ", ".join(f"p{percent} {milliseconds(latency.percentile_ms(percent))}" for percent in PERCENTILES)
        rows = {
            "ms": told,
            "spread": f"{milliseconds(low_ms)} {sparkline(counts, steps)} {milliseconds(high_ms)} ms, "
            f"{len(latency.samples_ms):,} queries",
        }
        if len(latency.round_sizes) > 1:
            rows["rounds"] = f"{sparkline(round_medians(latency), steps)} median of each, axis from 0"
        parts += [Text(f"  {lane.name}", "bold"), facts_grid(rows)]
    return parts


def _measurement(name: str, ran: Sequence[Latency]) -> RenderableType:
    first = ran[0]
    host = first.host
    runtimes = dict.fromkeys(f"{one.runtime}, {one.provider}, {count(one.num_threads, 'thread')}" for one in ran)
    rows = {
        "query": "\n".join(dict.fromkeys(f"{one.scope}; batch {one.batch}" for one in ran)),
        "machine": f"{host.board or host.cpu}, {count(host.num_cores, 'core')}, "
        f"{host.system}" + (f"; pinned to core {', '.join(map(str, first.cores))}" if first.cores else ""),
        "runtime": "\n".join(runtimes),
        "memory": f"{size(first.memory_model_bytes)} more than the bare runtime at peak: {name}",
    }
    notes = dict.fromkeys(note for one in ran for note in one.notes)
    if notes:
        rows["note"] = "\n".join(notes)
    if first.conditions is not None and (said := conditions_words(first.conditions)):
        rows["conditions"] = said
    if first.fingerprint is not None:
        rows["machine id"] = f"{first.fingerprint.digest}, of hardware and software"
    return facts_grid(rows)


def _limit(bench: Bench, ran: Sequence[tuple[Lane, Latency]]) -> RenderableType | None:
    if bench.max_p99_ms is None or not ran:
        return None
    latency = ran[0][1]
    p99 = f"p99 {_with_interval(latency, 99)} against the limit of {bench.max_p99_ms:g} ms"
    if latency.host_is_target:
        return grid([(p99,)])
    return grid([(f"{p99}, but this machine is not the target, so this settles nothing",)])


def _failures(bench: Bench) -> RenderableType:
    return grid((lane.name, _why(lane)) for lane in bench.lanes if lane.raced.latency is None)


def _why(lane: Lane) -> str:
    return f"{lane.raced.error}\n{lane.raced.hint}" if lane.raced.hint else lane.raced.error


def _warnings(ran: Sequence[tuple[Lane, Latency]]) -> list[str]:
    """Every warning once, with the names of its lanes unless all of them have it."""
    by_text: dict[str, list[str]] = {}
    for lane, latency in ran:
        for text in doubts(latency):
            by_text.setdefault(text, []).append(lane.name)
    return [text if len(names) == len(ran) else f"{'; '.join(names)}: {text}" for text, names in by_text.items()]
