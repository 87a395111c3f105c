import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerecover.artifacts import Conditions, Energy, Fingerprint, Host, Latency, Ratio, from_json, to_json
from edgerecover.artifacts.bootstrap import LEAST_BLOCKS, blocks_of, order_interval, percentile_interval

PERCENTS = (50, 90, 95, 99)


def latency(samples_ms, round_sizes=(), **changes):
    plain = Latency("", "", "", {}, 1, 1, Host("", "", 1, ""), False, (), tuple(samples_ms), 0.0, 50, 40)
    return dataclasses.replace(plain, round_sizes=tuple(round_sizes), **changes)


def rounds(seed, num_rounds=30, size=20, scale=1.0, noise_seed=0):
    """Milliseconds in rounds whose level wanders, as a busy neighbour makes it wander, with noise on each query."""
    levels = np.exp(0.1 * np.random.default_rng(seed).standard_normal(num_rounds).cumsum())
    noise = np.exp(0.02 * np.random.default_rng(noise_seed).standard_normal((num_rounds, size)))
    return tuple((scale * levels[:, None] * noise).ravel().tolist())


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=300), st.sampled_from(PERCENTS))
@settings(max_examples=60)
def test_an_interval_contains_its_percentile_and_only_what_was_seen(samples_ms, percent):
    measured = latency(samples_ms)
    low, high = measured.percentile_interval_ms(percent)
    assert min(samples_ms) <= low <= measured.percentile_ms(percent) <= high <= max(samples_ms)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 50))
@settings(max_examples=40)
def test_blocks_are_rounds_or_about_the_root_of_the_samples(sizes, extra):
    total = sum(sizes)
    assert sum(blocks_of(total, sizes)) == total
    assert (blocks_of(total, sizes) == tuple(sizes)) == (len(sizes) >= LEAST_BLOCKS or (len(sizes) == len(
        blocks_of(total, ())) and tuple(sizes) == blocks_of(total, ())))  # fmt: skip
    assert sum(blocks_of(total + extra, sizes)) == total + extra


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_the_interval_of_independent_samples_is_that_of_order_statistics_or_wider(percent):
    samples = tuple(np.random.default_rng(percent).permutation(1000).astype(float).tolist())
    low, high = percentile_interval(samples, (), percent, 0.95)
    least, most = order_interval(samples, percent, 0.95)
    assert low <= least <= most <= high
    assert high - low < 2 * (most - least) + 10


def test_samples_that_wander_together_are_worth_fewer():
    """Whole rounds are drawn: with the same samples mixed, an interval would claim several times the precision."""
    wandering = rounds(1)
    mixed = tuple(np.random.default_rng(0).permutation(wandering).tolist())
    widths = []
    for samples in (wandering, mixed):
        low, high = latency(samples, (20,) * 30).percentile_interval_ms(50)
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]


def test_intervals_are_the_same_each_time():
    measured = latency(rounds(3), (20,) * 30)
    first = measured.percentile_interval_ms(90)
    percentile_interval.cache_clear()
    assert measured.percentile_interval_ms(90) == first


def test_the_percentile_interval_covers_the_median_of_what_it_was_drawn_from():
    """Rounds without any common level: the nominal 95 % hold, within what 200 trials can tell."""
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        samples = tuple(np.exp(random.standard_normal(240)).tolist())
        low, high = percentile_interval(samples, (8,) * 30, 50, 0.95)
        hits += low <= 1.0 <= high
    assert hits >= 184


@pytest.mark.parametrize("num_samples", [1, 2, 20])
def test_few_samples_give_an_interval_inside_what_was_seen(num_samples):
    measured = latency(float(i) for i in range(num_samples))
    low, high = measured.percentile_interval_ms(99)
    assert 0 <= low <= measured.percentile_ms(99) <= high == num_samples - 1


def test_what_slowed_a_round_cancels_out_of_the_ratio():
    """Both wander alike over a factor of two and more; the ratio is known to a hundredth."""
    slow = latency(rounds(5, scale=3.0, noise_seed=1), (20,) * 30)
    fast = latency(rounds(5, scale=1.0, noise_seed=2), (20,) * 30)
    ratio = slow.slower_than(fast)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(3.0, rel=0.01)
    assert ratio.high - ratio.low < 0.1
    assert ratio.is_settled
    alone = fast.percentile_interval_ms(50)
    assert alone[1] / alone[0] > 1.1


def test_the_same_file_twice_is_not_told_apart():
    """Over 40 races of equals about one in twenty looks different; never by more than a hundredth."""
    random = np.random.default_rng(11)
    told_apart = 0
    for _ in range(40):
        levels = np.exp(0.3 * random.standard_normal(30))[:, None]
        a, b = (
            latency((levels * np.exp(0.05 * random.standard_normal((30, 20)))).ravel().tolist(), (20,) * 30)
            for _ in range(2)
        )
        ratio = a.slower_than(b)
        told_apart += ratio.is_settled
        assert ratio.value == pytest.approx(1.0, abs=0.02)
    assert told_apart <= 6


def test_latencies_of_different_races_are_compared_without_pairs():
    ratio = latency(rounds(1, scale=2.0), (20,) * 30).slower_than(latency(rounds(2, num_rounds=20), (20,) * 20))
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.high - ratio.low > 0.1
    assert latency([2.0]).slower_than(latency([1.0])) == Ratio(2.0, 2.0, 2.0)


def test_drift_is_the_last_third_over_the_first():
    assert latency([1.0] * 30).drift == 1.0
    assert latency([1.0] * 10 + [1.5] * 10 + [2.0] * 10).drift == 2.0
    assert latency([4.0]).drift == 1.0


def test_what_does_not_compare_is_told():
    one = latency([1.0], runtime="onnxruntime 1.31.1")
    assert one.scope_differences(one) == ()
    other = latency([1.0], runtime="onnxruntime 1.31.1", batch=8, cores=(0, 1), copies=True)
    assert other.scope_differences(one) == ("batch: 8, was 1", "cores: 0, 1, was any", "copies: yes, was no")


def test_a_fingerprint_tells_machines_apart_and_why():
    before = Fingerprint({"cpu": "A76", "governor": "performance"})
    assert Fingerprint(dict(reversed(before.facts.items()))).digest == before.digest
    after = Fingerprint({"cpu": "A76", "governor": "powersave", "onnxruntime": "1.31.1"})
    assert after.digest != before.digest
    assert len(after.digest) == 16
    assert after.differences(before) == (
        "governor: powersave, was performance",
        "onnxruntime: 1.31.1, was not known",
    )


def test_all_of_it_survives_json():
    whole = latency(
        [1.0, 2.0],
        (1, 1),
        cores=(0,),
        notes=("floating point in f32",),
        conditions=Conditions(3, governor="performance", throttled=("throttled",)),
        fingerprint=Fingerprint({"cpu": "A76"}),
        energy=Energy(1.5, "RAPL, package-0", 20),
    )
    assert from_json(Latency, json.loads(json.dumps(to_json(whole)))) == whole


def test_a_report_from_before_there_were_rounds_is_still_read():
    old = to_json(latency([1.0, 2.0, 3.0]))
    new = ("round_sizes", "settled", "cores", "copies", "cuda_graph", "notes", "conditions", "fingerprint", "energy")
    for name in new:
        del old[name]
    read = from_json(Latency, old)
    assert read.percentile_interval_ms(50)[0] <= 2.0
    assert read.conditions is None
