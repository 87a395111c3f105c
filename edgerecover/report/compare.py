"""Two reports side by side: what differs, what can be compared, and whether a difference is more than chance.

Two numbers are compared only where they measure the same thing: agreement with the same teacher on the same images, accuracy on
the same images, latency of the same query on machines of the same fingerprint. Where they do not, it says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgerecover.artifacts import Decisions, Gate, Latency, Proportion, Report, difference_interval, paired_interval
from edgerecover.report.plain import plainly
from edgerecover.report.samples import milliseconds, ratio_words
from edgerecover.report.words import percent, proportion, size, status_word, where_measured

BETTER, WORSE, SAME, UNCLEAR = "better", "worse", "same", "not compared"
_NEGLIGIBLE = 0.02
"""Sizes and memory that differ by less are the same."""


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
class Comparison:
    """Two bundles side by side."""

    a: str
    b: str
    facts: tuple[Fact, ...]
    measures: tuple[Measure, ...]
    gates: tuple[GatePair, ...]
    layers: tuple[Fact, ...]
    """Sparsity of the layers in which the two differ."""


def compare(a: Report, b: Report, a_name: str, b_name: str) -> Comparison:
    """Put `b` beside `a`; both may be hostile."""
    a, b = plainly(a), plainly(b)
    return Comparison(
        *plainly((a_name, b_name)),
        facts=tuple(_facts(a, b)),
        measures=tuple(_measures(a, b)),
        gates=tuple(_gates(a.gates, b.gates)),
        layers=tuple(_layers(a, b)),
    )


def _facts(a: Report, b: Report) -> Iterator[Fact]:
    def of(report: Report) -> dict[str, str]:
        named = {
            "verdict": status_word(report.verdict),
            "target": report.target,
            "profile": report.profile,
            "seed": str(report.seed),
            "data used": report.data_used,
            "architecture": str(report.student.architecture),
            "student": _short(report.student.sha256),
            "teacher": _short(report.teacher.sha256),
            "record": _short(report.record.sha256) if report.record else "none",
            "exported file": _short(report.exported.sha256),
            "precision": report.variant.precision.value if report.variant else "as given",
            "opset": str(report.exported.opset),
            "kept rung": next((rung.name for rung in report.rungs if rung.chosen), "none"),
            "edgerecover": report.edgerecover_version,
        }
        return named | {f"version of {name}": version for name, version in report.tool_versions.items()}

    of_a, of_b = of(a), of(b)
    for name in dict.fromkeys((*of_a, *of_b)):
        fact = Fact(name, of_a.get(name, ""), of_b.get(name, ""))
        if fact.differs or not name.startswith("version of "):
            yield fact


def _short(sha256: str) -> str:
    return f"{sha256[:12]}…"


# --- what was measured ----------------------------------------------------------------------------------------


def _measures(a: Report, b: Report) -> Iterator[Measure]:
    yield _proportion(
        "agreement with the teacher", a.fidelity.exported, b.fidelity.exported, a.fidelity.decisions,
        b.fidelity.decisions, _other_images(a, b),
    )  # fmt: skip
    if a.accuracy and b.accuracy:
        source_differs = a.accuracy.source != b.accuracy.source
        why_not = f"other images: {a.accuracy.source} and {b.accuracy.source}" if source_differs else ""
        yield _proportion(
            "accuracy", a.accuracy.exported, b.accuracy.exported, a.accuracy.decisions, b.accuracy.decisions, why_not
        )
    elif a.accuracy or b.accuracy:
        values = [report.accuracy.exported if report.accuracy else None for report in (a, b)]
        words = [proportion(value) if value else "not measured" for value in values]
        numbers = [value.value if value else None for value in values]
        yield Measure("accuracy", "fraction", *numbers, *words, UNCLEAR, "only one was judged on real images")
    yield _amount("file", a.exported.size_bytes, b.exported.size_bytes)
    if a.exported.compressed_bytes and b.exported.compressed_bytes:
        yield _amount("file, by gzip", a.exported.compressed_bytes, b.exported.compressed_bytes)
    zeros = [report.recovered_sparsity.sparsity for report in (a, b)]
    yield Measure(
        "zeros", "fraction", zeros[0], zeros[1], percent(zeros[0]), percent(zeros[1]), SAME if zeros[0] == zeros[1] else
        UNCLEAR, "" if zeros[0] == zeros[1] else f"{100 * (zeros[1] - zeros[0]):+.1f} points",
    )  # fmt: skip
    yield from _latencies(a.latency, b.latency)


def _other_images(a: Report, b: Report) -> str:
    """Why agreements do not compare; "" where they do."""
    if a.teacher.sha256 != b.teacher.sha256:
        return "other teachers"
    named = (("source", "images"), ("num_held_back", "number of images"))
    for field, words in named:
        of_a, of_b = getattr(a.synthetic, field), getattr(b.synthetic, field)
        if of_a != of_b:
            return f"other {words}: {of_a} and {of_b}"
    if (a.profile, a.seed) != (b.profile, b.seed):
        return "dreams of another profile or seed"
    return ""


def _proportion(
    name: str, a: Proportion, b: Proportion, a_decisions: Decisions | None, b_decisions: Decisions | None, why_not: str
) -> Measure:
    """By pairs where the images are known to be the same, which tells most."""
    pairs = b_decisions.pairs(a_decisions) if a_decisions and b_decisions else None
    if pairs is not None:
        low, high = paired_interval(*pairs, a.total)
        on = "on the same images"
    elif a_decisions and b_decisions:
        return _told(name, a, b, UNCLEAR, "not the same images")
    elif why_not:
        return _told(name, a, b, UNCLEAR, why_not)
    else:
        low, high = difference_interval(b, a)
        on = "image by image it is not known"
    points = 100 * (b.value - a.value)
    words = f"{points:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), {on}"
    return _told(name, a, b, BETTER if low > 0 else WORSE if high < 0 else SAME, words)


def _told(name: str, a: Proportion, b: Proportion, verdict: str, words: str) -> Measure:
    return Measure(name, "fraction", a.value, b.value, proportion(a), proportion(b), verdict, words)


def _amount(name: str, a: int, b: int) -> Measure:
    """Less is better."""
    change = b / a - 1 if a else 0.0
    verdict = SAME if abs(change) <= _NEGLIGIBLE else WORSE if change > 0 else BETTER
    return Measure(name, "bytes", a, b, size(a), size(b), verdict, f"{100 * change:+.1f} %" if a != b else "")


def _latencies(a: Latency, b: Latency) -> Iterator[Measure]:
    why_not = not_comparable(a, b)
    for percentile in (50, 99):
        values = [latency.percentile_ms(percentile) for latency in (a, b)]
        words = [f"{milliseconds(value)} ms" for value in values]
        verdict, difference = UNCLEAR, why_not
        if not why_not and percentile == 50:
            # Rounds of two runs are not of one race: each side is drawn on its own.
            ratio = replace(b, round_sizes=()).slower_than(a)
            word, interval = ratio_words(ratio)
            verdict = BETTER if "faster" in word else WORSE if "slower" in word else SAME
            difference = f"{word} {interval}"
        elif not why_not:
            (a_low, a_high), (b_low, b_high) = (latency.percentile_interval_ms(percentile) for latency in (a, b))
            verdict = BETTER if b_high < a_low else WORSE if b_low > a_high else SAME
            difference = f"{milliseconds(a_low)}–{milliseconds(a_high)} and {milliseconds(b_low)}–{milliseconds(b_high)} ms"
        yield Measure(f"latency p{percentile}", "ms", values[0], values[1], words[0], words[1], verdict, difference)
    memory = _amount("memory", a.memory_model_bytes, b.memory_model_bytes)
    yield replace(memory, verdict=UNCLEAR, difference=why_not) if why_not else memory


def not_comparable(a: Latency, b: Latency) -> str:
    """Why two latencies do not measure the same; "" where they do."""
    if scope := b.scope_differences(a):
        return f"other queries: {'; '.join(scope)}"
    if a.fingerprint is None or b.fingerprint is None:
        return "the machine of one is not known"
    if differences := b.fingerprint.differences(a.fingerprint):
        return f"other machines: {'; '.join(differences)}"
    if a.host_is_target != b.host_is_target:
        return f"{where_measured(a)}, and {where_measured(b)}"
    return ""


# --- gates and layers -----------------------------------------------------------------------------------------


def _gates(a: tuple[Gate, ...], b: tuple[Gate, ...]) -> Iterator[GatePair]:
    of_a, of_b = ({gate.name: status_word(gate.status) for gate in gates} for gates in (a, b))
    for name in dict.fromkeys((*of_a, *of_b)):
        yield GatePair(name, of_a.get(name, ""), of_b.get(name, ""))


def _layers(a: Report, b: Report) -> Iterator[Fact]:
    of_a, of_b = ({layer.name: layer for layer in report.recovered_sparsity.layers} for report in (a, b))
    for name in dict.fromkeys((*of_a, *of_b)):
        if of_a.get(name) != of_b.get(name):
            told = [
                f"{percent(layer.sparsity)} of {layer.num_weights:,}" if layer else ""
                for layer in (of_a.get(name), of_b.get(name))
            ]
            yield Fact(name, *told)
