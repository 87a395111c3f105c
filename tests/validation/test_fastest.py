"""One rule for the winner of a race: of latencies that are given, and of a race that was really run."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from edgerecover.artifacts import Host, Latency, Outcome, Precision, PrecisionLoss, Runner, Tried
from edgerecover.config import load_profile, load_target
from edgerecover.runner.run import winner_of
from edgerecover.stages.race import placed
from edgerecover.validation.fastest import fastest

FP32, FP16, INT8 = Precision
RECORDED = json.loads(Path(__file__).with_name("recorded_race.json").read_text())
"""A digit classifier on a busy x86 machine: the first queries of each round, in the order of the target's runtimes."""


def latency(rounds_ms):
    samples_ms = tuple(value for part in rounds_ms for value in part)
    sizes = tuple(map(len, rounds_ms))
    return Latency(
        "one", "ort", "CPU", {}, 1, 1, Host("x86_64", "EPYC", 2, "Linux"), False, (), samples_ms, 1.0, 0, 1, sizes
    )


def steady(median_ms, spread_ms=0.0):
    return latency([[median_ms + spread_ms * (number % 2 - 0.5)] * 10 for number in range(30)])


def test_lower_precision_must_be_surely_faster():
    assert fastest([(INT8, steady(1.0)), (FP32, steady(2.0))]) == 0
    assert fastest([(INT8, steady(0.99, spread_ms=0.2)), (FP32, steady(1.0))]) == 1


def test_the_first_of_those_that_cannot_be_told_apart_wins():
    assert fastest([(FP32, steady(1.01, spread_ms=0.2)), (FP32, steady(1.0))]) == 0
    assert fastest([]) is None


RACES = [race for number in (1, 2, 3, 6) for race in combinations(RECORDED, number)]


@pytest.mark.parametrize("shipped", Precision)
def test_desk_and_device_choose_the_same_of_a_recorded_race(shipped):
    """Whatever the desk shipped: the device lists that file first, and under another name."""
    profile, target = load_profile("balanced"), load_target("x86-cpu")
    latencies = {id(lane): latency(lane["rounds_ms"]) for lane in RECORDED}
    winners = set()
    for race in RACES:
        runners = [
            Runner(
                Precision(lane["precision"]), lane["runtime"], Outcome.NOT_RUN, "", 1000, latencies[id(lane)], None,
                None if lane["precision"] == "fp32" else PrecisionLoss(256, 0, 0, 0),
            )
            for lane in race
        ]  # fmt: skip
        (desk,) = (r for r in placed(runners, profile, target, {}) if r.outcome is Outcome.SHIPPED)
        tried = [
            Tried(
                "model.onnx" if one.precision is shipped else f"variants/{one.precision.value}.onnx",
                one.precision,
                one.runtime,
                latency=one.latency,
            )
            for one in sorted(runners, key=lambda one: (one.runtime != "onnxruntime", one.precision is not shipped))
        ]
        device = tried[winner_of(tried)]
        assert (device.precision, device.runtime) == (desk.precision, desk.runtime)
        winners.add((desk.precision, desk.runtime))
    assert len(winners) == len(RECORDED), "there is a race for each of them to win"
