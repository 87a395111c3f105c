"""Single-stream latency: one query after another, as MLPerf's loadgen asks, raw times kept. Stdlib only."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_DURATION_S = 60.0
"""A slow network stops here although it has not reached its minimum of queries."""
LEAST_QUERIES = 10
"""Asked even of a network that is slower than that."""

MAX_QUERIES = 10_000
"""Enough for any percentile: a tiny network would fill its report with raw times before its duration is over."""


def measure(
    query: Callable[[], object],
    *,
    num_warmup: int,
    min_queries: int,
    min_duration_s: float,
    max_duration_s: float = MAX_DURATION_S,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Time `query` until both minima are met, `max_duration_s` is over, or MAX_QUERIES were asked.

    Returns:
        Milliseconds of the warm-up queries and of those that count, in the order they ran.
    """
    warmup_ms = _timed(query, lambda num_queries, elapsed_s: num_queries >= num_warmup, max_duration_s)
    samples_ms = _timed(
        query,
        lambda num_queries, elapsed_s: num_queries >= min_queries and elapsed_s >= min_duration_s,
        max_duration_s,
    )
    return warmup_ms, samples_ms


def _timed(query: Callable[[], object], done: Callable[[int, float], bool], max_duration_s: float) -> tuple[float, ...]:
    times_ms: list[float] = []
    started_ns = time.perf_counter_ns()
    elapsed_s = 0.0
    while not done(len(times_ms), elapsed_s):
        too_long = elapsed_s >= max_duration_s and len(times_ms) >= LEAST_QUERIES
        if too_long or len(times_ms) >= MAX_QUERIES:
            break
        before_ns = time.perf_counter_ns()
        query()
        after_ns = time.perf_counter_ns()
        times_ms.append((after_ns - before_ns) / 1e6)
        elapsed_s = (after_ns - started_ns) / 1e9
    return tuple(times_ms)
