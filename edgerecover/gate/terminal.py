"""The gates in the terminal: one screen, readable at 80 columns and without colour."""

# ruff: noqa: TID253 - this module is rich; the command line imports it when there is something to show

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console, Group, RenderableType
from rich.text import Text

from edgerecover.artifacts import Comparison, Gate, GateResult, GateStatus, Latency
from edgerecover.report.layout import facts_grid, grid, section, show, status_text
from edgerecover.report.samples import milliseconds, ratio_words
from edgerecover.report.words import count, size
from edgerecover.runner.text import printable
from edgerecover.runtime.measure.doubts import doubts


def print_gates(console: Console, result: GateResult) -> None:
    """Show what was judged, what it was compared with, and the verdict."""
    parts: list[RenderableType] = [_headline(result)]
    if result.comparison is not None:
        parts += [section("Beside the baseline"), _beside(result.comparison)]
    parts += [section("Gates"), grid(_gate(gate) for gate in result.gates)]
    warnings = doubts(result.latency) if result.latency is not None else ()
    if warnings:
        parts += [section("Warnings"), grid((printable(warning),) for warning in warnings)]
    parts += [section("Verdict"), _verdict(result)]
    show(console, *parts)


def _headline(result: GateResult) -> RenderableType:
    release = result.release
    rows = {
        "bundle": f"{release.bundle}, verified, manifest {release.manifest_sha256[:16]}",
        "target": release.target,
        "beside": f"{result.baseline.bundle}, of {result.baseline.created_utc}" if result.baseline else "no baseline",
    }
    if result.latency is not None:
        rows["machine"] = _machine(result.latency)
    title = Text.assemble(("edgerecover gate ", "bold"), result.edgerecover_version)
    return Group(title, facts_grid({name: printable(text) for name, text in rows.items()}))


def _machine(latency: Latency) -> str:
    host = latency.host
    mark = f", print {latency.fingerprint.digest}" if latency.fingerprint else ""
    where = "the target" if latency.host_is_target else "not the target"
    return f"{host.board or host.cpu}, {count(host.num_cores, 'core')}, {host.system}: {where}{mark}"


def _beside(comparison: Comparison) -> RenderableType:
    word, interval = ratio_words(comparison.slower)
    rows: list[tuple[str | Text, ...]] = [
        (Text("latency p50", "dim"), _p50(comparison.latency), _p50(comparison.before), f"{word} {interval}"),
        (
            Text("peak memory", "dim"),
            *(_middle(side) for side in (comparison.memory_bytes, comparison.memory_before_bytes)),
            "",
        ),
    ]
    header = tuple(Text(title, "dim") for title in ("", "now", "baseline", ""))
    return Group(grid([header, *rows], right=(1, 2), folds=3), grid([(Text(comparison.how, "dim"),)]))


def _middle(memory_bytes: Sequence[int]) -> str:
    return size(int(median(memory_bytes)))


def _p50(latency: Latency) -> str:
    return f"{milliseconds(latency.percentile_ms(50))} ms"


def _gate(gate: Gate) -> tuple[str | Text, ...]:
    return status_text(gate.status), printable(gate.message)


def _verdict(result: GateResult) -> RenderableType:
    counts = {status: sum(gate.status is status for gate in result.gates) for status in GateStatus}
    told = ", ".join(f"{number} {status.value}" for status, number in counts.items() if number)
    verdict = status_text(result.verdict, is_verdict=True)
    rows: list[tuple[str | Text, ...]] = [(verdict, f"{told}; {result.seconds:.0f} s")]
    rows += [("", printable(note)) for note in result.notes]
    return grid(rows)
