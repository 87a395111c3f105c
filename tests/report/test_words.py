import pytest

from edgerecover.artifacts import Predicted, Proportion, SyntheticFacts
from edgerecover.report.words import duration, mirroring, percent, prediction, proportion, size


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


def test_a_prediction_says_that_it_is_one_and_how_wrong_such_are():
    text = prediction(Predicted(kept=0.99, low=0.963, high=1.0, num_students=86, num_networks=3))
    assert text.startswith("99 % ± 2.7 of the teacher's accuracy kept on real images\n")
    assert "read from dreams, not measured; mean error over 86 students of 3 networks" in text


@pytest.mark.parametrize(
    ("mirrored", "correlation", "text"),
    [
        (True, 0.943, "yes: the teacher's margins on mirrored dreams correlate at 0.94"),
        (False, -0.091, "no: the teacher's margins on mirrored dreams correlate at -0.09"),
        (False, None, "no: the profile says so"),
    ],
)
def test_mirroring(mirrored, correlation, text):
    facts = SyntheticFacts(1, 1, 1, None, 1.0, reused=False, mirrored=mirrored, mirror_correlation=correlation)
    assert mirroring(facts) == text
