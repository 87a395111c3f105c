"""How numbers are written, the same in every view. Stdlib only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from edgerecover.artifacts import (
    Accuracy,
    Fidelity,
    Gate,
    GateStatus,
    Int8Sums,
    Latency,
    ModelFacts,
    Parity,
    Predicted,
    Proportion,
    RecordFacts,
    Report,
    SyntheticFacts,
    TaskKind,
)
from edgerecover.tasks.measure import Words, words_of

_TONES = {
    GateStatus.PASS: "pass",
    GateStatus.FAIL: "fail",
    GateStatus.INCONCLUSIVE: "inconclusive",
    GateStatus.NEEDS_DEVICE: "device",
}

_GATE_NAMES = {
    "not_worse_than_input": "not worse than the input",
    "not_worse_on_real": "not worse on real images",
    "mask_kept": "pruned weights stay zero",
    "precision_loss": "loss by lower precision",
    "latency_p99": "latency, p99",
    "golden": "golden outputs",
}
"""Of gates whose own name is no phrase."""


def percent(fraction: float) -> str:
    """0.8912 → "89.1 %"."""
    return f"{100 * fraction:.1f} %"


def proportion(value: Proportion) -> str:
    """Value and 95 % interval: "89.1 % (84.7-92.4)"."""
    low, high = value.interval()
    return f"{percent(value.value)} ({100 * low:.1f}–{100 * high:.1f})"


def prediction(value: Predicted) -> str:
    """What is expected, between which bounds, and where that was measured."""
    return f"{expectation(value)}\n{grounds(value)}; `edgerecover help agreement-and-accuracy` says how"


def expectation(value: Predicted) -> str:
    """In one line: "95 % (88–99) of the teacher's accuracy kept on real images"."""
    if value.doubt is not None:
        return "cannot be predicted"
    return f"{100 * value.kept:.0f} % {bounds(value)} of the teacher's accuracy kept on real images"


def bounds(value: Predicted) -> str:
    """The interval, "(88–99)"; "± 2.7" in reports from before there were intervals."""
    if value.coverage is None:
        return f"± {100 * max(value.kept - value.low, value.high - value.kept):.1f}"
    return f"({100 * value.low:.0f}–{100 * value.high:.0f})"


def grounds(value: Predicted) -> str:
    """What a prediction rests on, or why there is none."""
    measured = f"{value.num_students} students of {value.num_networks} networks"
    if value.doubt is not None:
        return f"{value.doubt}; use --eval-data to measure on real images"
    if value.coverage is None:
        return f"estimated from dreams, not measured; mean error over {measured}"
    share = f"{100 * value.coverage:.0f} %"
    return (
        f"estimated from dreams, not measured; such intervals contained the true value for {share} of {measured}, "
        "each predicted from the other networks"
    )


def mirroring(facts: SyntheticFacts) -> str:
    """Whether images were mirrored, and why: "yes: the teacher's margins on mirrored dreams correlate at 0.94"."""
    answer = "yes" if facts.mirrored else "no"
    if facts.mirror_correlation is None:
        return f"{answer}: set by the profile"
    return f"{answer}: the teacher's margins on mirrored dreams correlate at {facts.mirror_correlation:.2f}"


def parity(value: Parity, words: Words) -> str:
    """How near a file is to its PyTorch network."""
    same = f"same decision as PyTorch on {percent(value.top1_agreement)} of the images"
    if words.is_graded:
        same = f"{words.with_pytorch} {percent(value.top1_agreement)}"
    if value.by_output:
        return "\n".join(
            f"{name}: same answer as PyTorch {percent(one.top1_agreement)}; {differences(one, 'number')}"
            for name, one in value.by_output.items()
        )
    return f"{same}\n{differences(value, words.score)}"


def differences(value: Parity, noun: str) -> str:
    """Largest ones, of boxes and of scores each in its own unit."""
    if not value.by_quantity:
        return f"{noun}s differ by at most {value.max_abs:.1e} (standard deviation {value.logit_scale:.3g})"
    return "; ".join(
        f"{name} differ by at most {one.max_abs:.1e}{' px' if name == 'boxes' else ''} "
        f"(standard deviation {one.deviation:.3g})"
        for name, one in value.by_quantity.items()
    )


def of_each(by_output: Mapping[str, Fidelity | Accuracy]) -> tuple[tuple[str, str], ...]:
    """What the exported file reaches, output by output, with names; empty where there is one."""
    return tuple((name, proportion(one.exported)) for name, one in by_output.items())


def size(num_bytes: int) -> str:
    """1_099_231 → "1.1 MB" (10^6 bytes, as disks and downloads count)."""
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    value, unit = num_bytes / 1e3, "kB"
    for larger in ("MB", "GB"):
        if round(value) >= 1000:
            value, unit = value / 1e3, larger
    return f"{value:.3g} {unit}"


def shape(sides: tuple[int, ...]) -> str:
    """Sides of a tensor: "3×32×32"."""
    return "×".join(str(side) for side in sides)


def input_words(facts: ModelFacts) -> str:
    """What a network takes and tells apart, and who says so: "1×8×8, 10 classes, pixels 0 to 1, … (model.toml)"."""
    classes = count(facts.num_classes, "class", "classes") if facts.num_classes else "unknown classes"
    output = facts.output
    if output is not None and output.task is not TaskKind.ONE_LABEL:
        classes = output.description
    if facts.input is None:
        return f"unknown; {classes}"
    low, high = facts.input.range
    mean, std = (", ".join(f"{one:g}" for one in ones) for ones in (facts.input.mean, facts.input.std))
    scale = f"pixels {low:g} to {high:g}, mean {mean}, std {std}"
    if output is not None and output.parts:
        return f"{shape(facts.input.shape)}, {scale} ({facts.input_source}); outputs: {classes}"
    return f"{shape(facts.input.shape)}, {classes}, {scale} ({facts.input_source})"


def count(number: int, noun: str, several: str = "") -> str:
    """One core, two cores; one class, two classes."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {several or f'{noun}s'}"


def status_tone(status: GateStatus) -> str:
    """How the word of a status is said: "pass", "fail", "inconclusive", "device" or "plain"."""
    return _TONES.get(status, "plain")


def gate_name(name: str, words: Words) -> str:
    """A gate's name for people: "not_worse_than_input" → "not worse than the input"."""
    named = {
        **_GATE_NAMES,
        "parity_top1": f"same {'answers' if words.is_graded else 'decisions'} as PyTorch",
        "parity_logits": f"same {words.score}s as PyTorch",
    }
    if words.is_graded:
        named |= {
            "agreement": words.agreement,
            "agreement_kept": f"{words.agreement}, kept",
            "accuracy_drop": f"{words.truth}, drop",
            "accuracy_kept": f"{words.truth}, kept",
        }
    return named.get(name, name.replace("_", " "))


def capital(text: str) -> str:
    """With a capital letter first: "mean IoU" → "Mean IoU"."""
    return text[:1].upper() + text[1:]


def intended(share: float, task: TaskKind) -> str:
    """In how many dreams the teacher sees what they were made for: "83.1 % classified as intended"."""
    return f"{percent(share)} {as_intended(task)}"


def as_intended(task: TaskKind) -> str:
    """Of a dream in which the teacher sees what it was made for: "classified as intended"."""
    if task is TaskKind.SEVERAL:
        return "answered as intended in every output with targets"
    return f"{'labelled' if words_of(task).is_graded else 'classified'} as intended"


def gate_counts(gates: Sequence[Gate]) -> str:
    """ "10 of 12 gates pass; 2 can only be settled on the device"."""
    number = Counter(gate.status for gate in gates)
    said = [f"{number[GateStatus.PASS]} of {count(len(gates), 'gate')} pass"]
    if failed := number[GateStatus.FAIL]:
        said.append(f"{failed} {'fails' if failed == 1 else 'fail'}")
    if inconclusive := number[GateStatus.INCONCLUSIVE]:
        said.append(f"{inconclusive} {'is' if inconclusive == 1 else 'are'} inconclusive")
    if waiting := number[GateStatus.NEEDS_DEVICE]:
        said.append(f"{waiting} can only be settled on the device")
    return "; ".join(said)


def where_measured(latency: Latency) -> str:
    """Whether a latency is the target's or only this host's."""
    return "Target latency" if latency.host_is_target else "Host latency: this machine is not the target"


def before_words(report: Report) -> str:
    """What a number before recovery is called: "as pruned, before recovery"."""
    return f"{'as pruned' if report.same_architecture else report.before}, before recovery"


def is_not_accuracy(report: Report) -> str:
    """What the numbers on synthetic images are, and are not."""
    words = words_of(report.task)
    if words.is_graded:
        told = "is reported separately" if report.accuracy else "was not measured: no real images with it were given"
        return (
            f"{capital(words.agreement)} compares two networks on {report.synthetic.source}. {words.rule} "
            f"How right a network is on real images {told}."
        )
    said = (
        f"Agreement is how often two networks make the same decision on {report.synthetic.source}. It is not accuracy, "
        "which is how often a network is right on real labelled images"
    )
    return f"{said} and is reported separately." if report.accuracy else f"{said}; none were given."


def duration(seconds: float) -> str:
    """98.4 → "98 s"; 351 → "5 min 51 s"; 0.42 → "0.4 s"."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 120:
        return f"{seconds:.0f} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def clock_time(seconds: float) -> str:
    """98.4 → "1:38"; 3725 → "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(per_s: float | None) -> str:
    """9.31 → "9.3/s"; 1860 → "1,860/s"; 0.2 → "12/min"; nothing where there is none."""
    if per_s is None:
        return ""
    value, unit = (per_s, "s") if per_s >= 1 else (60 * per_s, "min")
    return f"{value:,.0f}/{unit}" if value >= 10 else f"{value:.1f}/{unit}"


def amount(value: float) -> str:
    """1408.0 → "1,408"; 12.34 → "12.3"."""
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"


def numbers(values: Mapping[str, float]) -> str:
    """{"loss": 0.2512} → "loss 0.251"."""
    return " ".join(f"{name} {value:.3g}" for name, value in values.items())


def record(facts: RecordFacts) -> str:
    """The record of the teacher's activations: file, kind, images, size and noise."""
    noise = f", noise of {facts.noise:g} standard errors" if facts.noise else ""
    return f"{facts.path}: {facts.kind}, from {facts.num_images:,} real images, {size(facts.size_bytes)}{noise}"


def precision(report: Report) -> dict[str, str]:
    """The shipped file's precision, what it costs, and how int8 was computed; empty if there is only float32."""
    variant, loss, sums = report.variant, report.precision_loss, report.int8_sums
    words = words_of(report.task)
    lines = [variant.scheme] if variant else ["lower than float32"] if loss or sums else []
    if loss is not None:
        low, high = loss.interval_points()
        lines.append(
            f"{loss.points:.1f} points ({low:.1f}–{high:.1f}) of {words.name} lost to it, "
            f"{words.changed(loss.changed, loss.num_images)}"
        )
    if sums is not None:
        lines.append(INT8_SUMS[sums])
    return {"precision": "\n".join(lines)} if lines else {}


INT8_SUMS = {
    Int8Sums.EXACT: "int8 results are the file's: its sums are exact on any processor",
    Int8Sums.HOST: "int8 results are this processor's, which is the target's",
}
