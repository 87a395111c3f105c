"""Who wins a race: one rule for the desk, which packs a bundle, and for the device, which runs it. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence

from edgerecover.artifacts import Latency, Precision


def fastest(ran: Sequence[tuple[Precision, Latency]]) -> int | None:
    """The one to ship: of the highest precision, then the first, of those that are not surely slower than the best.

    The best has the lowest median. One is surely slower where the 95 % interval of the ratio of their medians, paired
    by round, lies above 1. So lower precision, which costs decisions, must pay in latency, and a second race, whose
    medians come out a little differently, has the same winner.

    Args:
        ran: all that may be shipped, raced together, in an order that does not depend on their latencies.

    Returns:
        Its index in `ran`; None where nothing ran.
    """
    if not ran:
        return None
    best = min(range(len(ran)), key=lambda index: ran[index][1].percentile_ms(50))
    by_precision = sorted(range(len(ran)), key=lambda index: tuple(Precision).index(ran[index][0]))
    return next(index for index in by_precision if index == best or not _surely_slower(ran[index][1], ran[best][1]))


def _surely_slower(one: Latency, other: Latency) -> bool:
    return one.slower_than(other).low > 1
