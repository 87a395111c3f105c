"""The race, the engines that were built for it, and the latency of the shipped file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgerecover.artifacts import Latency, Ratio, Report
from edgerecover.report import race as race_words
from edgerecover.report.engines import engine_lines
from edgerecover.report.html.axes import beside_each_other, column, ticks, x_axis, y_axis
from edgerecover.report.html.blocks import (
    INTERVAL,
    Bar,
    Block,
    Cell,
    Chart,
    Key,
    Legend,
    Mark,
    Row,
    Scale,
    Section,
    Spark,
    Table,
    Text,
    Tick,
    Whisker,
    facts_table,
)
from edgerecover.report.html.closing import words
from edgerecover.report.npu import NPU_TITLE, npu_lines
from edgerecover.report.samples import PERCENTILES, conditions_words, histogram, milliseconds, round_medians
from edgerecover.report.words import count, precision, size, where_measured
from edgerecover.runtime.measure.doubts import doubts
from edgerecover.tasks.measure import words_of

_FURTHEST_RATIO = 1000.0
_TIMES, _MOST_STEPS = (1.25, 2, 4, 10, 100), 2
"""Between two numbers of the race's scale; and how many there are on either side of 1."""


def race_section(report: Report) -> Section | None:
    """Every variant against the dense network; None if there was no race."""
    race = report.race
    if race is None:
        return None
    ratios = [race.speedup(runner.latency) for runner in race.runners]
    ratios += [race.speedup(twin.latency) for twin in race.twins]
    furthest = max([abs(math.log(edge)) for ratio in ratios if ratio for edge in _edges(ratio)] + [math.log(1.25)])
    scale = _scale(furthest)
    rows: list[tuple[Cell, ...]] = []
    for row, ratio in zip(race_words.rows(race), ratios, strict=True):
        whisker: Cell = ""
        if ratio is not None:
            value, low, high = (_place(edge, furthest) for edge in _edges(ratio))
            whisker = Whisker(value, low, high, reference=0.5, rules=tuple(tick.at for tick in scale.ticks))
        rows.append((row.name, row.median, row.speedup, whisker, row.agreement, row.outcome))
    rows.append(("", "", "", scale, "", ""))
    header = ("variant, runtime", "median", "× dense (95 %)", "", words_of(report.task).name, "")
    notes = [Text(f"{name}: {note}") for name, note in race_words.notes(race)]
    intro = Text(
        "Every file ran in the same interleaved rounds as the dense network, float32. × dense: speed-up, "
        "by the medians of the same rounds. Slower files are left of the line, faster ones right of it."
    )
    table = Table(race_words.title(race), header, tuple(rows), (1, 2, 4), stacks=True)
    keys = Legend((Key("value", "× dense"), INTERVAL, Key("dense", "as fast as the dense network")))
    ran = [(runner.name, runner.latency) for runner in race.runners if runner.latency]
    ran += [(twin.name, twin.latency) for twin in race.twins if twin.latency]
    named = words("race", "variant", "shipped", "× dense", "host, target")
    return Section("race", "Race", (intro, table, keys, *notes, _spreads(ran)), named)


def _place(ratio: float, furthest: float) -> float:
    """Where a ratio stands between the ends of the scale, whose middle is 1; `furthest` is the end's logarithm."""
    return 0.5 + 0.48 * math.log(ratio) / furthest


def _scale(furthest: float) -> Scale:
    """A few ratios, each so many times the one before."""
    times, steps = next(
        (times, steps) for times in _TIMES if (steps := int(furthest / math.log(times) + 1e-9)) <= _MOST_STEPS
    )
    ratios = [times**step for step in range(-steps, steps + 1)]
    return Scale(tuple(Tick(_place(ratio, furthest), f"{ratio:.3g}×") for ratio in ratios))


def _edges(ratio: Ratio) -> tuple[float, float, float]:
    """Value, lower and upper end, as far as they can be drawn."""
    value, low, high = (
        min(max(edge, 1 / _FURTHEST_RATIO), _FURTHEST_RATIO) for edge in (ratio.value, ratio.low, ratio.high)
    )
    return value, low, high


def _spreads(ran: Sequence[tuple[str, Latency]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, latency in ran:
        told = [milliseconds(latency.percentile_ms(percentile)) for percentile in PERCENTILES]
        counts, low_ms, high_ms = histogram(latency.samples_ms)
        top = max(counts)
        says = f"most of {len(latency.samples_ms):,} queries from {milliseconds(low_ms)} to {milliseconds(high_ms)} ms"
        rows.append((name, *told, Spark(tuple(number / top for number in counts), says)))
    header = ("milliseconds", *(f"p{percentile}" for percentile in PERCENTILES), "spread")
    return Table("Percentiles, and how the queries spread", header, tuple(rows), (1, 2, 3, 4), stacks=True)


def engines_section(report: Report) -> Section | None:
    """The engines that were built for the target's GPU; None without any."""
    if not report.engines:
        return None
    rows = tuple((engine.recipe.precision.value, "\n".join(engine_lines(engine))) for engine in report.engines)
    return Section("engines", "Engines", (Table("Built here for the target's GPU", (), rows),))


def npu_section(report: Report) -> Section | None:
    """What was compiled for the target's NPU and run in its emulation; None without any."""
    if not report.npu:
        return None
    rows = tuple((f"v{made.generation}", "\n".join(npu_lines(made, words_of(report.task)))) for made in report.npu)
    return Section("npu", "NPU", (Table(NPU_TITLE, (), rows),))


def latency_section(report: Report) -> Section:
    """Latency of the shipped file: percentiles, histogram, rounds, and how it was measured."""
    latency, host = report.latency, report.latency.host
    longest = latency.percentile_ms(PERCENTILES[-1]) or 1.0
    rows = []
    for percentile in PERCENTILES:
        value, (low, high) = latency.percentile_ms(percentile), latency.percentile_interval_ms(percentile)
        told = f"{milliseconds(value)} ({milliseconds(low)}–{milliseconds(high)})"
        rows.append((f"p{percentile}", told, Bar(min(1.0, value / longest))))
    facts = {
        "runs": f"{len(latency.samples_ms):,} after {len(latency.warmup_ms):,} warm-ups",
        "query": f"{latency.scope}; batch {latency.batch}",
        "machine": f"{host.board or host.cpu}, {count(host.num_cores, 'core')}, {host.system}",
        "runtime": f"{latency.runtime}, {latency.provider}, {count(latency.num_threads, 'thread')}",
        "memory": f"{size(latency.memory_model_bytes)} more than the bare runtime at peak",
        **precision(report),
        **_conditions(latency),
    }
    blocks: list[Block] = [Text(f"Of the shipped file. {where_measured(latency)}.")]
    blocks += [Text(text, "warning") for text in doubts(latency)]
    blocks.append(
        Row((
            _histogram(latency),
            Table("Percentiles in milliseconds (95 % interval)", ("", "ms", ""), tuple(rows), (1,)),
        ))
    )  # fmt: skip
    if len(latency.round_sizes) > 1:
        blocks.append(Row((_rounds(latency), facts_table("Measured", facts))))
    else:
        blocks.append(facts_table("Measured", facts))
    return Section("latency", "Latency", tuple(blocks), words("host, target", "p50, p99"))


def _conditions(latency: Latency) -> dict[str, str]:
    facts = {}
    if latency.notes:
        facts["notes"] = "\n".join(latency.notes)
    if latency.conditions is not None and (said := conditions_words(latency.conditions)):
        facts["conditions"] = said
    if latency.energy is not None:
        facts["energy"] = f"{latency.energy.mj_per_query:.3g} mJ per query: {latency.energy.source}"
    if latency.fingerprint is not None:
        facts["fingerprint"] = latency.fingerprint.digest
    return facts


def _histogram(latency: Latency) -> Chart:
    counts, low_ms, high_ms = histogram(latency.samples_ms, 48)
    x, y = x_axis(low_ms, high_ms), y_axis(0, max(counts))
    width = (high_ms - low_ms) / len(counts)
    columns = tuple(
        column(x.px(low_ms + n * width), x.px(low_ms + (n + 1) * width), y.px(number),
                f"{milliseconds(low_ms + n * width)} ms: {count(number, 'query', 'queries')}")
        for n, number in enumerate(counts)
    )  # fmt: skip
    words = [(f"p{percentile}", latency.percentile_ms(percentile)) for percentile in PERCENTILES]
    across = [Mark(x.px(ms), 34.0, 0, 0, word, "plain") for word, ms in words]
    told = ", ".join(f"{word} {milliseconds(ms)} ms" for word, ms in words)
    return Chart(
        f"All {len(latency.samples_ms):,} queries; the slowest 1 % in the last column",
        f"{told}.",
        "milliseconds",
        ticks(x),
        ticks(y, about=4),
        columns=columns,
        across=beside_each_other(across),
    )


def _rounds(latency: Latency) -> Chart:
    medians = round_medians(latency)
    x, y = x_axis(0, len(medians)), y_axis(0, 1.1 * max(medians) or 1.0)
    points = tuple(
        Mark(x.px(n + 0.5), y.px(ms), 0, 0, f"round {n + 1}: {milliseconds(ms)} ms") for n, ms in enumerate(medians)
    )
    return Chart(
        "Median of each round, in milliseconds",
        f"Between {milliseconds(min(medians))} and {milliseconds(max(medians))} ms.",
        "round",
        ticks(x),
        ticks(y),
        points=points,
    )
