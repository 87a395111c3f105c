"""The synthetic images, and agreement and accuracy class by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgerecover.artifacts import ByClass, Report
from edgerecover.report.html.axes import MOST_COLUMNS, column, group, ticks, x_axis, y_axis
from edgerecover.report.html.blocks import (
    INTERVAL,
    Block,
    Cell,
    Chart,
    DataUri,
    Key,
    Legend,
    Matrix,
    Picture,
    Pictures,
    Row,
    Section,
    Table,
    Text,
    bar_of,
)
from edgerecover.report.html.closing import words
from edgerecover.report.picture import strips
from edgerecover.report.words import count, percent, proportion
from edgerecover.tasks.measure import words_of

_MOST_IN_MATRIX = 20
"""Classes; with more of them, a table of the most frequent confusions is shown instead."""
_MOST_CLASSES = 40
"""Listed one by one; with more of them, the lowest are listed and a chart shows all."""
_MOST_CONFUSIONS = 20


def pictures_of(report: Report, sheet_png: bytes | None, max_bytes: int) -> Pictures | None:
    """The contact sheet cut into one picture for each class, in at most so many bytes; None without a sheet."""
    if report.sheet is None or sheet_png is None or not max_bytes:
        return None
    made, is_graded = [], words_of(report.task).is_graded
    for strip in strips(sheet_png, report.sheet, max_bytes):
        # Of other tasks the number is a target's: of a pair of labels, of a map of shapes.
        name = "" if strip.class_number is None or is_graded else report.class_name(strip.class_number)
        says = f"{count(strip.num_images, 'synthetic image')}{f' made for {name}' if name else ''}"
        source = DataUri.of(strip.media_type, strip.content)
        made.append(Picture(source, says, name, strip.width_px, strip.height_px))
    return Pictures(tuple(made))


def images_section(report: Report, pictures: Pictures | None) -> Section | None:
    """The synthetic images, and what they were made from; None without pictures."""
    if pictures is None or not pictures.pictures:
        return None
    num_classes = 0 if words_of(report.task).is_graded else report.teacher.num_classes or len(report.classes)
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


def classes_section(report: Report) -> Section | None:
    """Agreement and accuracy class by class, with the confusions; None where neither is known."""
    blocks: list[Block] = []
    if report.fidelity.by_class:
        caption = f"Agreement on held-out {report.synthetic.source}, by the class that the teacher decides for"
        blocks += _by_class(report, report.fidelity.by_class, caption, "teacher")
    if report.accuracy and report.accuracy.by_class:
        caption = f"Accuracy on {report.accuracy.source}, by label"
        blocks += _by_class(report, report.accuracy.by_class, caption, "label")
    return Section("classes", "By class", tuple(blocks), words("teacher", "agreement")) if blocks else None


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
        rows.append((report.class_name(number), f"{value.total:,}", *told, bar_of(value)))
    if is_many:
        caption += f"; the {_MOST_CLASSES} lowest of {len(present):,} classes"
        yield _class_chart(report, values, worst_first, by)
    table = Table(caption, tuple(header), tuple(rows), (1, 2, 3) if values.pruned else (1, 2), stacks=True)
    keys = [Key("after", "exported file"), INTERVAL]
    if len(values.totals) <= _MOST_IN_MATRIX:
        keys += [Key("shades", "none to all of a row"), Key("hit", "decided alike")]
        yield Row((table, _matrix(report, values, by)))
    else:
        confusions = _confusions(report, values, by)
        yield Row((table, confusions)) if confusions.rows else table
    yield Legend(tuple(keys))
    if absent := len(values.totals) - len(present):
        yield Text(f"{count(absent, 'class', 'classes')} of {len(values.totals):,} had no image.")


def _class_chart(report: Report, values: ByClass, worst_first: Sequence[int], by: str) -> Chart:
    """All classes from the lowest to the highest, grouped where there are more than pixels."""
    x, y = x_axis(0, len(worst_first)), y_axis(0, 100)
    groups = group([values.exported_of(number).value for number in worst_first], MOST_COLUMNS)
    columns = tuple(column(x.px(start), x.px(end), y.px(100 * mean), percent(mean)) for start, end, mean in groups)
    zero = sum(values.exported[number] == 0 for number in worst_first)
    return Chart(
        f"All {len(worst_first):,} classes, lowest first ({'agreement' if by == 'teacher' else 'accuracy'})",
        f"{zero:,} classes are never decided like the {by}.",
        "classes",
        ticks(x),
        ticks(y, " %"),
        columns=columns,
    )


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
        "Confusion matrix of the exported file",
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
