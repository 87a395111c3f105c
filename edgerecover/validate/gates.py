"""The judgements: what was measured against what was asked. Stdlib only, so a device can judge again.

A proportion is settled when its 95 % interval lies on one side of the limit; so is a percentile of latency.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    TwoFour,
    paired_interval,
)
from edgerecover.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from edgerecover.validate.limits import Limits

AT_LEAST, AT_MOST = "at least", "at most"
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


def judge(limits: Limits, measured: Measured) -> tuple[Gate, ...]:
    """Judge everything that has a limit, in the order a report shows it."""
    came = "pruned input" if measured.same_architecture else "student as it came"
    stronger = _stronger(limits.profile, measured)
    gates = [
        _agreement(limits, measured.fidelity.exported, stronger),
        *_not_worse_than_input(measured.fidelity, measured.is_from_elsewhere, came),
    ]
    if measured.zeros is not None:
        gates.append(_mask_kept(measured.zeros, measured.two_four, measured.is_from_elsewhere))
    if measured.parity is not None:
        gates.append(_parity_top1(limits, measured.parity, _what_changed(measured)))
        gates.append(_parity_logits(limits, measured.parity, _what_changed(measured)))
    if measured.precision_loss is not None:
        gates.append(_precision_loss(limits, measured.precision_loss))
    if measured.accuracy is not None:
        gates += _on_real_images(limits, measured.accuracy, came, stronger)
    gates += _of_the_device(limits, measured.latency)
    if limits.max_file_mb is not None:
        gates.append(_file_size(limits, limits.max_file_mb, measured.exported))
    return tuple(gates)


def judge_again(limits: Limits, report: Report) -> tuple[Gate, ...]:
    """A report's gates by other limits, in the report's order; what no limit decides stays as it was judged."""
    anew = {gate.name: gate for gate in judge(limits, _measured_of(report))}
    known = [anew.pop(gate.name, gate) for gate in report.gates]
    return (*known, *anew.values())


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
    )


def settle(gates: Sequence[Gate], limits: Limits, latency: Latency, golden: GoldenCheck) -> tuple[Gate, ...]:
    """The gates of a report once more, after its model has run on another machine.

    Args:
        gates: as the machine that packed the bundle judged.
        limits: that they were judged by.
        latency: measured now; it takes the place of the earlier one.
        golden: the same file's answers, which get a gate of their own.
    """
    anew = {gate.name: gate for gate in (*_of_the_device(limits, latency), golden_gate(golden))}
    known = [anew.pop(gate.name, gate) for gate in gates]
    return (*known, *anew.values())


def golden_gate(golden: GoldenCheck) -> Gate:
    """A file must decide on the golden images as the bundle says; a decision nearer than the tolerance may differ."""
    same = f"{golden.same_decisions} of {golden.num_images} golden images"
    close = f", {golden.too_close} too close to call" if golden.too_close else ""
    differ = f"scores differ by {golden.largest_difference:.2g} standard deviations at most"
    allowed = f" ({golden.tolerance:g} are allowed)" if golden.is_same_precision else ""
    return Gate(
        name="golden",
        status=GateStatus.PASS if golden.passed else GateStatus.FAIL,
        measured=100 * golden.same_decisions / golden.num_images,
        limit=100.0,
        direction=AT_LEAST,
        unit="%",
        source="edgerecover",
        message=f"decides as the bundle says on {same}{close}; {differ}{allowed}"
        + ("" if golden.passed else ": the runtime here computes something else; try another version of it"),
    )


def exit_code(verdict: GateStatus) -> int:
    """What the process returns for `Report.verdict`; a gate that waits for the device does not count."""
    return {GateStatus.FAIL: EXIT_GATE_FAILED, GateStatus.INCONCLUSIVE: EXIT_INCONCLUSIVE}.get(verdict, EXIT_PASS)


# --- fidelity and parity ------------------------------------------------------------------------------------


def _agreement(limits: Limits, exported: Proportion, stronger: str) -> Gate:
    source = limits.source_of("min_agreement")
    low, high = (100 * edge for edge in exported.interval())
    limit = 100 * limits.min_agreement
    status = _at_least(low, high, limit)
    return Gate(
        name="agreement",
        status=status,
        measured=100 * exported.value,
        limit=limit,
        direction=AT_LEAST,
        unit="%",
        source=source,
        message=(
            f"agreement with the teacher {100 * exported.value:.1f} % ({low:.1f}–{high:.1f}) "
            f"{WORDS_AT_LEAST[status]} the {limit:g} % of {source}"
            + advice(
                status,
                fail=stronger,
                inconclusive=f"a profile with more than {exported.total} held-back images can tell",
            )
        ),
    )


def _not_worse_than_input(fidelity: Fidelity, is_from_elsewhere: bool, came: str) -> list[Gate]:
    """Of the recovered network; from elsewhere, of the file."""
    after = fidelity.exported if is_from_elsewhere else fidelity.recovered
    if fidelity.pruned is None or after is None:
        return []
    does = f"{'the file' if is_from_elsewhere else 'recovered'} agrees with the teacher on"
    return [_not_worse("not_worse_than_input", fidelity.pruned, after, does, "held-back images", came)]


def _on_real_images(limits: Limits, accuracy: Accuracy, came: str, stronger: str) -> list[Gate]:
    gates = []
    if accuracy.pruned is not None:
        real = f"real images ({accuracy.source})"
        gates.append(
            _not_worse("not_worse_on_real", accuracy.pruned, accuracy.exported, "exported is right on", real, came)
        )
    return [*gates, _accuracy_drop(limits, accuracy, stronger)]


def _not_worse(name: str, before: Proportion, after: Proportion, does: str, images: str, came: str) -> Gate:
    """Fails when the intervals are disjoint; a smaller loss than that may be chance."""
    status = GateStatus.PASS
    if after.value < before.value:
        disjoint = after.interval()[1] < before.interval()[0]
        status = GateStatus.FAIL if disjoint else GateStatus.INCONCLUSIVE
    relation = "at least" if status is GateStatus.PASS else "less than"
    return Gate(
        name=name,
        status=status,
        measured=100 * after.value,
        limit=100 * before.value,
        direction=AT_LEAST,
        unit="%",
        source="edgerecover",
        message=(
            f"{does} {100 * after.value:.1f} % of {images}, {relation} the {100 * before.value:.1f} % "
            f"of the {came}"
            + advice(
                status,
                fail="keep the input, or try another profile",
                inconclusive=f"on {after.total} images that may be chance",
            )
        ),
    )


def _mask_kept(zeros: KeptZeros, two_four: TwoFour | None, is_from_elsewhere: bool) -> Gate:
    """Zeros in the exported file and, where the student is 2:4, the pattern there."""
    num_dense_groups = two_four.num_dense_groups if two_four else 0
    num_in_file = sum(zeros.in_file.values())
    faults = [f"{zeros.num_regrown:,} pruned weights are no longer zero"] if zeros.num_regrown else []
    if num_in_file and not zeros.num_regrown:
        faults.append(f"{num_in_file:,} pruned weights of {_listed(zeros.in_file)} are not zero in the exported file")
    if num_dense_groups:
        faults.append(f"{num_dense_groups:,} groups of four in the exported file hold more than two weights")
    if faults:
        status, message = GateStatus.FAIL, f"{' and '.join(faults)}: {_blame(zeros, is_from_elsewhere)}"
    elif zeros.missing:
        status = GateStatus.INCONCLUSIVE
        message = (
            f"the weights of {_listed(zeros.missing)} were not found in the exported file, so their zeros could not be "
            "counted; all other pruned weights are zero in it"
        )
    else:
        of_file = f", and all {two_four.num_layers} layers of the exported file that can be are 2:4" if two_four else ""
        status, message = GateStatus.PASS, f"every pruned weight is still zero{of_file}"
    return Gate(
        name="mask_kept",
        status=status,
        measured=max(zeros.num_regrown, num_in_file) + num_dense_groups,
        limit=0,
        direction=AT_MOST,
        unit="",
        source="edgerecover",
        message=message,
    )


def _blame(zeros: KeptZeros, is_from_elsewhere: bool) -> str:
    if zeros.in_file and set(zeros.computed) == set(zeros.in_file) and not zeros.num_regrown:
        return (
            "the network computes them from the stored weights, which are zero (weight standardisation does, by "
            "w - mean(w)); prune what the layers multiply by, or apply the mask last in their forward"
        )
    return "recover it under its mask" if is_from_elsewhere else "a fault of edgerecover, please report it"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _what_changed(measured: Measured) -> str:
    if measured.is_from_elsewhere:
        return "it was made from another network, or its export changed it"
    return "the export changed the network: try another opset"


def _parity_top1(limits: Limits, parity: Parity, what_changed: str) -> Gate:
    """Without an interval: both sides saw the very same images, and the limit is on these."""
    source = limits.source_of("min_parity_top1")
    measured, limit = 100 * parity.top1_agreement, 100 * limits.min_parity_top1
    status = GateStatus.PASS if measured >= limit else GateStatus.FAIL
    return Gate(
        name="parity_top1",
        status=status,
        measured=measured,
        limit=limit,
        direction=AT_LEAST,
        unit="%",
        source=source,
        message=(
            f"the exported file decides as PyTorch on {measured:.2f} % of {parity.num_images} images, "
            f"{WORDS_AT_LEAST[status]} the {limit:g} % of {source}" + advice(status, fail=what_changed)
        ),
    )


def _parity_logits(limits: Limits, parity: Parity, what_changed: str) -> Gate:
    source = limits.source_of("max_parity_relative")
    measured, limit = _finite(parity.relative), limits.max_parity_relative
    status = GateStatus.PASS if measured <= limit else GateStatus.FAIL
    return Gate(
        name="parity_logits",
        status=status,
        measured=measured,
        limit=limit,
        direction=AT_MOST,
        unit="",
        source=source,
        message=(
            f"largest logit difference to PyTorch {measured:.2g} standard deviations, "
            f"{WORDS_AT_MOST[status]} the {limit:g} of {source}" + advice(status, fail=what_changed)
        ),
    )


def _precision_loss(limits: Limits, loss: PrecisionLoss) -> Gate:
    source = limits.source_of("max_precision_loss_points")
    low, high = loss.interval_points()
    limit = limits.max_precision_loss_points
    status = precision_status(loss, limit)
    return Gate(
        name="precision_loss",
        status=status,
        measured=loss.points,
        limit=limit,
        direction=AT_MOST,
        unit="points",
        source=source,
        message=(
            f"lower precision costs {loss.points:.1f} points ({low:.1f}–{high:.1f}) of agreement with the teacher "
            f"against float32, {WORDS_AT_MOST[status]} the {limit:g} points of {source}; "
            f"{loss.changed} of {loss.num_images} decisions changed"
            + advice(
                status,
                fail="calibrate it on more images, or leave sensitive layers in a higher precision",
                inconclusive=f"on {loss.num_images} images that may be chance, more of them can tell "
                "(synthesis.num_held_back)",
            )
        ),
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


def _accuracy_drop(limits: Limits, accuracy: Accuracy, stronger: str) -> Gate:
    source = limits.source_of("max_accuracy_drop_points")
    low, high = (
        100 * edge for edge in paired_interval(accuracy.teacher_only, accuracy.exported_only, accuracy.num_images)
    )
    drop = 100 * (accuracy.teacher.value - accuracy.exported.value)
    limit = limits.max_accuracy_drop_points
    status = at_most(low, high, limit)
    return Gate(
        name="accuracy_drop",
        status=status,
        measured=drop,
        limit=limit,
        direction=AT_MOST,
        unit="points",
        source=source,
        message=(
            f"accuracy on {accuracy.source} {100 * accuracy.exported.value:.1f} %, {drop:.1f} points "
            f"({low:.1f}–{high:.1f}) below the teacher, "
            f"{WORDS_AT_MOST[status]} the {limit:g} points of {source}"
            + advice(
                status,
                fail=stronger,
                inconclusive=f"more than {accuracy.num_images} images can tell",
            )
        ),
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
    source = limits.source_of("max_p99_ms")
    p99_ms = latency.percentile_ms(99)
    low, high = latency.percentile_interval_ms(99)
    settled = _settles(limits, latency)
    status = at_most(low, high, limit_ms) if settled else GateStatus.NEEDS_DEVICE
    measured = f"p99 {p99_ms:.2f} ms ({low:.2f}–{high:.2f})"
    return Gate(
        name="latency_p99",
        status=status,
        measured=p99_ms,
        limit=limit_ms,
        direction=AT_MOST,
        unit="ms",
        source=source,
        message=(
            f"latency {measured} {WORDS_AT_MOST[status]} the {limit_ms:g} ms of {source}"
            + advice(
                status,
                fail="a smaller network or a faster provider is needed; zeros alone do not help",
                inconclusive="more queries or a quieter machine can tell",
            )
            if settled
            else f"host latency {measured}, {_elsewhere(limits, latency)}; the limit of {limit_ms:g} ms "
            f"is settled by measuring on {limits.target}"
        ),
    )


def _memory(limits: Limits, limit_mb: float, latency: Latency) -> Gate:
    source = limits.source_of("max_memory_mb")
    used_mb = latency.memory_model_bytes / 1e6
    settled = _settles(limits, latency)
    status = at_most(used_mb, used_mb, limit_mb) if settled else GateStatus.NEEDS_DEVICE
    return Gate(
        name="memory",
        status=status,
        measured=used_mb,
        limit=limit_mb,
        direction=AT_MOST,
        unit="MB",
        source=source,
        message=(
            f"peak memory {used_mb:.1f} MB {WORDS_AT_MOST[status]} "
            f"the {limit_mb:g} MB of {source}" + advice(status, fail="a smaller network or batch is needed")
            if settled
            else f"host peak memory {used_mb:.1f} MB, {_elsewhere(limits, latency)}; "
            f"the limit of {limit_mb:g} MB is settled by measuring on {limits.target}"
        ),
    )


def _file_size(limits: Limits, limit_mb: float, exported: Exported) -> Gate:
    source = limits.source_of("max_file_mb")
    size_mb = exported.size_bytes / 1e6
    status = at_most(size_mb, size_mb, limit_mb)
    return Gate(
        name="file_size",
        status=status,
        measured=size_mb,
        limit=limit_mb,
        direction=AT_MOST,
        unit="MB",
        source=source,
        message=(
            f"file size {size_mb:.2f} MB {WORDS_AT_MOST[status]} "
            f"the {limit_mb:g} MB of {source}"
            + advice(status, fail="zeros do not shrink the file: a smaller network is needed")
        ),
    )


def _settles(limits: Limits, latency: Latency) -> bool:
    runtime = latency.runtime.partition(" ")[0]
    return latency.host_is_target and (latency.provider == limits.provider or runtime in limits.runtimes)


def _elsewhere(limits: Limits, latency: Latency) -> str:
    if latency.host_is_target:
        return f"run by {latency.provider} and not by the target's {limits.provider}"
    return f"on this {latency.host.machine} machine ({latency.host.cpu}), which is not the target"


# --- words and comparisons ----------------------------------------------------------------------------------

WORDS_AT_LEAST = {
    GateStatus.PASS: "meets",
    GateStatus.FAIL: "is below",
    GateStatus.INCONCLUSIVE: "is too uncertain to judge against",
}
WORDS_AT_MOST = WORDS_AT_LEAST | {GateStatus.PASS: "keeps to", GateStatus.FAIL: "is above"}


def _at_least(low: float, high: float, limit: float) -> GateStatus:
    if low >= limit:
        return GateStatus.PASS
    return GateStatus.FAIL if high < limit else GateStatus.INCONCLUSIVE


def at_most(low: float, high: float, limit: float) -> GateStatus:
    """How an interval that must not be above a limit comes out."""
    if high <= limit:
        return GateStatus.PASS
    return GateStatus.FAIL if low > limit else GateStatus.INCONCLUSIVE


def advice(status: GateStatus, *, fail: str, inconclusive: str = "") -> str:
    """What to do next, after a colon; nothing where a gate passes."""
    next_step = {GateStatus.FAIL: fail, GateStatus.INCONCLUSIVE: inconclusive}.get(status, "")
    return f": {next_step}" if next_step else ""


def _stronger(profile: str, measured: Measured) -> str:
    if measured.is_from_elsewhere:
        return "recover it longer or at a lower sparsity"
    other = "a lower sparsity" if measured.same_architecture else "more recovery.num_steps in a profile of your own"
    return f"try {other}" if profile == "quality" else f"try --profile quality, or {other}"


def _finite(value: float) -> float:
    return min(value, _LARGEST)
