from dataclasses import replace

import pytest

from edgerecover.artifacts import OutputPart, OutputSpec, Predicted, Proportion, SyntheticFacts, TaskKind
from edgerecover.report.words import (
    duration,
    gate_name,
    input_words,
    intended,
    mirroring,
    percent,
    prediction,
    proportion,
    size,
)
from edgerecover.tasks.measure import words_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (98.4, "98 s"),
        (119.4, "119 s"),
        (119.6, "2 min 0 s"),
        (351.2, "5 min 51 s"),
        (3599.6, "1 h 0 min"),
        (7265, "2 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_dreams_show_is_told_for_each_task():
    assert intended(0.5, TaskKind.ONE_LABEL) == "50.0 % classified as intended"
    assert intended(0.5, TaskKind.MULTI_LABEL) == "50.0 % labelled as intended"
    assert intended(0.5, TaskKind.SEVERAL) == "50.0 % answered as intended in every output with targets"


def test_what_several_outputs_give_is_told_after_the_input(report):
    parts = OutputPart("digit", OutputSpec.one_label(10)), OutputPart("age", OutputSpec(TaskKind.REGRESSION, (1,)))
    words = input_words(replace(report.student, output=OutputSpec.several(parts)))
    assert words.startswith("3×32×32, pixels 0 to 1, mean")
    assert words.endswith("; outputs: digit: image classification, 10 classes; age: image regression, 1 value")


def test_gates_are_named_in_the_words_of_the_task():
    maps, values, classes = (words_of(task) for task in ("segmentation", "regression", "one-label"))
    assert (
        gate_name("parity_top1", classes) == gate_name("parity_top1", words_of("binary")) == "same decisions as PyTorch"
    )
    assert gate_name("parity_top1", maps) == "same answers as PyTorch"
    assert gate_name("parity_logits", maps) == "same logits as PyTorch"
    assert gate_name("parity_logits", values) == "same values as PyTorch"
    assert gate_name("accuracy_drop", maps) == "mean IoU, drop"
    assert gate_name("accuracy_drop", classes) == "accuracy drop"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (15_400, "15.4 kB"),
        (999_600, "1 MB"),
        (1_099_231, "1.1 MB"),
        (102_530_333, "103 MB"),
        (3_250_000_000, "3.25 GB"),
    ],
)
def test_sizes(num_bytes, text):
    assert size(num_bytes) == text


def test_fractions_are_percentages_with_their_interval():
    assert percent(0.8912) == "89.1 %"
    assert percent(1) == "100.0 %"
    assert proportion(Proportion(81, 263)) == "30.8 % (25.5–36.6)"


PREDICTED = Predicted(kept=0.95, low=0.84, high=0.991, num_students=180, num_networks=7, coverage=0.956)


def test_a_prediction_says_between_which_bounds_and_where_that_was_measured():
    text = prediction(PREDICTED)
    assert text.startswith("95 % (84–99) of the teacher's accuracy kept on real images\n")
    assert "not measured; such intervals contained the true value for 96 % of 180 students of 7 networks" in text
    assert "each predicted from the other networks" in text


def test_a_prediction_that_means_nothing_is_not_stated():
    text = prediction(replace(PREDICTED, doubt="2,000 classes, where those it was measured on have 1,000 at most"))
    assert text.startswith("cannot be predicted\n2,000 classes, where")
    assert "--eval-data" in text
    assert "95 %" not in text


def test_a_prediction_from_before_there_were_intervals_has_the_mean_error_of_such():
    text = prediction(Predicted(kept=0.99, low=0.963, high=1.0, num_students=86, num_networks=3))
    assert text.startswith("99 % ± 2.7 of the teacher's accuracy kept on real images\n")
    assert "estimated from dreams, not measured; mean error over 86 students of 3 networks" in text


@pytest.mark.parametrize(
    ("mirrored", "correlation", "text"),
    [
        (True, 0.943, "yes: the teacher's margins on mirrored dreams correlate at 0.94"),
        (False, -0.091, "no: the teacher's margins on mirrored dreams correlate at -0.09"),
        (False, None, "no: set by the profile"),
    ],
)
def test_mirroring(mirrored, correlation, text):
    facts = SyntheticFacts(1, 1, 1, None, 1.0, reused=False, mirrored=mirrored, mirror_correlation=correlation)
    assert mirroring(facts) == text
