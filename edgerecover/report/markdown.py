"""The report as Markdown, for a bundle's report.md or a pull request. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterable

from edgerecover.artifacts import Report, Sparsity
from edgerecover.report import race
from edgerecover.report.engines import engine_lines
from edgerecover.report.npu import NPU_TITLE, npu_lines
from edgerecover.report.plain import make_plain
from edgerecover.report.samples import PERCENTILES
from edgerecover.report.words import (
    capital,
    duration,
    gate_name,
    input_words,
    mirroring,
    of_each,
    parity,
    percent,
    precision,
    prediction,
    proportion,
    record,
    size,
)
from edgerecover.tasks.measure import words_of


def markdown(report: Report) -> str:
    """The whole report, in the order of the terminal's; its texts may be hostile."""
    report = make_plain(report)
    words = words_of(report.task)
    return "\n".join(
        [
            f"# {report.verdict.word}: {_escape(report.student.path)} for {_escape(report.target)}",
            "",
            _escape(
                f"edgerecover {report.edgerecover_version}, profile {report.profile}, seed {report.seed}, "
                f"{report.device}, data used: {report.data_used}, {report.created_utc}"
            ),
            "",
            *_table("Model", ("", ""), _model(report)),
            *_table("Stages", ("stage", "time"), _stages(report)),
            *_ladder(report),
            *_rule(report),
            *_accuracy(report),
            *_table("Exported file", ("", ""), _exported_file(report)),
            *_race(report),
            *_engines(report),
            *_npu(report),
            *_table("Latency", ("", ""), _latency(report)),
            *_table(
                "Gates",
                ("gate", "status", ""),
                ((gate_name(g.name, words), g.status.word, g.message) for g in report.gates),
            ),
            *(f"> {_escape(warning)}\n" for warning in report.warnings),
        ]
    )


def _table(title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"## {_escape(title)}", "", _row(header), _row(("---",) * len(header))]
    return [*lines, *(_row(row) for row in rows), ""]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    """As Markdown, the text itself: no table, no tag, no link and no picture of its own."""
    text = " ".join(text.split("\n")).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for character in "|[]`*":
        text = text.replace(character, f"\\{character}")
    return text


def _model(report: Report) -> list[tuple[str, str]]:
    s = report.student
    return [
        ("architecture", str(s.architecture)),
        ("parameters", f"{s.num_parameters:,}"),
        ("input", input_words(report.teacher)),
        *([] if report.same_architecture else [
            ("teacher's architecture", str(report.teacher.architecture)),
            ("teacher's parameters", f"{report.teacher.num_parameters:,}"),
        ]),
        *([("pruned", s.pruned_to)] if s.macs_kept is not None else []),
        ("zeros before", _zeros(s.sparsity)),
        ("zeros after", _zeros(report.recovered_sparsity)),
        ("student sha256", s.sha256),
        ("teacher sha256", report.teacher.sha256),
        *([("activation record", record(report.record))] if report.record else []),
        ("synthetic images", f"{report.synthetic.num_train:,} train, {report.synthetic.num_calibration:,} calibration, "
         f"{report.synthetic.num_held_back:,} held out"),
        ("images mirrored", mirroring(report.synthetic)),
    ]  # fmt: skip


def _zeros(sparsity: Sparsity) -> str:
    beside = f"; {sparsity.zero_channels}" if sparsity.zero_channels else ""
    return f"{percent(sparsity.sparsity)}, {sparsity.pattern_words}{beside}"


def _stages(report: Report) -> list[tuple[str, str]]:
    return [(s.stage, duration(s.seconds) + (" (from an earlier run)" if s.reused else "")) for s in report.stages]


def _ladder(report: Report) -> list[str]:
    if not report.rungs:
        return []
    return _table(
        "Recovery ladder", ("rung", f"{words_of(report.task).agreement} (calibration dreams)", ""), _rungs(report)
    )


def _rule(report: Report) -> list[str]:
    words = words_of(report.task)
    return [f"{capital(words.agreement)}: {_escape(words.rule)}", ""] if words.is_graded else []


def _rungs(report: Report) -> list[tuple[str, str, str]]:
    return [(r.name, percent(r.agreement), "kept" if r.chosen else "") for r in report.rungs]


def _accuracy(report: Report) -> list[str]:
    if not report.accuracy:
        return []
    words = {"pruned": report.before}
    named = ((name, getattr(report.accuracy, name)) for name in ("teacher", "pruned", "recovered", "exported"))
    rows = [(words.get(name, name), proportion(value)) for name, value in named if value]
    rows += [(f"exported, {name}", reached) for name, reached in of_each(report.accuracy.by_output)]
    task_words = words_of(report.task)
    title = f"{capital(task_words.truth)} on {report.accuracy.num_images:,} real images ({report.accuracy.source})"
    return _table(title, ("model", "95 % interval" if task_words.is_graded else "top-1 (95 % interval)"), rows)


def _exported_file(report: Report) -> list[tuple[str, str]]:
    e, p, predicted, words = report.exported, report.parity, report.fidelity.predicted, words_of(report.task)
    return [
        ("file", f"{e.path}, {size(e.size_bytes)}, opset {e.opset}, {e.exporter}"),
        ("weights", f"{e.num_nonzero:,} of {e.num_weights:,} are nonzero"),
        (words.agreement, f"{proportion(report.fidelity.exported)} {'on' if words.is_graded else 'of'} "
         f"{report.fidelity.exported.total} held-out {report.synthetic.source}"),
        *((f"of {name}", reached) for name, reached in of_each(report.fidelity.by_output)),
        *([(f"{words.name} before recovery", proportion(report.fidelity.pruned))] if report.fidelity.pruned else []),
        *([("expected on real images", prediction(predicted))] if predicted else []),
        *([("parity", "; ".join(parity(p, words).splitlines()))] if p else []),
        *((name, "; ".join(text.splitlines())) for name, text in precision(report).items()),
        ("sparsity", report.sparsity_verdict),
    ]  # fmt: skip


def _race(report: Report) -> list[str]:
    if report.race is None:
        return []
    rows = ((r.name, r.median, r.speedup, r.agreement, r.outcome) for r in race.rows(report.race))
    notes = [f"- {name}: {note}" for name, note in race.notes(report.race)]
    return [
        *_table(race.title(report.race), race.header(words_of(report.task).name), rows),
        *notes,
        *([""] if notes else []),
    ]


def _npu(report: Report) -> list[str]:
    if not report.npu:
        return []
    rows = ((f"v{made.generation}", "; ".join(npu_lines(made, words_of(report.task)))) for made in report.npu)
    return _table(NPU_TITLE, ("generation", ""), rows)


def _engines(report: Report) -> list[str]:
    if not report.engines:
        return []
    rows = ((engine.recipe.precision.value, "; ".join(engine_lines(engine))) for engine in report.engines)
    return _table("Engines, built here for the target's GPU", ("precision", ""), rows)


def _latency(report: Report) -> list[tuple[str, str]]:
    latency = report.latency
    percentiles = [(f"p{q}", f"{latency.percentile_ms(q):.3f} ms") for q in PERCENTILES]
    return [
        ("kind", "target latency" if latency.host_is_target else "host latency: this machine is not the target"),
        *percentiles,
        ("runs", f"{len(latency.samples_ms):,} after {len(latency.warmup_ms)} warm-ups; {latency.scope}"),
        ("runtime", f"{latency.runtime}, {latency.provider}, {latency.host.cpu}"),
        ("peak memory", f"{size(latency.memory_model_bytes)} more than the bare runtime"),
    ]
