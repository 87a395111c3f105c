"""Which weights are gone, layer by layer."""

from __future__ import annotations

from edgerecover.artifacts import LayerSparsity, Report
from edgerecover.report.html.axes import MOST_COLUMNS, column, group, ticks, x_axis, y_axis
from edgerecover.report.html.blocks import Block, Chart, Row, Section, Table, Text, facts_table
from edgerecover.report.words import count, percent, shape, size

_MOST_LAYERS = 400


def sparsity_section(report: Report) -> Section:
    """Which share of the dense network's weights was removed, layer by layer."""
    layers = report.recovered_sparsity.layers
    before = {layer.name: layer for layer in report.student.sparsity.layers}
    dense = {layer.name: layer for layer in report.teacher.sparsity.layers} if report.same_architecture else {}
    gone = [_gone(layer, dense.get(layer.name)) for layer in layers]
    blocks: list[Block] = [Text(report.sparsity_verdict)]
    if layers:
        x, y = x_axis(0, len(layers)), y_axis(0, 100)
        columns = tuple(
            column(x.px(start), x.px(end), y.px(100 * mean), f"{layers[start].name}: {percent(mean)}")
            for start, end, mean in group(gone, MOST_COLUMNS)
        )
        chart = Chart(
            f"Weights removed from {'the dense network' if dense else 'each layer'}, input to output",
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
        header = ("layer", "shape", "zeros before", "zeros after", *(["removed"] if dense else []), "pattern")
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
        "before": f"{percent(came.sparsity)} of {came.num_weights:,} weights, {came.pattern_words}",
        "recovered": f"{percent(after.sparsity)} of {after.num_weights:,} weights, {after.pattern_words}",
        "exported file": f"{e.num_nonzero:,} of {e.num_weights:,} weights are nonzero",
        "size": size(e.size_bytes) + (f", {size(e.compressed_bytes)} by gzip" if e.compressed_bytes else ""),
    }
    return facts_table("Conv and Linear weights", facts)
