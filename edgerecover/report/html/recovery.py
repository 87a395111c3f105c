"""How it was recovered: the stages and their time, agreement from dense to deployed, and the curves."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgerecover.artifacts import Proportion, Report, Rung
from edgerecover.report.html.axes import ticks, x_axis, y_axis
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
    Section,
    Table,
    bar_of,
    facts_table,
)
from edgerecover.report.html.closing import words
from edgerecover.report.words import (
    as_intended,
    capital,
    duration,
    mirroring,
    of_each,
    parity,
    percent,
    prediction,
    proportion,
    record,
)
from edgerecover.tasks.measure import words_of


def stages_section(report: Report) -> Section:
    """The stages and their time, and the images that were made."""
    total_s = sum(stage.seconds for stage in report.stages) or 1.0
    rows: list[tuple[Cell, ...]] = [
        (
            stage.stage,
            duration(stage.seconds),
            Bar(stage.seconds / total_s),
            "from an earlier run" if stage.reused else "",
        )
        for stage in report.stages
    ]
    rows.append(("total", duration(total_s), "", ""))
    s = report.synthetic
    images = f"{s.num_train:,} for training, {s.num_calibration:,} for calibration, {s.num_held_back:,} held out"
    facts = {"synthetic images": f"{s.source}: {images}", "mirrored": mirroring(s)}
    if s.teacher_agrees_with_target is not None:
        facts[as_intended(report.task)] = f"{percent(s.teacher_agrees_with_target)} by the teacher"
    if report.record:
        facts["activation record"] = record(report.record)
    return Section(
        "pipeline",
        "Pipeline",
        (
            Row(
                (
                    Table("Stages and their time", ("stage", "time", "share", ""), tuple(rows), (1,)),
                    facts_table("Images", facts),
                )
            ),
        ),
        words("dream", "mirrored", "train, calibration, held-out"),
    )


def ladder_section(report: Report) -> Section:
    """Agreement from the dense teacher to the deployed file, accuracy where it is known, and the curves."""
    rows: list[tuple[Cell, ...]] = [("dense teacher", "reference", "", "", "")]
    num = report.synthetic.num_calibration
    for rung in report.rungs:
        value = _of_rung(rung, num, is_graded=words_of(report.task).is_graded)
        bar = bar_of(value, "after" if rung.chosen else "before")
        rows.append((rung.name, f"{num:,} calibration", proportion(value), bar, "kept" if rung.chosen else ""))
    rows += _held_back_rows(report)
    source, names = report.synthetic.source, words_of(report.task)
    blocks: list[Block] = [
        Table(
            f"{capital(names.agreement)}, on {source}; from recovery to the file",
            ("", "images", f"{names.name} (95 %)", "", ""),
            tuple(rows),
            (2,),
            stacks=True,
        )
    ]
    if report.accuracy is not None:
        blocks.append(_accuracy(report))
    blocks.append(_legend(report))
    blocks += [Row(charts) for rung in report.rungs if (charts := tuple(_curves(rung, report)))]
    facts = {f"agreement of {name}": reached for name, reached in of_each(report.fidelity.by_output)}
    if report.accuracy is not None:
        each = of_each(report.accuracy.by_output)
        facts |= {f"{name} on {report.accuracy.source}": reached for name, reached in each}
    if report.parity:
        facts["parity"] = parity(report.parity, names)
    if report.fidelity.predicted:
        facts["expected"] = prediction(report.fidelity.predicted)
    if facts:
        blocks.append(facts_table("The float32 file against PyTorch, and the estimate for real images", facts))
    used = ("rung", "statistics repair", "layer-wise least squares", "distillation") if report.rungs else ()
    named = words(*used, "train, calibration, held-out", "agreement", *(["parity"] if report.parity else []))
    return Section("ladder", "From dense to deployed", tuple(blocks), named)


def _legend(report: Report) -> Legend:
    return Legend((
        *((Key("reference", "teacher"),) if report.accuracy and report.accuracy.teacher else ()),
        *((Key("before", "before recovery, or not kept"),) if report.fidelity.pruned or report.rungs else ()),
        Key("after", "kept, or exported" if report.rungs else "exported"),
        INTERVAL,
    ))  # fmt: skip


def _of_rung(rung: Rung, num_images: int, *, is_graded: bool) -> Proportion:
    """Whole where every image counts 0 or 1."""
    hits = rung.agreement * num_images
    return Proportion(hits if is_graded else round(hits), num_images)


def _held_back_rows(report: Report) -> Iterator[tuple[Cell, ...]]:
    """Agreement on the held-out images: before recovery, and of every file that was run."""
    f = report.fidelity
    images = f"{f.exported.total:,} held out"
    if f.pruned:
        yield f"{report.before}, before recovery", images, proportion(f.pruned), bar_of(f.pruned, "before"), ""
    if f.recovered:
        yield "recovered, in PyTorch", images, proportion(f.recovered), bar_of(f.recovered), ""
    if report.race is None:
        yield "exported file", images, proportion(f.exported), bar_of(f.exported), "shipped"
        return
    for runner in report.race.runners:
        if runner.agreement:
            told = proportion(runner.agreement)
            yield f"file: {runner.name}", images, told, bar_of(runner.agreement), runner.outcome.value


def _accuracy(report: Report) -> Table:
    assert report.accuracy is not None
    named = ((name, getattr(report.accuracy, name)) for name in ("teacher", "pruned", "recovered", "exported"))
    words, tones = {"pruned": report.before}, {"teacher": "reference", "pruned": "before"}
    rows = tuple(
        (words.get(name, name), proportion(value), bar_of(value, tones.get(name, "after")))
        for name, value in named
        if value
    )
    names = words_of(report.task)
    real = "real images" if names.is_graded else "real labelled images"
    caption = f"{capital(names.truth)} on {report.accuracy.num_images:,} {real}: {report.accuracy.source}"
    title = f"{names.truth} (95 %)" if names.is_graded else "top-1 (95 %)"
    return Table(caption, ("", title, ""), rows, (1,), stacks=True)


def _curves(rung: Rung, report: Report) -> Iterator[Chart]:
    """How a distillation went: agreement, and loss."""
    if not rung.curve:
        return
    last = rung.curve[-1].step
    x = x_axis(0, last)
    looked = [(point.step, point.agreement) for point in rung.curve if point.agreement is not None]
    if looked:
        before = report.rungs[max(0, report.rungs.index(rung) - 1)].agreement
        looked = [(0, before), *looked]
        y = y_axis(0, 100)
        yield Chart(
            f"{rung.name}: {words_of(report.task).agreement} on calibration {report.synthetic.source}",
            f"From {percent(before)} before it to {percent(looked[-1][1])} after {last:,} steps.",
            "step",
            ticks(x),
            ticks(y, " %"),
            points=tuple(Mark(x.px(s), y.px(100 * a), 0, 0, f"step {s:,}: {percent(a)}") for s, a in looked),
        )
    losses = [point for point in rung.curve if math.isfinite(point.loss)]
    if losses:
        y = y_axis(0, max(point.loss for point in losses) or 1.0)
        yield Chart(
            f"{rung.name}: loss",
            f"From {losses[0].loss:.3g} to {losses[-1].loss:.3g} in {last:,} steps.",
            "step",
            ticks(x),
            ticks(y),
            points=tuple(Mark(x.px(p.step), y.px(p.loss), 0, 0, f"step {p.step:,}: {p.loss:.3g}") for p in losses),
        )
