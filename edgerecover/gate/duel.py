"""Is the new one slower? Two models in one race, again while the answer is not certain.

A race alone may stand under a bad star: a neighbour for half of it, a process whose memory lies badly. So what is not
settled by one race is raced again in fresh processes, up to a limit, and all rounds are judged together; and nothing
fails by one race alone, if another may be held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgerecover.artifacts import Comparison, Gate, GateStatus, Latency, Ratio
from edgerecover.validation.limits import Limits
from edgerecover.validation.regressions import latency_gate, memory_gate

MAX_RACES = 8
"""Races after which an inconclusive answer stays so."""
WIDENED = (2.0, 1.5)
"""How many times its interval the first race, and then the first two, must be sure by: a pair of processes that was
unlucky for a whole race tells nothing of it in its own rounds."""
LEAST_RACES_TO_FAIL = 2
SECONDS = 3.0
"""Minimum seconds per model in each race."""
MIN_QUERIES = 300
"""Minimum queries per model in each race: ten a turn, or the median of a turn says little on a busy machine."""

Pair = tuple[Latency, Latency]
"""Of one race: the new model's, and the baseline's."""


@dataclass(frozen=True)
class Duel:
    """How it ended."""

    latency: Gate
    memory: Gate
    comparison: Comparison
    num_races: int


def duel(races: Iterable[Pair], limits: Limits) -> Duel:
    """Race until latency and memory are settled, or there are no more races.

    Args:
        races: one or more, each held in fresh processes when it is asked for.
        limits: of which `max_latency_regression` and `max_memory_regression` count.
    """
    ours: list[Latency] = []
    theirs: list[Latency] = []
    for now, before in races:
        ours.append(now)
        theirs.append(before)
        comparison = compare(ours, theirs)
        if _is_settled(comparison, limits, len(ours)):
            break
    return Duel(latency_gate(limits, comparison), memory_gate(limits, comparison), comparison, len(ours))


def _is_settled(comparison: Comparison, limits: Limits, num_races: int) -> bool:
    """Another race would hardly change the answer."""
    slower = comparison.slower
    times = WIDENED[num_races - 1] if num_races <= len(WIDENED) else 1.0
    low = slower.value - times * (slower.value - slower.low)
    high = slower.value + times * (slower.high - slower.value)
    widened = replace(comparison, slower=Ratio(slower.value, low, high))
    statuses = {latency_gate(limits, widened).status, memory_gate(limits, widened).status}
    if statuses == {GateStatus.PASS}:
        return True
    return GateStatus.INCONCLUSIVE not in statuses and num_races >= LEAST_RACES_TO_FAIL


def compare(ours: Sequence[Latency], theirs: Sequence[Latency]) -> Comparison:
    """All rounds of one or more races together."""
    now, before = pool(ours), pool(theirs)
    races = "" if len(ours) == 1 else f" of {len(ours)} races"
    return Comparison(
        latency=now,
        before=before,
        slower=now.slower_than(before),
        how=f"in turns, {len(now.round_sizes)} rounds{races}",
        memory_bytes=tuple(latency.memory_model_bytes for latency in ours),
        memory_before_bytes=tuple(latency.memory_model_bytes for latency in theirs),
    )


def pool(latencies: Sequence[Latency]) -> Latency:
    """The samples of all, one race after the other."""
    first = latencies[0]
    if len(latencies) == 1:
        return first
    return replace(
        first,
        warmup_ms=tuple(value for latency in latencies for value in latency.warmup_ms),
        samples_ms=tuple(value for latency in latencies for value in latency.samples_ms),
        round_sizes=tuple(size for latency in latencies for size in latency.round_sizes),
        settled=all(latency.settled for latency in latencies),
    )
