"""The report as one HTML file that needs nothing else: no network, no script, no font.

Pictures and charts are inside, a browser in dark mode shows it dark, and it prints. It never takes more than
`MAX_BYTES`: where it would, it shows fewer pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgerecover.artifacts import (
    ByClass,
    Exported,
    Gate,
    GateStatus,
    Latency,
    LayerSparsity,
    Proportion,
    Ratio,
    Report,
    Rung,
)
from edgerecover.report import race as race_words
from edgerecover.report.engines import engine_lines
from edgerecover.report.html.blocks import (
    BOTTOM,
    Bar,
    Block,
    Cell,
    Chart,
    Chip,
    DataUri,
    Mark,
    Matrix,
    Page,
    Picture,
    Pictures,
    Row,
    Section,
    Spark,
    Table,
    Text,
    Tile,
    Tiles,
    Whisker,
    beside_each_other,
    ticks,
    x_axis,
    y_axis,
)
from edgerecover.report.html.draw import MAX_BYTES, draw
from edgerecover.report.picture import strips
from edgerecover.report.plain import plainly
from edgerecover.report.samples import PERCENTILES, conditions_words, histogram, milliseconds, round_medians
from edgerecover.report.words import (
    before_words,
    bounds,
    count,
    duration,
    gate_counts,
    grounds,
    is_not_accuracy,
    mirroring,
    parity,
    percent,
    precision,
    prediction,
    proportion,
    record,
    shape,
    size,
    status_tone,
    status_word,
    where_measured,
)
from edgerecover.runtime.measure.doubts import doubts

_MOST_IN_MATRIX = 20
"""Classes; of more, the table of confusions says more."""
_MOST_CLASSES = 40
"""Listed one by one;"""
_MOST_CONFUSIONS = 20
_MOST_LAYERS = 400
_MOST_COLUMNS = 180
"""Of a chart, which has not more pixels to show them."""
_FURTHEST_RATIO = 1000.0
_PICTURE_BYTES = (1_500_000, 400_000, 0)
_TEXT_LENGTHS = (2_000, 400, 80)
"""Tried one after the other until the page is small enough: bytes of pictures, and characters of a text."""


def html(report: Report, sheet_png: bytes | None = None, manifest_sha256: str | None = None) -> str:
    """The whole report as HTML of at most `MAX_BYTES` bytes.

    Args:
        report: any; its texts may be hostile.
        sheet_png: the bundle's contact sheet, which `report.sheet` describes; None shows no pictures.
        manifest_sha256: digest of the bundle's manifest, where it is known.

    Raises:
        ValueError: the contact sheet is not what the report says.
    """
    report = plainly(report)
    for picture_bytes, text_length in zip(_PICTURE_BYTES, _TEXT_LENGTHS, strict=True):
        pictures = _pictures(report, sheet_png, picture_bytes)
        text = draw(report_page(report, pictures, manifest_sha256), text_length)
        if len(text.encode()) <= MAX_BYTES:
            return text
    raise ValueError(f"the report does not fit in {MAX_BYTES / 1e6:g} MB")


def report_page(report: Report, pictures: Pictures | None = None, manifest_sha256: str | None = None) -> Page:
    """What the page shows, in the order of the terminal's report."""
    sections = (
        _warnings(report),
        _gates(report),
        _stages(report),
        _ladder(report),
        _dreams(report, pictures),
        _classes(report),
        _sparsity(report),
        _race(report),
        _engines(report),
        _latency(report),
        _provenance(report, manifest_sha256),
    )
    return Page(
        title=f"{report.student.path} for {report.target}",
        badge=_chip(report.verdict),
        lead=gate_counts(report.gates),
        lines=(
            f"{report.student.architecture or 'ONNX file'}, {report.student.num_parameters:,} parameters, "
            f"{report.student.pruned_to}",
            report.target_description,
            f"profile {report.profile}, seed {report.seed}, {report.device}, data used: {report.data_used}",
            f"edgerecover {report.edgerecover_version}, {report.created_utc}",
        ),
        sections=(Section("summary", "At a glance", (_summary(report),)), *(s for s in sections if s is not None)),
        footer=is_not_accuracy(report),
    )


# --- at a glance ----------------------------------------------------------------------------------------------


def _summary(report: Report) -> Tiles:
    agreement, exported, student = report.fidelity.exported, report.exported, report.student
    low, high = agreement.interval()
    before = f"; {percent(report.fidelity.pruned.value)} {before_words(report)}" if report.fidelity.pruned else ""
    precision_named = report.variant.precision.value if report.variant else "one file"
    return Tiles((
        Tile(
            "Agreement with the teacher",
            percent(agreement.value),
            f"{100 * low:.1f}–{100 * high:.1f} %{before}. On {agreement.total:,} held-back {report.synthetic.source}; "
            "not accuracy.",
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
            f"{student.pruned_to} as it came.",
        ),
    ))  # fmt: skip


def _before_and_after(before: Proportion | None, after: Proportion) -> tuple[Bar, ...]:
    return (*((_bar(before, "before"),) if before else ()), _bar(after))


def _accuracy_tile(report: Report) -> Tile:
    if report.accuracy is not None:
        a = report.accuracy
        known = [("teacher", a.teacher), (report.before, a.pruned)]
        told = ", ".join(f"{name} {percent(value.value)}" for name, value in known if value)
        return Tile(
            "Accuracy",
            percent(a.exported.value),
            f"{told}. On {a.num_images:,} real labelled images: {a.source}.",
            _before_and_after(a.pruned, a.exported),
        )
    predicted = report.fidelity.predicted
    if predicted is not None:
        if predicted.doubt is not None:
            return Tile("Expected on real images", "cannot be predicted", f"{grounds(predicted)}.")
        return Tile(
            "Expected on real images",
            f"{100 * predicted.kept:.0f} % {bounds(predicted)}",
            "of the teacher's accuracy kept. Read from dreams, not measured.",
        )
    return Tile("Accuracy", "not measured", "No real labelled images were given (--eval-data).")


def _batch(exported: Exported) -> str:
    return f"batch {exported.batch}" if exported.batch else "dynamic batch"


def _warnings(report: Report) -> Section | None:
    if not report.warnings:
        return None
    return Section("warnings", "Warnings", tuple(Text(warning, "warning") for warning in report.warnings[:100]))


def _gates(report: Report) -> Section:
    rows = tuple((gate.name, _chip(gate.status), *_numbers_of(gate), gate.message) for gate in report.gates)
    header = ("gate", "", "measured", "limit", "in words")
    return Section(
        "gates", "Gates", (Table("Every gate, what was measured and the limit", header, rows, (2, 3), stacks=True),)
    )


def _chip(status: GateStatus) -> Chip:
    return Chip(status_word(status), status_tone(status))


def _numbers_of(gate: Gate) -> tuple[str, str]:
    unit = f" {gate.unit}" if gate.unit else ""
    sign = "≥" if gate.direction == "at least" else "≤"
    measured = "–" if gate.measured is None else f"{gate.measured:.4g}{unit}"
    return measured, f"{sign} {gate.limit:.4g}{unit}"


# --- how it was recovered -------------------------------------------------------------------------------------


def _stages(report: Report) -> Section:
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
    images = f"{s.num_train:,} to learn from, {s.num_calibration:,} to choose by, {s.num_held_back:,} held back"
    facts = {"synthetic images": f"{s.source}: {images}", "mirrored": mirroring(s)}
    if s.teacher_agrees_with_target is not None:
        facts["seen as their class"] = f"{percent(s.teacher_agrees_with_target)} by the teacher"
    if report.record:
        facts["activation record"] = record(report.record)
    return Section(
        "pipeline",
        "Pipeline",
        (
            Row(
                (
                    Table("Stages and their time", ("stage", "time", "share", ""), tuple(rows), (1,)),
                    _facts("Images", facts),
                )
            ),
        ),
    )


def _facts(caption: str, facts: dict[str, str]) -> Table:
    return Table(caption, (), tuple(facts.items()))


def _ladder(report: Report) -> Section:
    rows: list[tuple[Cell, ...]] = [("dense teacher", "decides what is right", "", "", "")]
    num = report.synthetic.num_calibration
    for rung in report.rungs:
        value = _of_rung(rung, num)
        bar = _bar(value, "after" if rung.chosen else "before")
        rows.append((rung.name, f"{num:,} calibration", proportion(value), bar, "kept" if rung.chosen else ""))
    rows += _judged(report)
    source = report.synthetic.source
    blocks: list[Block] = [
        Table(
            f"Agreement with the teacher, on {source}; from recovery to the file",
            ("", "images", "agreement (95 %)", "", ""),
            tuple(rows),
            (2,),
            stacks=True,
        )
    ]
    if report.accuracy is not None:
        blocks.append(_accuracy(report))
    blocks += [Row(charts) for rung in report.rungs if (charts := tuple(_curves(rung, report)))]
    facts = {}
    if report.parity:
        facts["parity"] = parity(report.parity)
    if report.fidelity.predicted:
        facts["expected"] = prediction(report.fidelity.predicted)
    if facts:
        blocks.append(_facts("The float32 file beside PyTorch, and what is expected on real images", facts))
    return Section("ladder", "From dense to deployed", tuple(blocks))


def _of_rung(rung: Rung, num_images: int) -> Proportion:
    return Proportion(round(rung.agreement * num_images), num_images)


def _judged(report: Report) -> Iterator[tuple[Cell, ...]]:
    """On the held-back images: before recovery, and every file that was run."""
    f = report.fidelity
    images = f"{f.exported.total:,} held back"
    if f.pruned:
        yield f"{report.before}, before recovery", images, proportion(f.pruned), _bar(f.pruned, "before"), ""
    if f.recovered:
        yield "recovered, in PyTorch", images, proportion(f.recovered), _bar(f.recovered), ""
    if report.race is None:
        yield "exported file", images, proportion(f.exported), _bar(f.exported), "shipped"
        return
    for runner in report.race.runners:
        if runner.agreement:
            told = proportion(runner.agreement)
            yield f"file: {runner.name}", images, told, _bar(runner.agreement), runner.outcome.value


def _bar(value: Proportion, tone: str = "after") -> Bar:
    return Bar(value.value, *value.interval(), tone)


def _accuracy(report: Report) -> Table:
    assert report.accuracy is not None
    named = ((name, getattr(report.accuracy, name)) for name in ("teacher", "pruned", "recovered", "exported"))
    words, tones = {"pruned": report.before}, {"teacher": "reference", "pruned": "before"}
    rows = tuple(
        (words.get(name, name), proportion(value), _bar(value, tones.get(name, "after")))
        for name, value in named
        if value
    )
    caption = f"Accuracy on {report.accuracy.num_images:,} real labelled images: {report.accuracy.source}"
    return Table(caption, ("", "top-1 (95 %)", ""), rows, (1,), stacks=True)


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
            f"{rung.name}: agreement with the teacher on calibration {report.synthetic.source}",
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


# --- images and classes ---------------------------------------------------------------------------------------


def _pictures(report: Report, sheet_png: bytes | None, max_bytes: int) -> Pictures | None:
    if report.sheet is None or sheet_png is None or not max_bytes:
        return None
    made = []
    for strip in strips(sheet_png, report.sheet, max_bytes):
        name = "" if strip.class_number is None else report.class_name(strip.class_number)
        says = f"{count(strip.num_images, 'synthetic image')}{f' made for {name}' if name else ''}"
        source = DataUri.of(strip.media_type, strip.content)
        made.append(Picture(source, says, name, strip.width_px, strip.height_px))
    return Pictures(tuple(made))


def _dreams(report: Report, pictures: Pictures | None) -> Section | None:
    if pictures is None or not pictures.pictures:
        return None
    num_classes = report.teacher.num_classes or len(report.classes)
    shown = len(pictures.pictures)
    which = f" {shown} of {num_classes:,} classes are shown." if 0 < shown < num_classes and shown > 1 else ""
    return Section(
        "images", "Synthetic images", (Text(f"{_made_from(report)} No real image is among them.{which}"), pictures)
    )


def _made_from(report: Report) -> str:
    if report.synthetic.source == "real images":
        return "The golden inputs come from these; the file was judged on real images, which are not shown."
    source = f"Some of the {report.synthetic.source} that the network was recovered or judged with."
    if report.synthetic.source != "dreams":
        return source
    if report.record:
        return f"{source} They were made from the teacher and from statistics of real images (its activation record)."
    return f"{source} They were made from the teacher alone."


def _classes(report: Report) -> Section | None:
    blocks: list[Block] = []
    if report.fidelity.by_class:
        caption = f"Agreement on held-back {report.synthetic.source}, by the class that the teacher decides for"
        blocks += _by_class(report, report.fidelity.by_class, caption, "teacher")
    if report.accuracy and report.accuracy.by_class:
        caption = f"Accuracy on {report.accuracy.source}, by label"
        blocks += _by_class(report, report.accuracy.by_class, caption, "label")
    return Section("classes", "By class", tuple(blocks)) if blocks else None


def _by_class(report: Report, values: ByClass, caption: str, by: str) -> Iterator[Block]:
    present = [number for number, total in enumerate(values.totals) if total]
    worst_first = sorted(present, key=lambda number: (values.exported_of(number).value, -values.totals[number]))
    is_many = len(present) > _MOST_CLASSES
    numbers = worst_first[:_MOST_CLASSES] if is_many else present
    header = ["class", "images", "exported (95 %)", *([report.before] if values.pruned else []), ""]
    rows: list[tuple[Cell, ...]] = []
    for number in numbers:
        value, before = values.exported_of(number), values.pruned_of(number)
        told = [proportion(value), *([percent(before.value)] if before else [])]
        rows.append((report.class_name(number), f"{value.total:,}", *told, _bar(value)))
    if is_many:
        caption += f"; the {_MOST_CLASSES} lowest of {len(present):,} classes"
        yield _class_chart(report, values, worst_first, by)
    table = Table(caption, tuple(header), tuple(rows), (1, 2, 3) if values.pruned else (1, 2))
    if len(values.totals) <= _MOST_IN_MATRIX:
        yield Row((table, _matrix(report, values, by)))
    else:
        confusions = _confusions(report, values, by)
        yield Row((table, confusions)) if confusions.rows else table
    if absent := len(values.totals) - len(present):
        yield Text(f"{count(absent, 'class', 'classes')} of {len(values.totals):,} had no image.")


def _class_chart(report: Report, values: ByClass, worst_first: Sequence[int], by: str) -> Chart:
    """All classes from the lowest to the highest, grouped where there are more than pixels."""
    x, y = x_axis(0, len(worst_first)), y_axis(0, 100)
    groups = _grouped([values.exported_of(number).value for number in worst_first], _MOST_COLUMNS)
    columns = tuple(_column(x.px(start), x.px(end), y.px(100 * mean), percent(mean)) for start, end, mean in groups)
    zero = sum(values.exported[number] == 0 for number in worst_first)
    return Chart(
        f"All {len(worst_first):,} classes, lowest first ({'agreement' if by == 'teacher' else 'accuracy'})",
        f"{zero:,} classes are never decided as the {by} does.",
        "classes",
        ticks(x),
        ticks(y, " %"),
        columns=columns,
    )


def _grouped(values: Sequence[float], most: int) -> Iterator[tuple[int, int, float]]:
    """Neighbours together, so that there are at most so many: first, one past the last, and mean."""
    num_groups = min(most, len(values))
    for number in range(num_groups):
        start, end = (edge * len(values) // num_groups for edge in (number, number + 1))
        yield start, end, sum(values[start:end]) / (end - start)


def _column(left: float, right: float, top: float, says: str, tone: str = "after") -> Mark:
    gap = 1.0 if right - left > 3 else 0.0
    return Mark(left, top, max(0.5, right - left - gap), max(0.0, BOTTOM - top), says, tone)


def _matrix(report: Report, values: ByClass, by: str) -> Matrix:
    num_classes = len(values.totals)
    counts = [[0] * (num_classes + 1) for _ in range(num_classes)]
    for number, hits in enumerate(values.exported):
        counts[number][number] = hits
    for pair in values.confused:
        counts[pair.expected][num_classes if pair.decided is None else pair.decided] = pair.num_images
    names = tuple(report.class_name(number) for number in range(num_classes))
    has_undecided = any(row[-1] for row in counts)
    columns = (*names, "not a number") if has_undecided else names
    return Matrix(
        "Confusion: what the exported file decides",
        f"{by} ↓ file →",
        names,
        columns,
        tuple(tuple(row[: len(columns)]) for row in counts),
    )


def _confusions(report: Report, values: ByClass, by: str) -> Table:
    rows = tuple(
        (
            report.class_name(pair.expected),
            "not a number" if pair.decided is None else report.class_name(pair.decided),
            f"{pair.num_images:,}",
        )
        for pair in values.confused[:_MOST_CONFUSIONS]
    )
    rest = sum(pair.num_images for pair in values.confused[_MOST_CONFUSIONS:]) + values.num_left_out
    caption = "Most frequent confusions" + (f"; {rest:,} images in rarer ones" if rest else "")
    return Table(caption, (by, "file decides", "images"), rows, (2,))


# --- zeros ----------------------------------------------------------------------------------------------------


def _sparsity(report: Report) -> Section:
    """What of the dense network's weights is gone, layer by layer."""
    layers = report.recovered_sparsity.layers
    before = {layer.name: layer for layer in report.student.sparsity.layers}
    dense = {layer.name: layer for layer in report.teacher.sparsity.layers} if report.same_architecture else {}
    gone = [_gone(layer, dense.get(layer.name)) for layer in layers]
    blocks: list[Block] = [Text(report.sparsity_verdict)]
    if layers:
        x, y = x_axis(0, len(layers)), y_axis(0, 100)
        columns = tuple(
            _column(x.px(start), x.px(end), y.px(100 * mean), f"{layers[start].name}: {percent(mean)}")
            for start, end, mean in _grouped(gone, _MOST_COLUMNS)
        )
        chart = Chart(
            f"Weights that are gone, of {'the dense network' if dense else 'each layer'}'s; input to output",
            f"Between {percent(min(gone))} and {percent(max(gone))} in {count(len(layers), 'layer')}.",
            "layer",
            ticks(x),
            ticks(y, " %"),
            columns=columns,
        )
        rows = [
            (
                layer.name,
                shape(layer.shape),
                percent(before[layer.name].sparsity) if layer.name in before else "",
                percent(layer.sparsity),
                *([percent(share)] if dense else []),
                layer.pattern.value,
            )
            for layer, share in zip(layers[:_MOST_LAYERS], gone, strict=False)
        ]
        header = ("layer", "shape", "zeros as it came", "zeros after", *(["gone of dense"] if dense else []), "pattern")
        left_out = f"; the first {_MOST_LAYERS} of {len(layers):,}" if len(layers) > _MOST_LAYERS else ""
        table = Table(f"Zeros layer by layer, before and after{left_out}", header, tuple(rows), (2, 3, 4), True)
        blocks += [Row((chart, _zeros(report))), table]
    return Section("sparsity", "Zeros", tuple(blocks))


def _gone(layer: LayerSparsity, dense: LayerSparsity | None) -> float:
    of = dense.num_weights if dense else layer.num_weights
    return max(0.0, 1 - (layer.num_weights - layer.num_zeros) / of) if of else 0.0


def _zeros(report: Report) -> Table:
    e, came, after = report.exported, report.student.sparsity, report.recovered_sparsity
    facts = {
        "as it came": f"{percent(came.sparsity)} of {came.num_weights:,} weights, {came.pattern.value}",
        "recovered": f"{percent(after.sparsity)} of {after.num_weights:,} weights, {after.pattern.value}",
        "exported file": f"{e.num_nonzero:,} of {e.num_weights:,} weights are not zero",
        "size": size(e.size_bytes) + (f", {size(e.compressed_bytes)} by gzip" if e.compressed_bytes else ""),
    }
    return _facts("Conv and Linear weights", facts)


# --- latency --------------------------------------------------------------------------------------------------


def _race(report: Report) -> Section | None:
    race = report.race
    if race is None:
        return None
    ratios = [race.speedup(runner.latency) for runner in race.runners]
    ratios += [race.speedup(twin.latency) for twin in race.twins]
    furthest = max([abs(math.log(edge)) for ratio in ratios if ratio for edge in _edges(ratio)] + [math.log(1.25)])
    rows = []
    for row, ratio in zip(race_words.rows(race), ratios, strict=True):
        whisker: Cell = ""
        if ratio is not None:
            value, low, high = (0.5 + 0.48 * math.log(edge) / furthest for edge in _edges(ratio))
            whisker = Whisker(value, low, high, reference=0.5)
        rows.append((row.name, row.median, row.speedup, whisker, row.agreement, row.outcome))
    header = ("variant, runtime", "median", "× dense (95 %)", "", "agreement", "")
    notes = [Text(f"{name}: {note}") for name, note in race_words.notes(race)]
    intro = Text(
        "Every file ran in the same interleaved rounds as the dense network, float32. × dense: how many times as fast, "
        "by the medians of the same rounds; the line stands at 1, slower is left of it."
    )
    table = Table(race_words.title(race), header, tuple(rows), (1, 2, 4))
    ran = [(runner.name, runner.latency) for runner in race.runners if runner.latency]
    ran += [(twin.name, twin.latency) for twin in race.twins if twin.latency]
    return Section("race", "Race", (intro, table, *notes, _spreads(ran)))


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
    return Table("Percentiles, and how the queries spread", header, tuple(rows), (1, 2, 3, 4))


def _engines(report: Report) -> Section | None:
    if not report.engines:
        return None
    rows = tuple((engine.recipe.precision.value, "\n".join(engine_lines(engine))) for engine in report.engines)
    return Section("engines", "Engines", (Table("Built here for the target's GPU", (), rows),))


def _latency(report: Report) -> Section:
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
        blocks.append(Row((_rounds(latency), _facts("Measured", facts))))
    else:
        blocks.append(_facts("Measured", facts))
    return Section("latency", "Latency", tuple(blocks))


def _conditions(latency: Latency) -> dict[str, str]:
    facts = {}
    if latency.notes:
        facts["notes"] = "\n".join(latency.notes)
    if latency.conditions is not None and (said := conditions_words(latency.conditions)):
        facts["meanwhile"] = said
    if latency.energy is not None:
        facts["energy"] = f"{latency.energy.mj_per_query:.3g} mJ a query: {latency.energy.source}"
    if latency.fingerprint is not None:
        facts["fingerprint"] = latency.fingerprint.digest
    return facts


def _histogram(latency: Latency) -> Chart:
    counts, low_ms, high_ms = histogram(latency.samples_ms, 48)
    x, y = x_axis(low_ms, high_ms), y_axis(0, max(counts))
    width = (high_ms - low_ms) / len(counts)
    columns = tuple(
        _column(x.px(low_ms + n * width), x.px(low_ms + (n + 1) * width), y.px(number),
                f"{milliseconds(low_ms + n * width)} ms: {count(number, 'query', 'queries')}")
        for n, number in enumerate(counts)
    )  # fmt: skip
    words = [(f"p{percentile}", latency.percentile_ms(percentile)) for percentile in PERCENTILES]
    across = [Mark(x.px(ms), 34.0, 0, 0, word, "plain") for word, ms in words]
    told = ", ".join(f"{word} {milliseconds(ms)} ms" for word, ms in words)
    return Chart(
        f"All {len(latency.samples_ms):,} queries; the slowest hundredth in the last column",
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


# --- where it comes from --------------------------------------------------------------------------------------


def _provenance(report: Report, manifest_sha256: str | None) -> Section:
    digests = {
        **({"bundle's manifest": manifest_sha256} if manifest_sha256 else {}),
        f"student {report.student.path}": report.student.sha256,
        f"teacher {report.teacher.path}": report.teacher.sha256,
        **({f"record {report.record.path}": report.record.sha256} if report.record else {}),
        f"exported {report.exported.path}": report.exported.sha256,
        **{
            f"{variant.precision.value} {variant.file.path}": variant.file.sha256
            for variant in report.variants
            if variant.file.path != report.exported.path
        },
    }
    run = {
        "edgerecover": report.edgerecover_version,
        "made": report.created_utc,
        "target": report.target,
        "profile": report.profile,
        "seed": str(report.seed),
        "data used": report.data_used,
        "computed on": report.device,
        "exported by": report.exported.exporter,
        "student's format": report.student.format,
        **({"student's weights": _lineage(report)} if report.lineage else {}),
    }
    versions = Table("Versions", (), tuple(report.tool_versions.items()))
    machine = report.latency.fingerprint.facts if report.latency.fingerprint else {}
    blocks: list[Block] = [
        Table("SHA-256 of every file", (), tuple(digests.items())),
        Row((_facts("Run", run), versions)),
    ]
    if machine:
        blocks.append(Table("The machine that measured", (), tuple(machine.items()), is_folded=True))
    return Section("provenance", "Provenance", tuple(blocks))


def _lineage(report: Report) -> str:
    assert report.lineage is not None
    return f"{report.lineage.descent.value} from the teacher's, deviation {report.lineage.deviation:.2g}"
