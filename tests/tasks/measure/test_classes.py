import numpy as np
import pytest

from edgerecover.artifacts import Activation, OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of

ONE_LABEL = measure_of(OutputSpec(TaskKind.ONE_LABEL, (3,)))
BINARY = measure_of(OutputSpec(TaskKind.BINARY, (1,)))
PROBABLE = measure_of(OutputSpec(TaskKind.BINARY, (1,), Activation.SIGMOID))


def test_the_class_with_the_highest_score_is_the_answer():
    answers = ONE_LABEL.read(np.array([[0.0, 2, 1], [5, 2, 1], [np.nan, 9, 1]]))
    assert answers.tolist() == [1, 0, -1]
    assert ONE_LABEL.share_of_truth(answers, np.array([1, 2, 1])).tolist() == [1, 0, 0]
    assert ONE_LABEL.has_classes


def test_two_classes_are_told_by_one_score():
    assert BINARY.read(np.array([[-0.1], [0.1], [np.nan]])).tolist() == [0, 1, -1]
    assert PROBABLE.read(np.array([[0.4], [0.6], [np.nan]])).tolist() == [0, 1, -1]
    assert BINARY.has_classes


def test_distance_is_the_divergence_of_distributions():
    uniform, certain = np.zeros((1, 3)), np.array([[0.0, 0, 50]])
    assert ONE_LABEL.distance(certain, uniform)[0] == pytest.approx(np.log(3))
    assert BINARY.distance(np.array([[50.0]]), np.array([[0.0]]))[0] == pytest.approx(np.log(2))


def test_logits_of_a_file_of_probabilities_are_compared_as_logits():
    p, q = np.array([[2.0]]), np.array([[-1.0]])
    assert PROBABLE.distance(p, q)[0] == pytest.approx(BINARY.distance(p, q)[0])


def test_scores_close_to_each_other_may_be_decided_otherwise():
    assert ONE_LABEL.is_near(np.array([[0.0, 1.0, 1.4], [0, 1, 1.6]]), 1).tolist() == [True, False]
    assert BINARY.is_near(np.array([[0.4], [-0.6]]), 1).tolist() == [True, False]
