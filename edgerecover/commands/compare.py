"""Two bundles side by side: what differs, what can be compared, and whether a difference is more than chance.

Two numbers are compared only where they measure the same thing: agreement with the same teacher on images of one kind,
accuracy on the same images, latency of the same query on machines of the same fingerprint. Where they do not, it says
why. Nothing is run: `edgerecover bench A --against B` races the two, which tells more of latency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgerecover.artifacts import (
    Accuracy,
    Decisions,
    Gate,
    Latency,
    Proportion,
    Release,
    Report,
    TaskKind,
    difference_interval,
    paired_interval,
)
from edgerecover.gate.drift import against_runs
from edgerecover.gate.opening import Opened, open_bundle
from edgerecover.report.plain import make_plain
from edgerecover.report.samples import milliseconds, ratio_words
from edgerecover.report.side_by_side import BETTER, SAME, UNCERTAIN, UNCLEAR, WORSE, Fact, GatePair, Measure, SideBySide
from edgerecover.report.words import percent, proportion, size
from edgerecover.tasks.measure import words_of
from edgerecover.validation.regressions import MEMORY_NOISE_BYTES

_SHORT = 12
"""Digits of a digest that tell two files apart for people."""
_NEGLIGIBLE = 0.01
"""Files whose sizes differ by less are as large as each other."""


def compare(a: Path, b: Path) -> SideBySide:
    """Verify two bundles, folders or archives, and put `b` beside `a`.

    Raises:
        BadInputError: one is no bundle, or its report cannot be read.
        VerificationError: one is not what its manifest lists.
    """
    with open_bundle(a) as opened_a, open_bundle(b) as opened_b:
        return side_by_side(opened_a, opened_b, str(a), str(b))


def side_by_side(a: Opened, b: Opened, a_name: str, b_name: str) -> SideBySide:
    """The same of two that are open."""
    both = SideBySide(
        a_name,
        b_name,
        facts=tuple(_facts(a, b)),
        measures=tuple(_measures(a, b)),
        gates=tuple(_gates(a.report.gates, b.report.gates)),
        layers=tuple(_layers(a.report, b.report)),
        task=b.report.task,
    )
    return make_plain(both)


def _facts(a: Opened, b: Opened) -> Iterator[Fact]:
    of_a, of_b = _stated(a), _stated(b)
    for name in dict.fromkeys((*of_a, *of_b)):
        yield Fact(name, of_a.get(name, ""), of_b.get(name, ""))


def _stated(opened: Opened) -> dict[str, str]:
    report = opened.report
    return {
        "verdict": report.verdict.word,
        "manifest": _short(opened.release.manifest_sha256),
        "made": report.created_utc,
        "target": report.target,
        "profile": report.profile,
        "seed": str(report.seed),
        "data used": report.data_used,
        "architecture": str(report.student.architecture),
        "student": f"{report.student.path}, {_short(report.student.sha256)}",
        "as it came": report.student.pruned_to,
        "teacher": f"{report.teacher.path}, {_short(report.teacher.sha256)}",
        "record": _short(report.record.sha256) if report.record else "none",
        "exported file": _short(report.exported.sha256),
        "precision": report.variant.precision.value if report.variant else "as given",
        "opset": str(report.exported.opset),
        "kept rung": next((rung.name for rung in report.rungs if rung.chosen), "none"),
        "edgerecover": report.edgerecover_version,
        **report.tool_versions,
    }


def _short(sha256: str) -> str:
    return f"{sha256[:_SHORT]}…"


# --- what was measured ----------------------------------------------------------------------------------------


def _measures(a: Opened, b: Opened) -> Iterator[Measure]:
    yield _agreement(a.release, b.release)
    yield from _agreement_of_outputs(a, b)
    if a.release.accuracy or b.release.accuracy:
        yield _accuracy(a.release, b.release)
        yield from _accuracy_of_outputs(a, b)
    yield _of_file("file", a.release.size_bytes, b.release.size_bytes)
    gzip_a, gzip_b = a.report.exported.compressed_bytes, b.report.exported.compressed_bytes
    if gzip_a and gzip_b:
        yield _of_file("file, by gzip", gzip_a, gzip_b)
    yield _zeros(a.report.recovered_sparsity.sparsity, b.report.recovered_sparsity.sparsity)
    yield from _latencies(a.report.latency, b.report.latency)


def _agreement(a: Release, b: Release) -> Measure:
    why_not = "; ".join(b.image_differences(a))
    return _of_decisions(_name_of_agreement(b.task), a.agreement, b.agreement, a.decisions, b.decisions, why_not)


def _name_of_agreement(task: TaskKind) -> str:
    """Where the truth has the same name, this one says that it is with the teacher."""
    words = words_of(task)
    return words.agreement if words.name == words.truth else words.name


def _agreement_of_outputs(a: Opened, b: Opened) -> Iterator[Measure]:
    """Of several outputs, each: a weighted mean may hide one that is worse."""
    of_a, of_b = a.report.fidelity.by_output, b.report.fidelity.by_output
    images = b.release.image_differences(a.release)
    for name, task, why_not in _shared_outputs(a, b):
        one, other = of_a.get(name), of_b.get(name)
        if one and other:
            yield _of_decisions(
                f"{name}: {_name_of_agreement(task)}", one.exported, other.exported, one.decisions, other.decisions,
                "; ".join((*why_not, *images)),
            )  # fmt: skip


def _accuracy_of_outputs(a: Opened, b: Opened) -> Iterator[Measure]:
    of_a, of_b = a.report.accuracy, b.report.accuracy
    if of_a is None or of_b is None:
        return
    for name, task, why_not in _shared_outputs(a, b):
        one, other = of_a.by_output.get(name), of_b.by_output.get(name)
        if one and other:
            yield _of_decisions(
                f"{name}: {words_of(task).truth}", one.exported, other.exported, one.decisions, other.decisions,
                "; ".join((*why_not, *_other_real_images(of_a, of_b))),
            )  # fmt: skip


def _shared_outputs(a: Opened, b: Opened) -> Iterator[tuple[str, TaskKind, tuple[str, ...]]]:
    """Outputs that both have, with the task of B's, and why the two are not compared if A's has another one."""
    tasks_a, tasks_b = (
        {part.name: part.output.task for part in opened.report.student.output.parts}
        if opened.report.student.output
        else {}
        for opened in (a, b)
    )
    for name in filter(tasks_a.__contains__, tasks_b):
        now, was = tasks_b[name], tasks_a[name]
        yield name, now, () if now is was else (f"task: {now.value}, was {was.value}",)


def _other_real_images(a: Accuracy, b: Accuracy) -> tuple[str, ...]:
    differs = a.source != b.source or a.num_images != b.num_images
    return (f"images: {b.source}, was {a.source}",) if differs else ()


def _accuracy(a: Release, b: Release) -> Measure:
    if a.accuracy is None or b.accuracy is None:
        values = [release.accuracy.exported if release.accuracy else None for release in (a, b)]
        numbers = [value.value if value else None for value in values]
        words = [proportion(value) if value else "not measured" for value in values]
        why_not = "only one was judged on real images"
        return Measure(words_of(b.task).truth, "fraction", numbers[0], numbers[1], words[0], words[1], UNCLEAR, why_not)
    why_not = "; ".join(_other_real_images(a.accuracy, b.accuracy))
    sides = (a.accuracy.exported, b.accuracy.exported)
    return _of_decisions(words_of(b.task).truth, *sides, a.accuracy.decisions, b.accuracy.decisions, why_not)


def _of_decisions(
    name: str,
    a: Proportion,
    b: Proportion,
    a_decisions: Decisions | None,
    b_decisions: Decisions | None,
    why_not: str,
) -> Measure:
    """By pairs where the images are known to be the same, which tells most."""

    def told(verdict: str, words: str) -> Measure:
        return Measure(name, "fraction", a.value, b.value, proportion(a), proportion(b), verdict, words)

    if why_not:
        return told(UNCLEAR, why_not)
    pairs = b_decisions.pairs(a_decisions) if a_decisions and b_decisions else None
    interval = difference_interval(b, a) if pairs is None else paired_interval(*pairs, b.total)
    low, high = (100 * edge for edge in interval)
    on = "on the same images"
    if pairs is None:
        known = a_decisions and b_decisions
        on = "on images of one kind, not the same" if known else "not known image by image"
    words = f"{100 * (b.value - a.value):+.1f} points ({low:+.1f} to {high:+.1f}), {on}"
    return told(BETTER if low > 0 else WORSE if high < 0 else SAME, words)


def _of_file(name: str, a: int, b: int) -> Measure:
    change = b / a - 1 if a else 0.0
    verdict = SAME if abs(change) < _NEGLIGIBLE else WORSE if change > 0 else BETTER
    words = f"{100 * change:+.1f} %" if a != b else ""
    return Measure(name, "bytes", a, b, size(a), size(b), verdict, words)


def _zeros(a: float, b: float) -> Measure:
    """Neither better nor worse: what they are worth the other rows say."""
    verdict, words = (SAME, "") if a == b else (UNCLEAR, f"{100 * (b - a):+.1f} points; worth what the rest says")
    return Measure("zeros", "fraction", a, b, percent(a), percent(b), verdict, words)


def _latencies(a: Latency, b: Latency) -> Iterator[Measure]:
    why_not = "; ".join(_other_machine(a, b))
    for percentile in (50, 99):
        yield _percentile(percentile, a, b, why_not)
    memory_a, memory_b = a.memory_model_bytes, b.memory_model_bytes
    change = memory_b - memory_a
    verdict = SAME if abs(change) <= MEMORY_NOISE_BYTES else WORSE if change > 0 else BETTER
    words = f"{change / 1e6:+.1f} MB; {MEMORY_NOISE_BYTES / 1e6:g} MB may be chance"
    if why_not:
        verdict, words = UNCLEAR, why_not
    yield Measure("peak memory", "bytes", memory_a, memory_b, size(memory_a), size(memory_b), verdict, words)


_TOLD_APART = 1.5
"""An interval that holds such a ratio, or its inverse, says little: it is not called the same."""


def _percentile(percentile: int, a: Latency, b: Latency, why_not: str) -> Measure:
    values = [latency.percentile_ms(percentile) for latency in (a, b)]
    words = [f"{milliseconds(value)} ms" for value in values]
    verdict, difference = UNCLEAR, why_not
    if not why_not and percentile == 50:
        compared = against_runs(b, (a,))
        slower = compared.slower
        verdict = BETTER if slower.high < 1 else WORSE if slower.low > 1 else SAME
        if (
            verdict == SAME
            and a.samples_ms != b.samples_ms
            and not 1 / _TOLD_APART < slower.low <= slower.high < _TOLD_APART
        ):
            verdict = UNCERTAIN
        difference = f"{' '.join(ratio_words(slower))}; {compared.how}"
    elif not why_not:
        difference = f"{_interval(b, percentile)}, was {_interval(a, percentile)} ms; `bench --against` can tell"
    return Measure(f"latency p{percentile}", "ms", values[0], values[1], words[0], words[1], verdict, difference)


def _interval(latency: Latency, percentile: int) -> str:
    low, high = latency.percentile_interval_ms(percentile)
    return f"{milliseconds(low)}–{milliseconds(high)}"


def _other_machine(a: Latency, b: Latency) -> tuple[str, ...]:
    """For people, why two latencies do not measure the same; empty where they do."""
    if a.fingerprint is None or b.fingerprint is None:
        return ("the machine of one of them is unknown",)
    return (*b.fingerprint.differences(a.fingerprint), *b.scope_differences(a))


# --- gates and layers -----------------------------------------------------------------------------------------


def _gates(a: Sequence[Gate], b: Sequence[Gate]) -> Iterator[GatePair]:
    of_a, of_b = ({gate.name: gate.status.word for gate in gates} for gates in (a, b))
    for name in dict.fromkeys((*of_a, *of_b)):
        yield GatePair(name, of_a.get(name, ""), of_b.get(name, ""))


def _layers(a: Report, b: Report) -> Iterator[Fact]:
    """Those whose zeros differ; none where the two have no layer in common."""
    of_a, of_b = ({layer.name: layer for layer in report.recovered_sparsity.layers} for report in (a, b))
    if not of_a.keys() & of_b.keys():
        return
    for name in dict.fromkeys((*of_a, *of_b)):
        layers = (of_a.get(name), of_b.get(name))
        told = [f"{percent(one.sparsity)} of {one.num_weights:,}" if one else "" for one in layers]
        if told[0] != told[1]:
            yield Fact(name, told[0], told[1])
