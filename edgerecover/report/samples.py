"""Measurements in numbers and words, the same in every view. Stdlib only, but for the intervals of `artifacts`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from edgerecover.artifacts import Conditions, Energy, Latency, Ratio

PERCENTILES = (50, 90, 95, 99)
_NUM_BUCKETS = 24
_SAME = 0.02
"""Two processes of the same file differ by about one hundredth."""


def histogram(samples_ms: Sequence[float], num_buckets: int = _NUM_BUCKETS) -> tuple[tuple[int, ...], float, float]:
    """How many samples lie in each of equal buckets, and where the first begins and the last ends.

    The slowest hundredth is in the last bucket, however slow: one pause must not flatten the rest.
    """
    ordered = sorted(samples_ms)
    low, high = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]
    width = (high - low) / num_buckets or 1.0
    counts = [0] * num_buckets
    for sample in ordered:
        counts[min(num_buckets - 1, int((sample - low) / width))] += 1
    return tuple(counts), low, high


def round_medians(latency: Latency) -> list[float]:
    """Median of every round, in milliseconds; 0 for an empty round."""
    medians, start = [], 0
    for round_size in latency.round_sizes:
        medians.append(median(latency.samples_ms[start : start + round_size]) if round_size else 0.0)
        start += round_size
    return medians


def milliseconds(value_ms: float) -> str:
    """Four digits that mean something: "0.0057", "1.234", "12.35", "66.7"."""
    if value_ms >= 1000:
        return f"{value_ms:,.0f}"
    digits = 3 - math.floor(math.log10(value_ms)) if value_ms > 0 else 3
    return f"{value_ms:.{min(max(digits, 0), 4)}f}"


def ratio_words(ratio: Ratio) -> tuple[str, str]:
    """ "2.31× faster" and its interval; "about as fast" where the difference is none or may be none."""
    if ratio.low <= 1 + _SAME and ratio.high >= 1 - _SAME:
        return "about as fast", f"({ratio.low:.2f}–{ratio.high:.2f} × its time)"
    if ratio.value < 1:
        return f"{1 / ratio.value:.2f}× faster", f"({1 / ratio.high:.2f}–{_inverse(ratio.low)})"
    return f"{ratio.value:.2f}× slower", f"({ratio.low:.2f}–{ratio.high:.2f})"


def _inverse(low: float) -> str:
    return f"{1 / low:.2f}" if low else "∞"


def energy_words(energy: Energy | None) -> str:
    """ "12.4 mJ per query: INA3221 VDD_IN, the whole board"."""
    if energy is None:
        return "no readable sensor"
    return f"{energy.mj_per_query:.3g} mJ per query: {energy.source}"


def conditions_words(conditions: Conditions) -> str:
    """What is known of the machine during the measurement, in one line; "" if nothing is."""
    c = conditions
    said = []
    if c.power_mode is not None:
        said.append(f"power mode {c.power_mode}")
    if c.governor is not None:
        said.append(f"governor {c.governor}")
    if c.clocks_locked:
        said.append("clocks locked")
    for name, lowest, highest in (
        ("CPU", c.cpu_mhz_lowest, c.cpu_mhz_highest),
        ("GPU", c.gpu_mhz_lowest, c.gpu_mhz_highest),
    ):
        if lowest is not None and highest is not None:
            said.append(f"{name} at {_range(lowest, highest)} MHz")
    if c.temperature_before_c is not None and c.temperature_peak_c is not None:
        said.append(f"{_range(c.temperature_before_c, c.temperature_peak_c)} °C")
    if c.busy_elsewhere is not None:
        said.append(f"{c.busy_elsewhere:.1f} cores busy with other work")
    if c.stolen is not None:
        said.append(f"{c.stolen:.1%} stolen by the hypervisor")
    if c.throttled is not None:
        said.append("throttled" if c.throttled else "not throttled")
    return ", ".join(said)


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f}–{high:,.0f}"
