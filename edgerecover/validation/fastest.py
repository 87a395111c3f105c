"""Who wins a race: one rule for the desk, which packs a bundle, and for the device, which runs it. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence

from edgerecover.artifacts import Latency, Precision


def fastest(ran: Sequence[tuple[Precision, Latency]]) -> int | None:
    """The one to ship: the first of the highest precision among those that are not significantly slower than the best.

    The best has the lowest median. Another is significantly slower if the 95 % interval of the ratio of their medians,
    paired by round, lies above 1. So lower precision, which costs decisions, must pay in latency, and a second race,
    whose medians differ a little, has the same winner.

    Args:
        ran: all that may be shipped, raced together, in an order that does not depend on their latencies.

    Returns:
        Its index in `ran`; None where nothing ran.
    """
    if not ran:
        return None
    best = min(range(len(ran)), key=lambda index: ran[index][1].percentile_ms(50))
    by_precision = sorted(range(len(ran)), key=lambda index: tuple(Precision).index(ran[index][0]))
    return next(index for index in by_precision if index == best or not _is_slower(ran[index][1], ran[best][1]))


def _is_slower(one: Latency, other: Latency) -> bool:
    return one.slower_than(other).low > 1
