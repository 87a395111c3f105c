"""At a glance: agreement, accuracy, latency, file and zeros of a run, as tiles."""

from __future__ import annotations

from edgerecover.artifacts import Exported, Proportion, Report
from edgerecover.report.html.blocks import (
    AFTER,
    BEFORE,
    INTERVAL,
    Bar,
    Block,
    Legend,
    Section,
    Tile,
    Tiles,
    bar_of,
)
from edgerecover.report.html.closing import words
from edgerecover.report.samples import milliseconds
from edgerecover.report.words import before_words, bounds, capital, grounds, percent, size, where_measured
from edgerecover.tasks.measure import words_of


def summary_section(report: Report) -> Section:
    """Agreement, accuracy, latency, file and zeros, as tiles."""
    agreement, exported, student = report.fidelity.exported, report.exported, report.student
    low, high = agreement.interval()
    names = words_of(report.task)
    before = f"; {percent(report.fidelity.pruned.value)} {before_words(report)}" if report.fidelity.pruned else ""
    precision_named = report.variant.precision.value if report.variant else "one file"
    tiles = Tiles((
        Tile(
            capital(names.agreement),
            percent(agreement.value),
            f"{100 * low:.1f}–{100 * high:.1f} %{before}. On {agreement.total:,} held-out {report.synthetic.source}; "
            + ("not the truth." if names.is_graded else "not accuracy."),
            _before_and_after(report.fidelity.pruned, agreement),
        ),
        _accuracy_tile(report),
        Tile(
            "Latency, p50",
            f"{milliseconds(report.latency.percentile_ms(50))} ms",
            f"p99 {milliseconds(report.latency.percentile_ms(99))} ms, batch {report.latency.batch}. "
            f"{where_measured(report.latency)}.",
        ),
        Tile("File", size(exported.size_bytes), f"{precision_named}, opset {exported.opset}, {_batch(exported)}."),
        Tile(
            "Channels" if student.macs_kept is not None else "Zeros",
            f"{percent(student.macs_kept)} of MACs"
            if student.macs_kept is not None
            else percent(report.recovered_sparsity.sparsity),
            f"{student.pruned_to} in the input model.",
        ),
    ))  # fmt: skip
    blocks: list[Block] = [tiles]
    if report.fidelity.pruned or (report.accuracy and report.accuracy.pruned):
        blocks.append(Legend((BEFORE, AFTER, INTERVAL)))
    named = words(
        "agreement", *(["accuracy"] if report.accuracy else []), "train, calibration, held-out", "dream", "p50, p99"
    )
    return Section("summary", "At a glance", tuple(blocks), named)


def _before_and_after(before: Proportion | None, after: Proportion) -> tuple[Bar, ...]:
    return (*((bar_of(before, "before"),) if before else ()), bar_of(after))


def _accuracy_tile(report: Report) -> Tile:
    names = words_of(report.task)
    if report.accuracy is not None:
        a = report.accuracy
        known = [("teacher", a.teacher), (report.before, a.pruned)]
        told = ", ".join(f"{name} {percent(value.value)}" for name, value in known if value)
        real = "real images" if names.is_graded else "real labelled images"
        return Tile(
            capital(names.truth),
            percent(a.exported.value),
            f"{told}. On {a.num_images:,} {real}: {a.source}.",
            _before_and_after(a.pruned, a.exported),
        )
    predicted = report.fidelity.predicted
    if predicted is not None:
        if predicted.doubt is not None:
            return Tile("Expected on real images", "cannot be predicted", f"{grounds(predicted)}.")
        return Tile(
            "Expected on real images",
            f"{100 * predicted.kept:.0f} %",
            f"{bounds(predicted)} of the teacher's accuracy kept. Estimated from dreams, not measured.",
        )
    given = "No real images with truth" if names.is_graded else "No real labelled images"
    return Tile(capital(names.truth), "not measured", f"{given} were given (--eval-data).")


def _batch(exported: Exported) -> str:
    return f"batch {exported.batch}" if exported.batch else "dynamic batch"
