"""The latency report in the terminal: percentiles with intervals, the queries' spread, ratios, and doubts."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from edgerecover.artifacts import Conditions, Energy, Latency, Ratio
from edgerecover.report.layout import bar, count, grid, named, section, show
from edgerecover.report.words import size
from edgerecover.runtime.doubts import doubts

if TYPE_CHECKING:
    from edgerecover.bench import Bench, Lane

PERCENTILES = (50, 90, 95, 99)
_STEPS = "▁▂▃▄▅▆▇█"
_STEPS_ASCII = "_.:-=+*#"
_NUM_BUCKETS = 24
_BAR_COLUMNS = 16
_SAME = 0.02
"""Two processes of the same file differ by about one hundredth."""


def print_bench(console: Console, bench: Bench) -> None:
    """Show what was measured; what could not be, with what to do about it."""
    ran = [(lane, lane.raced.latency) for lane in bench.lanes if lane.raced.latency is not None]
    steps = steps_for(console)
    parts: list[RenderableType] = [_headline(bench)]
    if ran:
        parts += [section("One query: median, 95 % interval"), _medians(ran)]
        for other in dict.fromkeys(lane.compared_with for lane in bench.lanes if lane.slower):
            parts += [section(f"Round by round beside {other}"), _ratios(bench, other)]
        parts += [section("All queries"), *_spreads(ran, steps)]
        if any(latency.energy for _, latency in ran):
            parts += [section("Energy"), grid((lane.name, energy_words(latency.energy)) for lane, latency in ran)]
        parts += [section("Measured"), _measured(ran[0][0].name, [latency for _, latency in ran])]
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


def histogram(samples_ms: Sequence[float], num_buckets: int = _NUM_BUCKETS) -> tuple[tuple[int, ...], float, float]:
    """How many samples lie in each of equal buckets, and where the first begins and the last ends.

    The slowest hundredth is in the last bucket, however slow: one pause must not flatten the rest.
    """
    ordered = sorted(samples_ms)
    low, high = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]
    width = (high - low) / num_buckets or 1.0
    counts = [0] * num_buckets
    for sample in ordered:
        counts[min(num_buckets - 1, int((sample - low) / width))] += 1
    return tuple(counts), low, high


def ratio_words(ratio: Ratio) -> tuple[str, str]:
    """ "2.31× faster" and its interval; "about as fast" where the difference is none or may be none."""
    if ratio.low <= 1 + _SAME and ratio.high >= 1 - _SAME:
        return "about as fast", f"({ratio.low:.2f}–{ratio.high:.2f} × its time)"
    if ratio.value < 1:
        return f"{1 / ratio.value:.2f}× faster", f"({1 / ratio.high:.2f}–{_inverse(ratio.low)})"
    return f"{ratio.value:.2f}× slower", f"({ratio.low:.2f}–{ratio.high:.2f})"


def _inverse(low: float) -> str:
    return f"{1 / low:.2f}" if low else "∞"


def energy_words(energy: Energy | None) -> str:
    """ "12.4 mJ a query: INA3221 VDD_IN, the whole board"."""
    if energy is None:
        return "no sensor can be read"
    return f"{energy.mj_per_query:.3g} mJ a query: {energy.source}"


def conditions_words(conditions: Conditions) -> str:
    """What is known of the machine meanwhile, in one line; "" where nothing is."""
    c = conditions
    said = []
    if c.power_mode is not None:
        said.append(f"power mode {c.power_mode}")
    if c.governor is not None:
        said.append(f"governor {c.governor}")
    if c.clocks_locked:
        said.append("clocks locked")
    for name, lowest, highest in (
        ("CPU", c.cpu_mhz_lowest, c.cpu_mhz_highest),
        ("GPU", c.gpu_mhz_lowest, c.gpu_mhz_highest),
    ):
        if lowest is not None and highest is not None:
            said.append(f"{name} at {_range(lowest, highest)} MHz")
    if c.temperature_before_c is not None and c.temperature_peak_c is not None:
        said.append(f"{_range(c.temperature_before_c, c.temperature_peak_c)} °C")
    if c.busy_elsewhere is not None:
        said.append(f"{c.busy_elsewhere:.1f} cores busy elsewhere")
    if c.stolen is not None:
        said.append(f"{c.stolen:.1%} stolen")
    if c.throttled is not None:
        said.append("throttled" if c.throttled else "not throttled")
    return ", ".join(said)


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f}–{high:,.0f}"


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


def milliseconds(value_ms: float) -> str:
    """Four digits that mean something: "0.0057", "1.234", "12.35", "66.7"."""
    if value_ms >= 1000:
        return f"{value_ms:,.0f}"
    digits = 3 - math.floor(math.log10(value_ms)) if value_ms > 0 else 3
    return f"{value_ms:.{min(max(digits, 0), 4)}f}"


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
            rows["rounds"] = f"{sparkline(_round_medians(latency), steps)} median of each, from 0"
        parts += [Text(f"  {lane.name}", "bold"), named(rows)]
    return parts


def _round_medians(latency: Latency) -> list[float]:
    medians, start = [], 0
    for round_size in latency.round_sizes:
        medians.append(median(latency.samples_ms[start : start + round_size]) if round_size else 0.0)
        start += round_size
    return medians


def _measured(name: str, ran: Sequence[Latency]) -> RenderableType:
    first = ran[0]
    host = first.host
    runtimes = dict.fromkeys(f"{one.runtime}, {one.provider}, {count(one.num_threads, 'thread')}" for one in ran)
    rows = {
        "query": "\n".join(dict.fromkeys(f"{one.scope}; batch {one.batch}" for one in ran)),
        "machine": f"{host.board or host.cpu}, {count(host.num_cores, 'core')}, "
        f"{host.system}" + (f"; held on core {', '.join(map(str, first.cores))}" if first.cores else ""),
        "runtime": "\n".join(runtimes),
        "memory": f"{size(first.memory_model_bytes)} more than the bare runtime at peak: {name}",
    }
    notes = dict.fromkeys(note for one in ran for note in one.notes)
    if notes:
        rows["note"] = "\n".join(notes)
    if first.conditions is not None and (said := conditions_words(first.conditions)):
        rows["meanwhile"] = said
    if first.fingerprint is not None:
        rows["print"] = f"{first.fingerprint.digest} of the machine and its software"
    return named(rows)


def _limit(bench: Bench, ran: Sequence[tuple[Lane, Latency]]) -> RenderableType | None:
    if bench.max_p99_ms is None or not ran:
        return None
    latency = ran[0][1]
    p99 = f"p99 {_with_interval(latency, 99)} of the limit's {bench.max_p99_ms:g} ms"
    if latency.host_is_target:
        return grid([(p99,)])
    return grid([(f"{p99}, but this machine is not the target: nothing is settled by it",)])


def _failures(bench: Bench) -> RenderableType:
    return grid((lane.name, _why(lane)) for lane in bench.lanes if lane.raced.latency is None)


def _why(lane: Lane) -> str:
    return f"{lane.raced.error}\n{lane.raced.hint}" if lane.raced.hint else lane.raced.error


def _warnings(ran: Sequence[tuple[Lane, Latency]]) -> list[str]:
    """Each once; with the lane's name where not all share it."""
    by_text: dict[str, list[str]] = {}
    for lane, latency in ran:
        for text in doubts(latency):
            by_text.setdefault(text, []).append(lane.name)
    return [text if len(names) == len(ran) else f"{'; '.join(names)}: {text}" for text, names in by_text.items()]
