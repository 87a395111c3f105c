"""On a clock of their own: queries take as long as they are told to."""

import gc

import pytest

from edgerecover.runtime.measure.timing import (
    LEAD_IN_QUERIES,
    LEAST_QUERIES,
    MAX_QUERIES,
    MAX_WARMUP_QUERIES,
    BlockSize,
    Timing,
    block_size,
    time_block,
    warm_up,
)


class Clock:
    """Stands still but while a query runs."""

    def __init__(self, *durations_ms):
        self.now_ns, self.num_queries = 0, 0
        self._durations_ms = durations_ms

    def query(self):
        place = min(self.num_queries, len(self._durations_ms) - 1)
        self.num_queries += 1
        self.now_ns += round(1e6 * self._durations_ms[place])

    def __call__(self):
        return self.now_ns


def timing(num_warmup=10, min_queries=100, min_duration_s=0.0, max_duration_s=60.0):
    return Timing(num_warmup, min_queries, min_duration_s, max_duration_s)


def test_a_warm_up_ends_when_queries_get_no_faster():
    clock = Clock(*(10.0 * 0.95**n for n in range(40)), 1.0)
    done = warm_up(clock.query, timing(), clock_ns=clock)
    assert done.settled
    assert 40 < len(done.times_ms) < 80
    assert done.times_ms[-1] == 1.0


def test_steady_queries_are_warm_at_once():
    clock = Clock(2.0)
    done = warm_up(clock.query, timing(num_warmup=50), clock_ns=clock)
    assert done.settled
    assert len(done.times_ms) == 50


def test_a_clock_that_rises_gets_time_to():
    clock = Clock(1.0)
    done = warm_up(clock.query, timing(min_duration_s=3.0), clock_ns=clock)
    assert sum(done.times_ms) >= 200
    short = Clock(1.0)
    assert sum(warm_up(short.query, timing(min_duration_s=0.05), clock_ns=short).times_ms) < 100


def test_a_warm_up_has_an_end_although_queries_get_ever_faster():
    clock = Clock(*(1000.0 * 0.9**n for n in range(MAX_WARMUP_QUERIES)))
    done = warm_up(clock.query, timing(max_duration_s=5.0), clock_ns=clock)
    assert not done.settled
    assert len(done.times_ms) == LEAST_QUERIES
    fast = Clock(0.001)
    assert len(warm_up(fast.query, timing(min_duration_s=3.0), clock_ns=fast).times_ms) == MAX_WARMUP_QUERIES


def test_a_slow_query_is_not_warmed_for_minutes():
    clock = Clock(7000.0)
    assert len(warm_up(clock.query, timing(num_warmup=50), clock_ns=clock).times_ms) == LEAST_QUERIES


def test_the_blocks_of_all_rounds_meet_both_minima():
    asked = timing(min_queries=500, min_duration_s=3.0)
    size = block_size(asked, 30)
    for duration_ms in (0.5, 4.0, 20.0):
        clock = Clock(duration_ms)
        blocks = [time_block(clock.query, size, clock_ns=clock) for _ in range(30)]
        assert sum(map(len, blocks)) >= 500
        assert sum(map(sum, blocks)) >= 2999
        assert clock.num_queries == sum(map(len, blocks)) + 30 * min(LEAD_IN_QUERIES, max(1, -(-20 // duration_ms)))


def test_the_lead_in_does_not_count():
    clock = Clock(*([9.0] * LEAD_IN_QUERIES + [1.0]))
    assert time_block(clock.query, BlockSize(5, 100, 0.0, 1.0), clock_ns=clock) == (1.0,) * 5


def test_a_tiny_network_does_not_fill_the_report():
    size = block_size(timing(min_duration_s=1e9, max_duration_s=2e9), 30)
    clock = Clock(0.001)
    assert 30 * len(time_block(clock.query, size, clock_ns=clock)) <= MAX_QUERIES


def test_a_slow_network_gets_at_least_one_query_a_block():
    clock = Clock(5000.0)
    assert time_block(clock.query, block_size(timing(min_queries=3000), 30), clock_ns=clock) == (5000.0,)


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_collected_between_blocks_and_not_inside(on):
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        inside = []
        time_block(lambda: inside.append(gc.isenabled()), BlockSize(3, 3, 0.0, 1.0))
        assert not any(inside)
        assert gc.isenabled() is on
    finally:
        (gc.enable if before else gc.disable)()
