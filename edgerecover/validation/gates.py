"""The judgements: what was measured against what was asked. Stdlib only, so a device can judge again.

A proportion is settled when its 95 % interval lies on one side of the limit; so is a percentile of latency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgerecover.artifacts import (
    Accuracy,
    Exported,
    Fidelity,
    Gate,
    GateStatus,
    GoldenCheck,
    KeptZeros,
    Latency,
    Parity,
    PrecisionLoss,
    Proportion,
    Report,
    TaskKind,
    TwoFour,
    paired_interval,
)
from edgerecover.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from edgerecover.tasks.measure import Words, words_of
from edgerecover.validation.limit import AT_LEAST, Limit, advice
from edgerecover.validation.limits import Limits

_LARGEST = 3.4e38
"""Stands for infinity in a gate's numbers, which JSON cannot hold."""


@dataclass(frozen=True)
class Measured:
    """What the run found."""

    fidelity: Fidelity
    parity: Parity | None
    """None: the file's PyTorch network is not known."""
    zeros: KeptZeros | None
    """Of the student's pruned weights, in the file judged; None: there is no such student."""
    exported: Exported
    latency: Latency
    accuracy: Accuracy | None = None
    two_four: TwoFour | None = None
    """Of the exported file, where the student came as 2:4."""
    is_from_elsewhere: bool = False
    """Recovered and exported by others."""
    precision_loss: PrecisionLoss | None = None
    """Where the file judged is of lower precision than float32; None: it is not, or what it was made from is unknown.
    Logits of such a file are meant to differ from PyTorch's; `parity` is of the float32 file, where there is one."""
    same_architecture: bool = True
    """The student is its teacher with zeros or fewer channels."""
    task: TaskKind = TaskKind.ONE_LABEL
    """What the network is for."""


def judge(limits: Limits, measured: Measured) -> tuple[Gate, ...]:
    """Judge everything that has a limit, in the order a report shows it."""
    came = "pruned input" if measured.same_architecture else "student as it came"
    stronger, words = _stronger(limits.profile, measured), words_of(measured.task)
    gates = [
        _agreement(limits, measured.fidelity, words, stronger),
        *_not_worse_than_input(measured.fidelity, words, measured.is_from_elsewhere, came),
    ]
    if measured.zeros is not None:
        gates.append(_mask_kept(measured.zeros, measured.two_four, measured.is_from_elsewhere))
    if measured.parity is not None:
        gates.append(_parity_top1(limits, measured.parity, words, _what_changed(measured)))
        gates.append(_parity_logits(limits, measured.parity, words, _what_changed(measured)))
    if measured.precision_loss is not None:
        gates.append(_precision_loss(limits, measured.precision_loss, words))
    if measured.accuracy is not None:
        gates += _on_real_images(limits, measured.accuracy, words, came, stronger)
    gates += _of_the_device(limits, measured.latency)
    if limits.max_file_mb is not None:
        gates.append(_file_size(limits, limits.max_file_mb, measured.exported))
    return tuple(gates)


def judge_again(limits: Limits, report: Report) -> tuple[Gate, ...]:
    """A report's gates by other limits, in the report's order; what no limit decides stays as it was judged."""
    judged = {gate.name: gate for gate in judge(limits, _measured_of(report))}
    known = [judged.pop(gate.name, gate) for gate in report.gates]
    return (*known, *judged.values())


def _measured_of(report: Report) -> Measured:
    """As far as a report tells: which zeros were kept is in its gate alone."""
    return Measured(
        fidelity=report.fidelity,
        parity=report.parity,
        zeros=None,
        exported=report.exported,
        latency=report.latency,
        accuracy=report.accuracy,
        is_from_elsewhere=not report.rungs,
        precision_loss=report.precision_loss,
        same_architecture=report.same_architecture,
        task=report.task,
    )


def settle(gates: Sequence[Gate], limits: Limits, latency: Latency, golden: GoldenCheck) -> tuple[Gate, ...]:
    """The gates of a report once more, after its model has run on another machine.

    Args:
        gates: as the machine that packed the bundle judged.
        limits: that they were judged by.
        latency: measured now; it takes the place of the earlier one.
        golden: the same file's answers, which get a gate of their own.
    """
    judged = {gate.name: gate for gate in (*_of_the_device(limits, latency), golden_gate(golden))}
    known = [judged.pop(gate.name, gate) for gate in gates]
    return (*known, *judged.values())


def golden_gate(golden: GoldenCheck) -> Gate:
    """A file must answer on the golden images as the bundle says; what is nearer than the tolerance may differ."""
    does = "answers" if words_of(golden.task).is_graded else "decides"
    same = f"{golden.same_decisions} of {golden.num_images} golden images"
    close = f", {golden.too_close} too close to call" if golden.too_close else ""
    differ = f"scores differ by {golden.largest_difference:.2g} standard deviations at most"
    allowed = f" ({golden.tolerance:g} are allowed)" if golden.is_same_precision else ""
    wrong = "" if golden.passed else ": the runtime here computes something else; try another version of it"
    return Limit("golden", 100.0, "%", direction=AT_LEAST).gate(
        GateStatus.PASS if golden.passed else GateStatus.FAIL,
        100 * golden.same_decisions / golden.num_images,
        f"{does} as the bundle says on {same}{close}; {differ}{allowed}{wrong}",
    )


def exit_code(verdict: GateStatus) -> int:
    """What the process returns for `Report.verdict`; a gate that waits for the device does not count."""
    return {GateStatus.FAIL: EXIT_GATE_FAILED, GateStatus.INCONCLUSIVE: EXIT_INCONCLUSIVE}.get(verdict, EXIT_PASS)


# --- fidelity and parity ------------------------------------------------------------------------------------


def _agreement(limits: Limits, fidelity: Fidelity, words: Words, stronger: str) -> Gate:
    exported = fidelity.exported
    limit = Limit("agreement", 100 * limits.min_agreement, "%", limits.source_of("min_agreement"), AT_LEAST)
    low, high = (100 * edge for edge in exported.interval())
    return limit.judge(
        limit.status(low, high),
        100 * exported.value,
        f"{words.agreement} {100 * exported.value:.1f} % ({low:.1f}–{high:.1f}){_of_each(fidelity.by_output)}",
        fail=stronger,
        inconclusive=f"a profile with more than {exported.total} held-out images can tell",
    )


def _of_each(by_output: Mapping[str, Fidelity | Accuracy]) -> str:
    """Of several outputs, ", age 91.0 %, sick 97.5 %,"; else empty."""
    each = [f"{name} {100 * one.exported.value:.1f} %" for name, one in by_output.items()]
    return f", of {', '.join(each)}," if each else ""


def _not_worse_than_input(fidelity: Fidelity, words: Words, is_from_elsewhere: bool, came: str) -> list[Gate]:
    """Of the recovered network; from elsewhere, of the file."""
    after = fidelity.exported if is_from_elsewhere else fidelity.recovered
    if fidelity.pruned is None or after is None:
        return []
    who, found = "the file" if is_from_elsewhere else "recovered", f"{100 * after.value:.1f} %"
    told = f"{who} agrees with the teacher on {found} of held-out images"
    if words.is_graded:
        told = f"{who}: {words.agreement} {found} on held-out images"
    return [_not_worse("not_worse_than_input", fidelity.pruned, after, told, came)]


def _on_real_images(limits: Limits, accuracy: Accuracy, words: Words, came: str, stronger: str) -> list[Gate]:
    gates = []
    if accuracy.pruned is not None:
        real, found = f"real images ({accuracy.source})", f"{100 * accuracy.exported.value:.1f} %"
        told = f"exported is right on {found} of {real}"
        if words.is_graded:
            told = f"exported: {words.truth} {found} on {real}{_of_each(accuracy.by_output).rstrip(',')}"
        gates.append(_not_worse("not_worse_on_real", accuracy.pruned, accuracy.exported, told, came))
    return [*gates, _accuracy_drop(limits, accuracy, words, stronger)]


def _not_worse(name: str, before: Proportion, after: Proportion, told: str, came: str) -> Gate:
    """Fails when the intervals are disjoint; a smaller loss than that may be chance."""
    status = GateStatus.PASS
    if after.value < before.value:
        disjoint = after.interval()[1] < before.interval()[0]
        status = GateStatus.FAIL if disjoint else GateStatus.INCONCLUSIVE
    relation = "at least" if status is GateStatus.PASS else "less than"
    next_step = advice(
        status,
        fail="keep the input, or try another profile",
        inconclusive=f"on {after.total} images that may be chance",
    )
    return Limit(name, 100 * before.value, "%", direction=AT_LEAST).gate(
        status,
        100 * after.value,
        f"{told}, {relation} the {100 * before.value:.1f} % of the {came}{next_step}",
    )


def _mask_kept(zeros: KeptZeros, two_four: TwoFour | None, is_from_elsewhere: bool) -> Gate:
    """Zeros in the exported file and, where the student is 2:4, the pattern there."""
    num_dense_groups = two_four.num_dense_groups if two_four else 0
    num_in_file = sum(zeros.in_file.values())
    faults = [f"{zeros.num_regrown:,} pruned weights are no longer zero"] if zeros.num_regrown else []
    if num_in_file and not zeros.num_regrown:
        faults.append(
            f"{num_in_file:,} pruned weights of {_list_names(zeros.in_file)} are not zero in the exported file"
        )
    if num_dense_groups:
        faults.append(f"{num_dense_groups:,} groups of four in the exported file hold more than two weights")
    if faults:
        status, message = GateStatus.FAIL, f"{' and '.join(faults)}: {_blame(zeros, is_from_elsewhere)}"
    elif zeros.missing:
        status = GateStatus.INCONCLUSIVE
        message = (
            f"the weights of {_list_names(zeros.missing)} were not found in the exported file, so their zeros could "
            "not be counted; all other pruned weights are zero in it"
        )
    else:
        of_file = f", and all {two_four.num_layers} layers of the exported file that can be are 2:4" if two_four else ""
        status, message = GateStatus.PASS, f"every pruned weight is still zero{of_file}"
    return Limit("mask_kept", 0).gate(status, max(zeros.num_regrown, num_in_file) + num_dense_groups, message)


def _blame(zeros: KeptZeros, is_from_elsewhere: bool) -> str:
    if zeros.in_file and set(zeros.computed) == set(zeros.in_file) and not zeros.num_regrown:
        return (
            "the network computes them from the stored weights, which are zero (weight standardisation does, by "
            "w - mean(w)); prune what the layers multiply by, or apply the mask last in their forward"
        )
    return "recover it under its mask" if is_from_elsewhere else "a fault of edgerecover, please report it"


def _list_names(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _what_changed(measured: Measured) -> str:
    if measured.is_from_elsewhere:
        return "it was made from another network, or its export changed it"
    return "the export changed the network: try another opset"


def _parity_top1(limits: Limits, parity: Parity, words: Words, what_changed: str) -> Gate:
    """Without an interval: both sides saw the very same images, and the limit is on these."""
    limit = Limit("parity_top1", 100 * limits.min_parity_top1, "%", limits.source_of("min_parity_top1"), AT_LEAST)
    measured = 100 * parity.top1_agreement
    found = f"the exported file decides as PyTorch on {measured:.2f} % of {parity.num_images} images,"
    if words.is_graded:
        worst = min(parity.by_output, key=lambda name: parity.by_output[name].top1_agreement, default="")
        which = f"output {worst} of the exported file" if worst else "the exported file"
        shared = "agreement with PyTorch" if worst else words.with_pytorch  # one output's is no weighted mean
        found = f"{which}: {shared} {measured:.2f} % on {parity.num_images} images,"
    return limit.judge(limit.status(measured), measured, found, fail=what_changed)


def _parity_logits(limits: Limits, parity: Parity, words: Words, what_changed: str) -> Gate:
    limit = Limit("parity_logits", limits.max_parity_relative, source=limits.source_of("max_parity_relative"))
    measured = min(parity.relative, _LARGEST)
    worst = max(parity.by_output, key=lambda name: parity.by_output[name].relative, default="")
    each = ", ".join(f"{name} {min(one.relative, _LARGEST):.2g}" for name, one in parity.by_quantity.items())
    of_worst = f" (output {worst})" if worst else f" ({each} of their own)" if each else ""
    found = f"largest {words.score} difference to PyTorch {measured:.2g} standard deviations{of_worst},"
    return limit.judge(limit.status(measured), measured, found, fail=what_changed)


def _precision_loss(limits: Limits, loss: PrecisionLoss, words: Words) -> Gate:
    points, source = limits.max_precision_loss_points, limits.source_of("max_precision_loss_points")
    low, high = loss.interval_points()
    return Limit("precision_loss", points, "points", source).judge(
        precision_status(loss, points),
        loss.points,
        f"lower precision costs {loss.points:.1f} points ({low:.1f}–{high:.1f}) of {words.agreement} against float32,",
        more=f"; {words.changed(loss.changed, loss.num_images)}",
        fail="calibrate it on more images, or leave sensitive layers in a higher precision",
        inconclusive=f"on {loss.num_images} images that may be chance, more of them can tell (synthesis.num_held_back)",
    )


def precision_status(loss: PrecisionLoss, limit_points: float) -> GateStatus:
    """A loss above the limit fails where its interval is above it too; else it may be chance.

    One within the limit passes by what was measured: with no decision changed on 256 images the interval still reaches
    1.1 points.
    """
    if loss.points <= limit_points:
        return GateStatus.PASS
    low, _ = loss.interval_points()
    return GateStatus.FAIL if low > limit_points else GateStatus.INCONCLUSIVE


def _accuracy_drop(limits: Limits, accuracy: Accuracy, words: Words, stronger: str) -> Gate:
    points, source = limits.max_accuracy_drop_points, limits.source_of("max_accuracy_drop_points")
    limit = Limit("accuracy_drop", points, "points", source)
    low, high = (
        100 * edge for edge in paired_interval(accuracy.teacher_only, accuracy.exported_only, accuracy.num_images)
    )
    drop = 100 * (accuracy.teacher.value - accuracy.exported.value)
    return limit.judge(
        limit.status(low, high),
        drop,
        f"{words.truth} on {accuracy.source} {100 * accuracy.exported.value:.1f} %, {drop:.1f} points "
        f"({low:.1f}–{high:.1f}) below the teacher,",
        fail=stronger,
        inconclusive=f"more than {accuracy.num_images} images can tell",
    )


# --- the target's limits ------------------------------------------------------------------------------------


def _of_the_device(limits: Limits, latency: Latency) -> list[Gate]:
    """What depends on the machine that measured."""
    gates = []
    if limits.max_p99_ms is not None:
        gates.append(_latency_p99(limits, limits.max_p99_ms, latency))
    if limits.max_memory_mb is not None:
        gates.append(_memory(limits, limits.max_memory_mb, latency))
    return gates


def _latency_p99(limits: Limits, limit_ms: float, latency: Latency) -> Gate:
    limit = Limit("latency_p99", limit_ms, "ms", limits.source_of("max_p99_ms"))
    p99_ms = latency.percentile_ms(99)
    low, high = latency.percentile_interval_ms(99)
    found = f"latency p99 {p99_ms:.2f} ms ({low:.2f}–{high:.2f})"
    if not _settles(limits, latency):
        return _needs_device(limit, limits, latency, p99_ms, found)
    return limit.judge(
        limit.status(low, high),
        p99_ms,
        found,
        fail="a smaller network or a faster provider is needed; zeros alone do not help",
        inconclusive="more queries or a quieter machine can tell",
    )


def _memory(limits: Limits, limit_mb: float, latency: Latency) -> Gate:
    limit = Limit("memory", limit_mb, "MB", limits.source_of("max_memory_mb"))
    used_mb = latency.memory_model_bytes / 1e6
    found = f"peak memory {used_mb:.1f} MB"
    if not _settles(limits, latency):
        return _needs_device(limit, limits, latency, used_mb, found)
    return limit.judge(limit.status(used_mb), used_mb, found, fail="a smaller network or batch is needed")


def _needs_device(limit: Limit, limits: Limits, latency: Latency, measured: float, found: str) -> Gate:
    return limit.gate(
        GateStatus.NEEDS_DEVICE,
        measured,
        f"host {found}, {_elsewhere(limits, latency)}; the limit of {limit.value:g} {limit.unit} is settled by "
        f"measuring on {limits.target}",
    )


def _file_size(limits: Limits, limit_mb: float, exported: Exported) -> Gate:
    limit = Limit("file_size", limit_mb, "MB", limits.source_of("max_file_mb"))
    size_mb = exported.size_bytes / 1e6
    fail = "zeros do not shrink the file: a smaller network is needed"
    return limit.judge(limit.status(size_mb), size_mb, f"file size {size_mb:.2f} MB", fail=fail)


def _settles(limits: Limits, latency: Latency) -> bool:
    runtime = latency.runtime.partition(" ")[0]
    return latency.host_is_target and (latency.provider == limits.provider or runtime in limits.runtimes)


def _elsewhere(limits: Limits, latency: Latency) -> str:
    if latency.host_is_target:
        return f"run by {latency.provider} and not by the target's {limits.provider}"
    return f"on this {latency.host.machine} machine ({latency.host.cpu}), which is not the target"


def _stronger(profile: str, measured: Measured) -> str:
    if measured.is_from_elsewhere:
        return "recover it longer or at a lower sparsity"
    other = "a lower sparsity" if measured.same_architecture else "more recovery.num_steps in a profile of your own"
    return f"try {other}" if profile == "quality" else f"try --profile quality, or {other}"
