import numpy as np
import pytest

from edgerecover.artifacts import Activation, OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of

LABELS = measure_of(OutputSpec(TaskKind.MULTI_LABEL, (4,)))
PROBABLE = measure_of(OutputSpec(TaskKind.MULTI_LABEL, (4,), Activation.SIGMOID))


def test_labels_hold_above_the_threshold():
    logits = np.array([[-1.0, 0.2, 3, -5]])
    assert LABELS.read(logits).tolist() == [[0, 1, 1, 0]]
    assert PROBABLE.read(1 / (1 + np.exp(-logits))).tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("answer", "truth", "share"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0], 1),
        ([0, 1, 1, 0], [0, 1, 0, 0], 1 / 2),
        ([1, 1, 1, 0], [0, 1, 1, 1], 2 / 4),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1),
        ([0, 0, 0, 0], [0, 0, 0, 1], 0),
        ([-1, -1, -1, -1], [0, 0, 0, 0], 0),
    ],
)
def test_label_sets_are_compared_by_their_jaccard_index(answer, truth, share):
    assert LABELS.share_of_truth(np.array([answer]), np.array([truth])) == pytest.approx([share])
    assert LABELS.share_of_truth(np.array([answer]), np.array([truth], bool)) == pytest.approx([share])


def test_a_network_that_finds_nothing_is_not_flattered():
    measure = measure_of(OutputSpec(TaskKind.MULTI_LABEL, (80,)))
    truth = np.zeros((10, 80), int)
    truth[:, 3] = 1
    assert measure.share_of_truth(measure.read(np.full((10, 80), -5.0)), truth).mean() == 0


def test_distance_adds_up_over_labels():
    assert LABELS.distance(np.full((1, 4), 50.0), np.zeros((1, 4)))[0] == pytest.approx(4 * np.log(2))
    assert LABELS.distance(np.zeros((1, 4)), np.array([[0, 0, 0, 1.0]]))[0] == pytest.approx(
        0.5 * np.log(0.5 / 0.7310585786) + 0.5 * np.log(0.5 / 0.2689414214)
    )


def test_one_label_at_the_threshold_is_enough_to_be_near():
    assert LABELS.is_near(np.array([[9, 9, 9, 0.4], [9, 9, 9, 0.6]]), 1).tolist() == [True, False]
    assert PROBABLE.is_near(np.array([[0.9, 0.9, 0.9, 0.54], [0.9, 0.9, 0.9, 0.56]]), 0.1).tolist() == [True, False]
