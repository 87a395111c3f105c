import time

from edgerecover.runtime.latency import LEAST_QUERIES, MAX_QUERIES, measure


def test_both_minima_are_met_and_warmup_is_kept_apart():
    asked = []
    warmup_ms, samples_ms = measure(
        lambda: asked.append(time.sleep(0.001)), num_warmup=3, min_queries=5, min_duration_s=0.02
    )
    assert len(warmup_ms) == 3
    assert len(samples_ms) >= 5
    assert sum(samples_ms) >= 0.9 * 20
    assert len(asked) == len(warmup_ms) + len(samples_ms)
    assert min(samples_ms) >= 1.0


def test_the_number_of_queries_counts_when_they_are_fast():
    _, samples_ms = measure(lambda: None, num_warmup=1, min_queries=50, min_duration_s=0.0)
    assert len(samples_ms) == 50


def test_a_slow_query_stops_at_the_longest_duration_with_enough_samples():
    warmup_ms, samples_ms = measure(
        lambda: time.sleep(0.002), num_warmup=1000, min_queries=1000, min_duration_s=0.0, max_duration_s=0.005
    )
    assert len(warmup_ms) == len(samples_ms) == LEAST_QUERIES


def test_a_tiny_network_does_not_fill_the_report():
    _, samples_ms = measure(lambda: None, num_warmup=1, min_queries=5, min_duration_s=1e9)
    assert len(samples_ms) == MAX_QUERIES
