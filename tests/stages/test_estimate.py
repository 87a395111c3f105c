import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgerecover.artifacts import OutputSpec, StageEstimate
from edgerecover.compute import PLAIN
from edgerecover.config import load_profile, load_target
from edgerecover.stages import estimate as estimating
from edgerecover.stages.estimate import (
    Stopwatch,
    as_numbers,
    asks_for_mirroring,
    estimate,
    few_images_for_classes,
    in_words,
    is_worth_a_trial,
    mirrored_later,
    tell_estimate,
)
from edgerecover.stages.load import Loaded
from edgerecover.stages.probe import Probed
from edgerecover.stages.request import Request


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_stopwatch_reads_what_the_bars_are_drawn_from():
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.task("distill", 3, "steps") as task:
        for seconds in (10, 1, 3):  # the first step warms up
            clock.now_s += seconds
            task.advance()
    with watch.task("statistics", 1, "batches"):
        clock.now_s += 5
    assert (watch.seconds("distill"), watch.per_step("distill")) == (14, 2)
    assert (watch.seconds("statistics"), watch.per_step("statistics"), watch.times("statistics")) == (5, 0, 1)
    assert (watch.seconds("refresh"), watch.per_step("refresh"), watch.times("refresh")) == (0, 0, 0)


@pytest.fixture
def profile():
    return mirrored_later(load_profile("fast"))


@pytest.fixture
def told(monkeypatch, profile):
    """The estimate of `fast` where every image and step takes a known time."""
    trial = estimating._Trial(
        dream_step_s=0.01, statistics_s=0.02, fit_s=5, fit_image_s=0.1, block_step_s=0.05, step_s=0.03, kept_bytes=10**6
    )
    monkeypatch.setattr(estimating, "_try", lambda *_: trial)

    def told(profile=profile, **changes):
        return estimate(None, profile, 0, PLAIN, None, num_variants=2, **changes)

    return told


def test_times_are_scaled_up_to_the_numbers_of_the_profile(told, profile):
    synthesis, recovery = profile.synthesis, profile.recovery
    found = told()
    seconds = {stage.name: stage.seconds for stage in found.stages}
    num_images = synthesis.num_train + synthesis.num_calibration + synthesis.num_held_back
    assert seconds["synthesize"] == pytest.approx(0.01 * synthesis.num_steps * num_images)
    assert seconds["statistics repair"] == pytest.approx(0.02 * synthesis.num_train)
    assert seconds["least squares"] == pytest.approx(5 + 0.1 * min(512, synthesis.num_train))
    block_steps = recovery.blockwise.num_steps * recovery.blockwise.batch_size
    assert seconds["block by block"] == pytest.approx(0.05 * block_steps + 2 * 0.02 * synthesis.num_train)
    steps_s = 0.03 * recovery.batch_size * recovery.num_steps
    assert steps_s < seconds["distill"] < 1.5 * steps_s  # and looks at how it does
    assert found.seconds == pytest.approx(sum(seconds.values()))
    assert found.memory_bytes > 1.5 * 10**6 * recovery.batch_size
    assert as_numbers(found)["least_squares_s"] == seconds["least squares"]


def test_what_the_profile_leaves_out_is_no_line(told, profile):
    shorter = profile.model_copy(
        update={"recovery": profile.recovery.model_copy(update={"num_steps": 0, "layerwise": False, "blockwise": None})}
    )
    names = [stage.name for stage in told(shorter).stages]
    assert names == ["synthesize", "statistics repair", "export and race"]
    names = [stage.name for stage in told(shorter, is_mirroring_open=True).stages]
    assert names[0] == "mirrored?"


def test_refreshes_are_counted(told, profile):
    refresh = {"every_steps": 20, "num_images": 64, "num_steps": 20, "lr": 0.1, "weight": 10.0}
    recovery = type(profile.recovery).model_validate({**profile.recovery.model_dump(), "refresh": refresh})
    more = told(profile.model_copy(update={"recovery": recovery}))
    assert more.seconds > told().seconds + 2 * 64 * 20 * 0.01


def test_lines_say_each_stage_all_of_it_and_how_far_off_it_may_be(told):
    *lines, total = in_words(told())
    assert [line.split(": ")[0] for line in lines] == ["estimate"] * 6
    assert "GB of memory" in total
    assert "factor of 2" in total


def test_a_run_of_more_than_15_minutes_names_a_faster_profile(told):
    short = told()
    long = dataclasses.replace(short, stages=(StageEstimate("synthesize", 901.0),))
    assert in_words(long, "balanced")[-1].endswith("Faster: --profile fast")
    for estimated, name in ((long, "fast"), (long, "my-own"), (short, "balanced")):
        assert "--profile" not in in_words(estimated, name)[-1]


def test_fewer_dreams_than_classes_is_legal_and_explained(profile):
    few = profile.synthesis.model_copy(update={"num_train": 128})
    assert "128 of 1,000 classes" in few_images_for_classes(few, OutputSpec.one_label(1000))
    assert few_images_for_classes(few, OutputSpec.one_label(128)) == ""


def test_mirroring_is_settled_where_it_was_left_open():
    open_profile = load_profile("fast")
    assert asks_for_mirroring(open_profile)
    assert not asks_for_mirroring(mirrored_later(open_profile))
    assert load_profile("smoke") == mirrored_later(load_profile("smoke"))


def test_a_run_of_seconds_is_not_estimated_first():
    assert not is_worth_a_trial(load_profile("smoke"))
    assert is_worth_a_trial(load_profile("fast"))


def test_a_run_says_its_estimate_with_numbers_for_machines(told, profile, monkeypatch):
    monkeypatch.setattr(estimating, "estimate", lambda *_, **__: told())
    request = Request(Path("m.pt"), load_target("onnx-generic"), profile, Path("out"), Path("work"))
    notes = Notes()
    tell_estimate(request, Loaded(SimpleNamespace(output=OutputSpec.one_label(1000)), Probed(PLAIN)), notes, profile)
    (first, _), *_, (last, numbers) = notes.lines
    assert "256 of 1,000 classes" in first
    assert "in all" in last
    assert numbers["seconds"] == pytest.approx(told().seconds)


class Notes:
    def __init__(self):
        self.lines = []

    def note(self, message, **numbers):
        self.lines.append((message, numbers))
