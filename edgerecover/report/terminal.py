"""The terminal report: one screen, readable at 80 columns and without colour."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.text import Text

from edgerecover.artifacts import Gate, GateStatus, ModelFacts, Pattern, Report, Sparsity, TaskKind
from edgerecover.report import race
from edgerecover.report.engines import engine_lines
from edgerecover.report.latency import sparkline, steps_for
from edgerecover.report.layout import Name, bar, facts_grid, grid, section, show, status_text
from edgerecover.report.npu import NPU_TITLE, npu_lines
from edgerecover.report.plain import make_plain
from edgerecover.report.samples import PERCENTILES, conditions_words, energy_words, histogram, milliseconds
from edgerecover.report.words import (
    capital,
    count,
    duration,
    input_words,
    intended,
    mirroring,
    of_each,
    parity,
    percent,
    precision,
    prediction,
    proportion,
    record,
    shape,
    size,
)
from edgerecover.runtime.measure.doubts import doubts
from edgerecover.tasks.measure import words_of


def print_report(console: Console, report: Report, bundle: str | None) -> None:
    """Show a whole run, or the judgement of a file from elsewhere; `bundle` is where it was packed, if it was."""
    report = make_plain(report)
    parts: list[RenderableType] = [
        _headline(report),
        section("Stages"),
        _stages(report),
    ]
    words = words_of(report.task)
    parts += [section(f"From dense to deployed: {words.agreement}"), _ladder(report)]
    if words.is_graded:
        parts.append(grid([(Text(words.rule, "dim"),)]))
    if report.accuracy:
        title = f"{capital(words.truth)} on {report.accuracy.num_images:,} real images: {report.accuracy.source}"
        parts += [section(title), _accuracy(report)]
    parts += [
        section(f"Exported file: {report.exported.path}"),
        _exported_file(report),
        *_race(report),
        *_engines(report),
        *_npu(report),
        section(_latency_title(report)),
        _percentiles(report),
        _measurement(report, steps_for(console)),
        section("Gates"),
        _gates(report.gates),
    ]
    if report.warnings:
        parts += [section("Warnings"), grid((warning,) for warning in report.warnings)]
    parts += [section("Verdict"), _verdict(report, bundle)]
    show(console, *parts)


def print_facts(console: Console, facts: ModelFacts) -> None:
    """Show what `inspect` found."""
    facts = make_plain(facts)
    source = f" ({facts.architecture_source})" if facts.architecture else ""
    pairs = {
        "file": facts.path,
        "format": f"{facts.format}, {size(facts.size_bytes)}",
        "sha256": facts.sha256,
        "architecture": f"{facts.architecture or 'not recognised: use --arch or model.toml'}{source}",
        "parameters": f"{facts.num_parameters:,}; {count(facts.num_batch_norms, 'batch norm layer')}",
    }
    named_by = f" (names from {facts.classes_source})" if facts.classes_source else ""
    if facts.output is not None and facts.output.task is not TaskKind.ONE_LABEL:
        pairs["task"] = f"{facts.output.description}{named_by}"
    elif facts.num_classes is not None:
        pairs["classes"] = f"{facts.num_classes}{named_by}"
    if facts.input:
        low, high = facts.input.range
        pairs["input"] = f"{shape(facts.input.shape)}, pixels {low:g} to {high:g} ({facts.input_source})"
        mean, std = (", ".join(f"{one:g}" for one in ones) for ones in (facts.input.mean, facts.input.std))
        pairs["mean; std"] = f"{mean}; {std}"
    pairs |= {
        "sparsity": f"{percent(facts.sparsity.sparsity)} of {facts.sparsity.num_weights:,} weights, " + _pattern(facts),
        **({"not counted": "; ".join(facts.uncounted)} if facts.uncounted else {}),
        **({"batch norm": facts.sparsity.zero_channels} if facts.sparsity.zero_channels else {}),
        "masks": "explicit, applied"
        if facts.has_masks
        else ("not used: see format" if any("mask" in doubt for doubt in facts.doubts) else "none (zeros only)"),
        "teacher": facts.teacher_named
        or ("in the checkpoint: the dense weights under the masks" if facts.teacher_inside else "not in it"),
    }
    warnings = (section("Warnings"), grid((warning,) for warning in facts.warnings)) if facts.warnings else ()
    show(console, facts_grid(pairs), *warnings, section("Sparsity per layer"), _layers(facts.sparsity))


def _pattern(facts: ModelFacts) -> str:
    """How its zeros lie, unless masks that were not used may say otherwise."""
    if facts.macs_kept is not None:
        return facts.pruned_to
    is_sure = facts.sparsity.pattern is not Pattern.DENSE or not facts.doubts
    return facts.sparsity.pattern_words if is_sure else "not known to be pruned"


def print_pairs(console: Console, pairs: Mapping[str, str]) -> None:
    """Show names with their descriptions."""
    show(console, grid((Text(name, "bold"), text) for name, text in pairs.items()))


def print_groups(console: Console, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Show names with their descriptions, under the headings of their groups."""
    rows: list[tuple[str | Text, ...]] = []
    for heading, pairs in groups.items():
        rows += [("", "")] if rows else []
        rows.append((Text(heading, "bold"), ""))
        rows += pairs.items()
    show(console, grid(rows))


# --- parts of the report ------------------------------------------------------------------------------------


def _headline(report: Report) -> RenderableType:
    student = report.student
    return Group(
        Text.assemble(("edgerecover ", "bold"), report.edgerecover_version, ": ", (student.path, "bold"), " for ",
                      (report.target, "bold")),
        facts_grid({
            "model": f"{student.architecture}, {student.num_parameters:,} parameters, "
            f"{student.pruned_to}",
            **_teacher(report),
            "input": input_words(report.teacher),
            **({"record": record(report.record)} if report.record else {}),
            "target": report.target_description,
            "run": f"profile {report.profile}, seed {report.seed}, {report.device}, data used: {report.data_used}",
        }),
    )  # fmt: skip


def _teacher(report: Report) -> dict[str, str]:
    if report.same_architecture:
        return {}
    return {"teacher": f"{report.teacher.architecture}, {report.teacher.num_parameters:,} parameters"}


def _stages(report: Report) -> RenderableType:
    notes = {
        "synthesize": _dreams(report),
        "recover": f"kept: {next((rung.name for rung in report.rungs if rung.chosen), 'nothing')}",
        "export": f"{report.exported.exporter}, opset {report.exported.opset}",
        "validate": f"{report.latency.runtime}, {report.latency.provider}",
    }
    rows: list[tuple[str | Text, ...]] = []
    for stage in report.stages:
        origin = ["from an earlier run"] if stage.reused else []
        note = [notes[stage.stage]] if stage.stage in notes else []
        rows.append((stage.stage, duration(stage.seconds), Text(": ".join(origin + note), "dim")))
    total = duration(sum(stage.seconds for stage in report.stages))
    rows.append((Text("total", "bold"), Text(total, "bold"), ""))
    return grid(rows, right=(1,))


def _dreams(report: Report) -> str:
    s = report.synthetic
    made = f"{s.num_train + s.num_calibration + s.num_held_back:,} {s.source}"
    if s.images_per_s:
        made += f", {s.images_per_s:.3g}/s"
    if s.teacher_agrees_with_target is not None:
        made += f", {intended(s.teacher_agrees_with_target, report.task)}"
    return made if s.mirror_correlation is None else f"{made}\nmirrored: {mirroring(s)}"


def _ladder(report: Report) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = []
    source = report.synthetic.source
    if report.rungs:
        rows.append(_group(f"on {report.synthetic.num_calibration:,} calibration {source}"))
    for rung in report.rungs:
        took = f"{duration(rung.seconds) if rung.seconds else '':>5}"
        note = Text.assemble(took, *([("  kept", "green")] if rung.chosen else []))
        rows.append((f"  {rung.name}", percent(rung.agreement), bar(rung.agreement), note))
    rows.append(_group(f"on {report.fidelity.exported.total:,} held-out {source}"))
    rows += _held_back_rows(report)
    return grid(rows, right=(1,))


def _group(heading: str) -> tuple[str | Text, ...]:
    return Text(heading, "dim"), "", "", ""


def _held_back_rows(report: Report) -> Iterator[tuple[str | Text, ...]]:
    """On the held-out images: before recovery, in PyTorch, and every file that ran."""
    f = report.fidelity
    named = [(report.before, f.pruned, ""), ("recovered, in PyTorch", f.recovered, "")]
    if report.race is None:
        named.append(("exported file", f.exported, "shipped"))
    else:
        named += [(runner.name, runner.agreement, runner.outcome.value) for runner in report.race.runners]
    for name, value, outcome in named:
        if value is not None:
            style = "green" if outcome == "shipped" else "dim"
            yield f"  {name}", percent(value.value), bar(value.value), Text(outcome, style)


def _accuracy(report: Report) -> RenderableType:
    known = [(name, getattr(report.accuracy, name)) for name in ("teacher", "pruned", "recovered", "exported")]
    words = {"pruned": report.before}
    rows = ((words.get(name, name), proportion(value), bar(value.value)) for name, value in known if value)
    return grid(rows, right=(1,))


def _exported_file(report: Report) -> RenderableType:
    e, p, f, words = report.exported, report.parity, report.fidelity, words_of(report.task)
    kept = e.num_nonzero / e.num_weights if e.num_weights else 0.0
    with_teacher = words.agreement.removeprefix("agreement ")
    return facts_grid({
        "file": f"{size(e.size_bytes)}, opset {e.opset}, {f'batch {e.batch}' if e.batch else 'dynamic batch'}",
        "weights": f"{e.num_nonzero:,} of {e.num_weights:,} are nonzero ({percent(kept)})",
        "agreement": f"{proportion(f.exported)} {with_teacher} on {f.exported.total:,} held-out "
        f"{report.synthetic.source}" + (f"\n{proportion(f.pruned)} {_as_it_came(report)}" if f.pruned else ""),
        **{f"of {name}": reached for name, reached in of_each(f.by_output)},
        **({"expected": prediction(f.predicted)} if f.predicted else {}),
        **({"parity": parity(p, words)} if p else {}),
        **precision(report),
        "sparsity": report.sparsity_verdict,
    })  # fmt: skip


def _race(report: Report) -> list[RenderableType]:
    if report.race is None:
        return []
    rows = [
        (
            Text(row.name, "bold" if row.is_shipped else ""),
            row.median,
            row.speedup,
            row.agreement,
            Text(row.outcome, "green" if row.is_shipped else "dim"),
        )
        for row in race.rows(report.race)
    ]
    header = tuple(Text(title, "dim") for title in race.header(words_of(report.task).name))
    notes = list(race.notes(report.race))
    return [
        section(race.title(report.race)),
        grid([header, *rows], right=(1, 2, 3), folds=0),
        *([grid((Text(name, "dim"), note) for name, note in notes)] if notes else []),
    ]


def _engines(report: Report) -> list[RenderableType]:
    if not report.engines:
        return []
    rows = ((Text(engine.recipe.precision.value, "dim"), "\n".join(engine_lines(engine))) for engine in report.engines)
    return [section("Engines, built here for the target's GPU"), grid(rows)]


def _npu(report: Report) -> list[RenderableType]:
    if not report.npu:
        return []
    rows = (
        (Text(f"v{made.generation}", "dim"), "\n".join(npu_lines(made, words_of(report.task)))) for made in report.npu
    )
    return [section(NPU_TITLE), grid(rows)]


def _as_it_came(report: Report) -> str:
    return f"{'as pruned' if report.same_architecture else report.before}, before recovery"


def _latency_title(report: Report) -> str:
    where = "target latency" if report.latency.host_is_target else "host latency, not the target's"
    return f"Latency, batch {report.latency.batch}: {where}"


def _percentiles(report: Report) -> RenderableType:
    latency = report.latency
    longest = latency.percentile_ms(PERCENTILES[-1])
    rows: list[tuple[str | Text, ...]] = []
    for percentile in PERCENTILES:
        value_ms = latency.percentile_ms(percentile)
        low_ms, high_ms = latency.percentile_interval_ms(percentile)
        rows.append(
            (
                Text(f"p{percentile:<8}", "dim"),
                f"{milliseconds(value_ms)} ms ({milliseconds(low_ms)}–{milliseconds(high_ms)})",
                bar(value_ms / longest if longest else 0.0),
            )
        )
    return grid(rows, right=(1,))


def _measurement(report: Report, steps: str) -> RenderableType:
    latency, host = report.latency, report.latency.host
    counts, low_ms, high_ms = histogram(latency.samples_ms)
    conditions = conditions_words(latency.conditions) if latency.conditions else ""
    return facts_grid({
        "spread": f"{milliseconds(low_ms)} {sparkline(counts, steps)} {milliseconds(high_ms)} ms",
        "runs": f"{len(latency.samples_ms):,} after {len(latency.warmup_ms):,} warm-ups: {latency.scope}",
        "machine": f"{host.board or host.cpu}, {count(host.num_cores, 'core')}, {host.system}",
        "runtime": f"{latency.runtime}, {latency.provider}, {count(latency.num_threads, 'thread')}",
        "memory": f"{size(latency.memory_model_bytes)} more than the bare runtime at peak",
        **({"conditions": conditions} if conditions else {}),
        **({"energy": energy_words(latency.energy)} if latency.energy else {}),
        **({"doubts": "\n".join(noticed)} if (noticed := doubts(latency)) else {}),
    })  # fmt: skip


def _gates(gates: tuple[Gate, ...]) -> RenderableType:
    return grid((status_text(gate.status), gate.message) for gate in gates)


def _verdict(report: Report, bundle: str | None) -> RenderableType:
    waiting = sum(gate.status is GateStatus.NEEDS_DEVICE for gate in report.gates)
    rows: list[tuple[str | Text, ...]] = [
        (status_text(report.verdict, is_verdict=True), _summary(report)),
    ]
    if bundle is not None:
        rows.append((Text("bundle", "dim"), Text(bundle, "bold")))
    if waiting:
        device = GateStatus.NEEDS_DEVICE
        to_settle = f"{count(waiting, 'gate')} to settle on {report.target}"
        rows.insert(1, (status_text(device), to_settle))
    rows.append((Text("words", "dim"), "`edgerecover help words` explains rung, race, held-out"))
    return grid(rows)


def _summary(report: Report) -> str:
    """Agreement or accuracy, size and latency in one line."""
    latency = report.latency
    words = words_of(report.task)
    pruned, exported = report.fidelity.pruned, report.fidelity.exported
    measure = words.agreement if words.is_graded else words.name
    if report.accuracy:
        pruned, exported, measure = report.accuracy.pruned, report.accuracy.exported, words.truth
    where = "" if latency.host_is_target else "host "
    before = f"{100 * pruned.value:.1f} → " if pruned else ""
    return (
        f"{measure} {before}{percent(exported.value)}, {size(report.exported.size_bytes)}, "
        f"{where}p99 {latency.percentile_ms(99):.2f} ms"
    )


def _layers(sparsity: Sparsity) -> RenderableType:
    titles = tuple(Text(title, "bold") for title in ("layer", "shape", "zeros", "", "pattern"))
    rows = [
        (Name(layer.name), shape(layer.shape), percent(layer.sparsity), bar(layer.sparsity, 12), layer.pattern.value)
        for layer in sparsity.layers
    ]
    return grid([titles, *rows], right=(2,), folds=0)
