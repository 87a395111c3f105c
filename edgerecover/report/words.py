"""How numbers are written, the same in the terminal and in Markdown. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping

from edgerecover.artifacts import Parity, Predicted, Proportion, RecordFacts, Report, SyntheticFacts


def percent(fraction: float) -> str:
    """0.8912 → "89.1 %"."""
    return f"{100 * fraction:.1f} %"


def proportion(value: Proportion) -> str:
    """Value and 95 % interval: "89.1 % (84.7-92.4)"."""
    low, high = value.interval()
    return f"{percent(value.value)} ({100 * low:.1f}–{100 * high:.1f})"


def prediction(value: Predicted) -> str:
    """What is expected, how wrong that tends to be, and where the error was measured."""
    error_points = 100 * max(value.kept - value.low, value.high - value.kept)
    return (
        f"{100 * value.kept:.0f} % ± {error_points:.1f} of the teacher's accuracy kept on real images\n"
        f"read from dreams, not measured; mean error over {value.num_students} students of {value.num_networks} "
        "networks: docs/explanation/agreement-and-accuracy.md"
    )


def mirroring(facts: SyntheticFacts) -> str:
    """Whether images were mirrored, and why: "yes: the teacher's margins on mirrored dreams correlate at 0.94"."""
    answer = "yes" if facts.mirrored else "no"
    if facts.mirror_correlation is None:
        return f"{answer}: the profile says so"
    return f"{answer}: the teacher's margins on mirrored dreams correlate at {facts.mirror_correlation:.2f}"


def parity(value: Parity) -> str:
    """How near a file is to its PyTorch network."""
    return (
        f"same decision as PyTorch on {percent(value.top1_agreement)} of them\n"
        f"logits differ by {value.max_abs:.1e} at most (their spread: {value.logit_scale:.3g})"
    )


def size(num_bytes: int) -> str:
    """1_099_231 → "1.1 MB" (10^6 bytes, as disks and downloads count)."""
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    value, unit = num_bytes / 1e3, "kB"
    for larger in ("MB", "GB"):
        if round(value) >= 1000:
            value, unit = value / 1e3, larger
    return f"{value:.3g} {unit}"


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


def count(value: float) -> str:
    """1408.0 → "1,408"; 12.34 → "12.3"."""
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"


def numbers(values: Mapping[str, float]) -> str:
    """{"loss": 0.2512} → "loss 0.251"."""
    return " ".join(f"{name} {value:.3g}" for name, value in values.items())


def record(facts: RecordFacts) -> str:
    """Of the teacher's activations, shipped with it."""
    noise = f", noise of {facts.noise:g} standard errors" if facts.noise else ""
    return f"{facts.path}: {facts.kind}, from {facts.num_images:,} real images, {size(facts.size_bytes)}{noise}"


def precision(report: Report) -> str:
    """Of the file that is shipped, and what it costs."""
    variant, loss = report.variant, report.precision_loss
    named = variant.scheme if variant else "lower than float32"
    if loss is None:
        return named
    low, high = loss.interval_points()
    return (
        f"{named}\n{loss.points:.1f} points ({low:.1f}–{high:.1f}) of agreement lost to it, "
        f"{loss.changed} of {loss.num_images} decisions changed"
    )
