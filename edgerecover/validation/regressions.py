"""The gates of a release against the previous one. Stdlib only.

Each loss is settled when its 95 % interval lies on one side of the limit; sizes and memory are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgerecover.artifacts import (
    Comparison,
    Decisions,
    Gate,
    GateStatus,
    Proportion,
    Release,
    TaskKind,
    difference_interval,
    paired_interval,
)
from edgerecover.tasks.measure import words_of
from edgerecover.validation.limit import Limit
from edgerecover.validation.limits import Limits

AGREEMENT, ACCURACY = "agreement_kept", "accuracy_kept"
LATENCY, SIZE, MEMORY = "latency_regression", "size_regression", "memory_regression"
_LIMITS = {
    AGREEMENT: ("max_agreement_loss_points", "points"),
    ACCURACY: ("max_accuracy_loss_points", "points"),
    LATENCY: ("max_latency_regression", "%"),
    SIZE: ("max_size_regression", "%"),
    MEMORY: ("max_memory_regression", "%"),
}
_NAMES = {
    LATENCY: "latency",
    SIZE: "file size",
    MEMORY: "peak memory",
}
MEMORY_NOISE_BYTES = 1_500_000
"""Allowed in addition to the limit, for networks so small that a tenth is nothing."""
MEMORY_PROCESSES = 3
"""From this many processes on a side, their extremes show how much processes differ."""
MEMORY_SPREAD = 1.15
"""How much fewer processes are assumed to differ: those of one file did by up to 14 % (docs/adr/0027)."""


def quality_gates(limits: Limits, now: Release, before: Release | None) -> tuple[Gate, ...]:
    """What no machine has a part in: agreement, accuracy where either was judged on real images, and size.

    Args:
        limits: how much may be lost.
        now: the release to judge.
        before: the release to compare it with; None: there is none.
    """
    if before is None:
        names = [AGREEMENT, *([ACCURACY] if now.accuracy is not None else []), SIZE]
        return tuple(skipped(limits, name, FIRST, now.task) for name in names)
    gates = [_agreement(limits, now, before)]
    if now.accuracy is not None or before.accuracy is not None:
        gates.append(_accuracy(limits, now, before))
    return (*gates, _size(limits, now, before))


FIRST = "there is no baseline yet to compare with"


def skipped(limits: Limits, name: str, reason: str, task: TaskKind = TaskKind.ONE_LABEL) -> Gate:
    """A gate that has nothing to compare with, and why."""
    limit = _limit(limits, name)
    allowed = f"{limit.value:g} {limit.unit} of {limit.source}"
    named = {
        **_NAMES,
        AGREEMENT: words_of(task).agreement,
        ACCURACY: f"{words_of(task).truth} on real images",
    }
    return limit.gate(GateStatus.SKIP, None, f"{named[name]} is not compared ({allowed} may be lost): {reason}")


def latency_gate(limits: Limits, comparison: Comparison) -> Gate:
    """How much longer a typical query takes: by the interval of the ratio of medians."""
    limit = _limit(limits, LATENCY)
    slower = comparison.slower
    value, low, high = map(_percent, (slower.value, slower.low, slower.high))
    now_ms, before_ms = (side.percentile_ms(50) for side in (comparison.latency, comparison.before))
    return limit.judge(
        limit.status(low, high),
        value,
        f"latency p50 {now_ms:.3g} ms, {_change(value, low, high)} the baseline's {before_ms:.3g} ms "
        f"({comparison.how}),",
        fail="`edgerecover bench NEW --against OLD` shows both; look for a changed opset, precision, layer or runtime, "
        "or accept it with --max-latency-regression",
        inconclusive="a quieter machine, a longer race (--seconds), or the baseline's bundle instead of its numbers "
        "can tell",
    )


def memory_gate(limits: Limits, comparison: Comparison) -> Gate:
    """Passes by the middle processes; fails when the least of one is above what the most of the other allows."""
    now, before = comparison.memory_bytes, comparison.memory_before_bytes

    def allows(before_bytes: float) -> float:
        return before_bytes * (1 + limits.max_memory_regression) + MEMORY_NOISE_BYTES

    least_now = min(now) / (1 if len(now) >= MEMORY_PROCESSES else MEMORY_SPREAD)
    most_before = max(before) * (1 if len(before) >= MEMORY_PROCESSES else MEMORY_SPREAD)
    status = GateStatus.FAIL if least_now > allows(most_before) else GateStatus.INCONCLUSIVE
    if median(now) <= allows(median(before)):
        status = GateStatus.PASS
    return _of_bytes(
        limits, MEMORY, median(now), median(before), status,
        f"({MEMORY_NOISE_BYTES / 1e6:g} MB more are allowed, which processes differ by)",
        fail="a kernel with a larger workspace, a larger batch or a higher precision is the usual reason",
        inconclusive="processes differ by more than that; more of them can tell (--races)",
    )  # fmt: skip


def _size(limits: Limits, now: Release, before: Release) -> Gate:
    allowed = before.size_bytes * (1 + limits.max_size_regression)
    status = GateStatus.PASS if now.size_bytes <= allowed else GateStatus.FAIL
    return _of_bytes(
        limits, SIZE, now.size_bytes, before.size_bytes, status, "",
        fail="zeros do not shrink the file; compare precision and number of channels with the baseline's",
    )  # fmt: skip


def _of_bytes(
    limits: Limits,
    name: str,
    now: float,
    before: float,
    status: GateStatus,
    allowance: str,
    *,
    fail: str,
    inconclusive: str = "",
) -> Gate:
    change = _percent(now / before) if before else 0.0 if not now else 1e6
    return _limit(limits, name).judge(
        status,
        change,
        f"{_NAMES[name]} {now / 1e6:.2f} MB, {_change(change)} the baseline's {before / 1e6:.2f} MB,",
        more=f" {allowance}" if allowance else "",
        fail=fail,
        inconclusive=inconclusive,
    )


# --- decisions ----------------------------------------------------------------------------------------------


def _agreement(limits: Limits, now: Release, before: Release) -> Gate:
    """In pairs where both decided the very same images; else only where the images are of one kind."""
    if differences := now.image_differences(before):
        return skipped(limits, AGREEMENT, f"it was judged otherwise ({'; '.join(differences)})", now.task)
    what = words_of(now.task).agreement
    return _loss(limits, AGREEMENT, what, now.agreement, before.agreement, now.decisions, before.decisions)


def _accuracy(limits: Limits, now: Release, before: Release) -> Gate:
    ours, theirs = now.accuracy, before.accuracy
    if ours is None or theirs is None:
        which = "this bundle" if ours is None else "the baseline"
        return skipped(
            limits, ACCURACY, f"{which} was not judged on real images (edgerecover run --eval-data)", now.task
        )
    known = ours.decisions is not None and theirs.decisions is not None
    same = _pairs(ours.decisions, theirs.decisions) is not None
    if (known and not same) or (ours.source, ours.num_images) != (theirs.source, theirs.num_images):
        described = [f"{side.num_images:,} of {side.source}" for side in (ours, theirs)]
        others = f"{described[0]}, was {described[1]}" if described[0] != described[1] else "their content differs"
        return skipped(limits, ACCURACY, f"it was judged on other images ({others})", now.task)
    name = f"{words_of(now.task).truth} on {ours.source}"
    return _loss(limits, ACCURACY, name, ours.exported, theirs.exported, ours.decisions, theirs.decisions)


def _loss(
    limits: Limits,
    name: str,
    what: str,
    now: Proportion,
    before: Proportion,
    now_right: Decisions | None,
    before_right: Decisions | None,
) -> Gate:
    limit = _limit(limits, name)
    pairs = _pairs(before_right, now_right)
    if pairs is not None:
        low, high = (100 * edge for edge in paired_interval(*pairs, now.total))
        images = f"the same {now.total:,} images"
    else:
        low, high = (100 * edge for edge in difference_interval(before, now))
        images = f"{now.total:,} and {before.total:,} images"
    loss = 100 * (before.value - now.value)
    return limit.judge(
        limit.status(low, high),
        loss,
        f"{what} {100 * now.value:.1f} %, {_lost(loss, low, high)} the baseline's {100 * before.value:.1f} % on "
        f"{images}; the loss",
        fail="keep the previous release, or recover it longer (--profile quality) or at a lower sparsity",
        inconclusive=f"more than {now.total:,} images can tell",
    )


def _pairs(first: Decisions | None, second: Decisions | None) -> tuple[float, float] | None:
    return first.pairs(second) if first is not None and second is not None else None


# --- words --------------------------------------------------------------------------------------------------


def _limit(limits: Limits, name: str) -> Limit:
    key, unit = _LIMITS[name]
    value: float = getattr(limits, key)
    return Limit(name, 100 * value if unit == "%" else value, unit, limits.source_of(key))


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


def _change(percent: float, *interval: float) -> str:
    """ "3.1 % (2.0–4.2) above", "0.5 % (-0.2–1.1) below": the interval is of what the sentence says."""
    return _with_sign(percent, interval, "%", "above", "below")


def _lost(points: float, *interval: float) -> str:
    return _with_sign(points, interval, "points", "below", "above")


def _with_sign(value: float, interval: Sequence[float], unit: str, positive: str, negative: str) -> str:
    sign = 1 if value >= 0 else -1
    edges = sorted(sign * edge for edge in interval)
    between = f" ({edges[0]:.1f} to {edges[1]:.1f})" if edges else ""
    return f"{sign * value:.1f} {unit}{between} {positive if sign > 0 else negative}"
