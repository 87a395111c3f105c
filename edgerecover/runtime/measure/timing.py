"""Single-stream timing: one query after another, as MLPerf's loadgen asks, raw times kept. Stdlib only."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

MAX_DURATION_S = 60.0
"""A slow network stops here although it has not reached its minimum of queries."""
LEAST_QUERIES = 10
"""Asked even of a network that is slower than that."""
MAX_QUERIES = 10_000
"""Enough for any percentile: a tiny network would fill its report with raw times before its duration is over."""
MAX_WARMUP_S = 20.0
FALLING = 0.98
"""A warm-up goes on while the median of its newest blocks is below this fraction of the one before."""
_BLOCKS_COMPARED = 2
MAX_WARMUP_QUERIES = 5_000
LEAD_IN_QUERIES = 3
"""Of each block, not counted: others ran meanwhile, and the caches hold their data."""
_LEAD_IN_NS = 20_000_000


@dataclass(frozen=True)
class Timing:
    """How long to measure."""

    num_warmup: int
    """Minimum number of warm-up queries."""
    min_queries: int
    """Minimum number of timed queries."""
    min_duration_s: float
    """Minimum seconds of timed queries."""
    max_duration_s: float = MAX_DURATION_S
    """Seconds after which an entrant is done, once LEAST_QUERIES were answered."""


@dataclass(frozen=True)
class WarmUp:
    """The queries before those that count."""

    times_ms: tuple[float, ...]
    settled: bool
    """They got no faster at the end; else the warm-up had lasted long enough."""


def warm_up(
    query: Callable[[], object],
    timing: Timing,
    *,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> WarmUp:
    """Ask `query` until the median of recent blocks stops falling, within bounds.

    Caches fill, clocks rise and lazy libraries compile over the first queries: how many that takes differs by orders
    of magnitude between machines, so it is watched.
    """
    size = max(3, -(-timing.num_warmup // 5))
    # A clock that rises when there is work needs some to notice; but no more than is measured afterwards.
    least_ns = int(1e9 * min(0.2, timing.min_duration_s))
    most_ns = int(1e9 * min(MAX_WARMUP_S, timing.max_duration_s))
    started_ns = clock_ns()
    times_ms: list[float] = []
    settled = False
    while not settled:
        for _ in range(size):
            times_ms.append(_timed_ms(query, clock_ns))
            too_long = clock_ns() - started_ns >= most_ns and len(times_ms) >= LEAST_QUERIES
            if too_long or len(times_ms) >= MAX_WARMUP_QUERIES:
                return WarmUp(tuple(times_ms), settled=_has_settled(times_ms, size))
        enough = len(times_ms) >= timing.num_warmup and clock_ns() - started_ns >= least_ns
        settled = enough and _has_settled(times_ms, size)
    return WarmUp(tuple(times_ms), settled)


def _has_settled(times_ms: list[float], size: int) -> bool:
    width = _BLOCKS_COMPARED * size
    if len(times_ms) < 2 * width:
        return False
    return median(times_ms[-width:]) >= FALLING * median(times_ms[-2 * width : -width])


@dataclass(frozen=True)
class BlockSize:
    """How much of a measurement one block is."""

    min_queries: int
    max_queries: int
    min_duration_s: float
    max_duration_s: float


def block_size(timing: Timing, num_rounds: int) -> BlockSize:
    """The share of each of `num_rounds` equal rounds."""
    return BlockSize(
        min_queries=-(-timing.min_queries // num_rounds),
        max_queries=max(MAX_QUERIES // num_rounds, 1),
        min_duration_s=timing.min_duration_s / num_rounds,
        max_duration_s=timing.max_duration_s / num_rounds,
    )


def time_block(
    query: Callable[[], object],
    size: BlockSize,
    *,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> tuple[float, ...]:
    """Milliseconds of the queries of one block, in order, those of its lead-in left out."""
    with _no_garbage_collection():
        _lead_in(query, clock_ns)
        times_ms: list[float] = []
        started_ns = clock_ns()
        elapsed_s = 0.0
        while len(times_ms) < size.min_queries or elapsed_s < size.min_duration_s:
            if len(times_ms) >= size.max_queries or (times_ms and elapsed_s >= size.max_duration_s):
                break
            times_ms.append(_timed_ms(query, clock_ns))
            elapsed_s = (clock_ns() - started_ns) / 1e9
    return tuple(times_ms)


def _lead_in(query: Callable[[], object], clock_ns: Callable[[], int]) -> None:
    started_ns = clock_ns()
    for _ in range(LEAD_IN_QUERIES):
        query()
        if clock_ns() - started_ns >= _LEAD_IN_NS:
            return


def _timed_ms(query: Callable[[], object], clock_ns: Callable[[], int]) -> float:
    before_ns = clock_ns()
    query()
    return (clock_ns() - before_ns) / 1e6


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection would fall into some query and count as its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
