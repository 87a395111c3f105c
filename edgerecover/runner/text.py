"""A runner's result as plain text: 80 columns, no colour, no package. The desk shows the same."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from edgerecover.artifacts import DeviceResult, Gate, GateStatus, Tried
from edgerecover.tasks.measure import words_of

COLUMNS = 80


def printable(text: str) -> str:
    """Text from a bundle or another machine, with what would play with the terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_text(result: DeviceResult) -> str:
    """Everything that a result says, line by line."""
    return "\n".join(map(printable, _lines(result))) + "\n"


def _lines(result: DeviceResult) -> Iterator[str]:
    host = result.host
    yield f"edgerecover {result.edgerecover_version}, on the device: {result.bundle} for {result.target}"
    where = "the target" if result.host_is_target else "not the target"
    cores = f"{host.num_cores} core{'s' if host.num_cores != 1 else ''}"
    yield from _row("machine", f"{host.board or host.cpu}, {cores}, {host.system}, Python {result.python}: {where}")
    said = f", {result.signature}" if result.signature else ""
    yield from _row("bundle", f"verified{said}, manifest sha256 {result.manifest_sha256}")
    yield from _row("took", ", ".join(f"{stage.stage} {stage.seconds:.1f} s" for stage in result.stages))
    yield from _section("Files")
    for index, one in enumerate(result.tried):
        yield from _describe_file(one, wins=index == result.fastest)
    yield from _section("Gates")
    yield from _gates(result.gates)
    if result.warnings:
        yield from _section("Warnings")
        for warning in result.warnings:
            yield from _wrap(warning, "  ")
    yield from _section("Verdict")
    yield from _row(result.verdict.word, _summary(result))


def _describe_file(one: Tried, *, wins: bool) -> Iterator[str]:
    yield f"  {one.path}, {one.precision.value}, {one.runtime}{' <- winner' if wins else ''}"
    if one.engine is not None:
        engine, key = one.engine, one.engine.key
        types = ", ".join(f"{count} {kind}" for kind, count in engine.layers_by_type.items())
        text = f"{key.runtime} {key.version}, {engine.size_bytes / 1e6:.1f} MB, built in {engine.build_s:.1f} s"
        yield from _row("engine", text + (f"; layers: {types}" if types else ""), indent=4)
    if one.golden is not None:
        golden, word = one.golden, "golden" if one.golden.passed else "WRONG"
        words = words_of(golden.task)
        text = f"{golden.same_decisions} of {golden.num_images} {words.answers} as the bundle says"
        if golden.teacher is not None and words.is_graded:
            text += f", {words.agreement} {100 * golden.teacher.value:.1f} %"
        elif golden.teacher is not None:
            text += f", {golden.teacher.hits:g} of {golden.teacher.total} as the teacher"
        yield from _row(word, f"{text}; scores within {golden.largest_difference:.2g} standard deviations", indent=4)
    if one.latency is not None:
        latency = one.latency
        p50, p90, p99 = (latency.percentile_ms(percent) for percent in (50, 90, 99))
        yield from _row(
            "latency", f"p50 {p50:.3f}, p90 {p90:.3f}, p99 {p99:.3f} ms, {len(latency.samples_ms):,} runs", indent=4
        )
        threads = f"{latency.num_threads} thread{'s' if latency.num_threads != 1 else ''}"
        ran = f"{latency.runtime}, {latency.provider}, {threads}, {latency.memory_model_bytes / 1e6:.1f} MB"
        yield from _row("ran on", ran, indent=4)
    if one.error:
        yield from _row("error", one.error, indent=4)
        if one.hint:
            yield from _row("next", one.hint, indent=4)


def _gates(gates: Sequence[Gate]) -> Iterator[str]:
    widest = max((len(gate.status.word) for gate in gates), default=0)
    for gate in gates:
        yield from _row(gate.status.word, gate.message, width=widest)


def _summary(result: DeviceResult) -> str:
    waiting = sum(gate.status is GateStatus.NEEDS_DEVICE for gate in result.gates)
    left = f"; {waiting} gate{'s' if waiting != 1 else ''} still to settle on {result.target}" if waiting else ""
    if result.fastest is None and not any(one.golden for one in result.tried):
        return f"{sum(not one.error for one in result.tried)} of {len(result.tried)} engines ready{left}"
    if result.fastest is None:
        return f"nothing in the bundle answers as it should here{left}"
    best = result.tried[result.fastest]
    assert best.latency is not None, "the winner was timed"
    return f"{best.path} in {best.runtime}, p50 {best.latency.percentile_ms(50):.3f} ms{left}"


def _section(title: str) -> Iterator[str]:
    yield ""
    yield title


def _row(name: str, text: str, indent: int = 2, width: int = 8) -> Iterator[str]:
    yield from _wrap(text, f"{'':{indent}}{name:<{max(width, 8)}} ")


def _wrap(text: str, first: str) -> list[str]:
    """Long words, such as digests and paths, are broken rather than run over the edge."""
    return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=" " * len(first)) or [first.rstrip()]
