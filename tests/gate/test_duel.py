import dataclasses

import numpy as np
import pytest

from edgerecover.artifacts import GateStatus, Host, Latency
from edgerecover.gate.duel import compare, duel
from edgerecover.validation.limits import Limits

LIMITS = Limits("balanced", 0.6, 0.99, 0.01, 3.0, "pi", "CPUExecutionProvider")
LATENCY = Latency(
    "one call", "onnxruntime 1", "CPUExecutionProvider", {}, 1, 1, Host("x", "x", 1, "x"), False, (), (2.0,), 1.0, 0, 0
)  # fmt: skip


def raced(slower, mood, seed, memory=1_000_000):
    """One race on a machine whose rounds differ by `mood`, and sides within a round by 1 %."""
    random = np.random.default_rng(seed)
    rounds = np.exp(random.normal(0, mood, 30))
    return tuple(
        dataclasses.replace(
            LATENCY,
            samples_ms=tuple(np.repeat(2.0 * level * rounds * np.exp(random.normal(0, 0.01, 30)), 5).tolist()),
            round_sizes=(5,) * 30,
            memory_peak_bytes=memory,
        )
        for level in (slower, 1.0)
    )


@pytest.mark.parametrize(("slower", "status"), [(1.0, GateStatus.PASS), (1.1, GateStatus.FAIL)])
def test_what_slows_both_cancels_out(slower, status):
    ended = duel([raced(slower, 0.4, seed=1)], LIMITS)
    assert ended.latency.status is status
    assert ended.comparison.slower.value == pytest.approx(slower, abs=0.02)


def test_races_go_on_until_the_answer_is_certain_and_no_further():
    asked = []

    def races(slowers):
        for number, slower in enumerate(slowers):
            asked.append(number)
            yield raced(slower, 0.1, seed=number)

    assert duel(races([1.0, 1.0, 1.0]), LIMITS).num_races == len(asked) == 1
    asked.clear()
    assert duel(races([1.1, 1.1, 1.1]), LIMITS).num_races == len(asked) == 2
    asked.clear()
    ended = duel(races([1.05] * 3), LIMITS)
    assert ended.latency.status is GateStatus.INCONCLUSIVE
    assert ended.num_races == len(asked) == 3
    assert ended.comparison.how == "in turns, 90 rounds of 3 races"


def test_what_one_race_alone_says_is_no_alarm():
    ended = duel([raced(1.1, 0.1, seed=1), *(raced(1.0, 0.1, seed) for seed in (2, 3, 4))], LIMITS)
    assert (ended.latency.status, ended.num_races) == (GateStatus.PASS, 4)


def test_all_rounds_and_all_processes_count():
    races = [raced(1.0, 0.1, seed, memory) for seed, memory in enumerate((1_000_000, 9_000_000, 2_000_000))]
    found = compare(*zip(*races, strict=True))
    assert len(found.latency.samples_ms) == len(found.before.samples_ms) == 3 * 150
    assert len(found.latency.round_sizes) == 90
    assert (found.memory_bytes, found.memory_before_bytes) == ((1_000_000, 9_000_000, 2_000_000),) * 2


def test_memory_that_processes_may_differ_by_is_raced_again_until_it_is_certain():
    def races(now, before):
        for seed, memory in enumerate(zip(now, before, strict=True)):
            sides = raced(1.0, 0.1, seed)
            yield tuple(
                dataclasses.replace(side, memory_peak_bytes=one) for side, one in zip(sides, memory, strict=True)
            )

    by_chance = duel(races([58_600_000, 52_000_000, 54_000_000], [51_400_000, 53_000_000, 56_000_000]), LIMITS)
    assert (by_chance.memory.status, by_chance.num_races) == (GateStatus.PASS, 2)
    for_real = duel(races([65_000_000, 66_000_000, 65_500_000], [51_400_000, 53_000_000, 54_000_000]), LIMITS)
    assert (for_real.memory.status, for_real.num_races) == (GateStatus.FAIL, 3)
