import numpy as np
import pytest

from edgerecover.artifacts import Activation, OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of

MAPS = measure_of(OutputSpec(TaskKind.SEGMENTATION, (3, 2, 4)))
MASKS = measure_of(OutputSpec(TaskKind.SEGMENTATION, (1, 2, 4)))
PROBABLE = measure_of(OutputSpec(TaskKind.SEGMENTATION, (1, 2, 4), Activation.SIGMOID))
TRUTH = [[0, 0, 1, 1], [0, 0, 1, 1]]


def scores_of(classes_HW, num_classes=3):
    """Logits (1, D) that decide for these classes by 4."""
    return 4.0 * np.eye(num_classes)[np.array(classes_HW)].transpose(2, 0, 1).reshape(1, -1)


def test_the_highest_score_decides_at_every_pixel():
    assert MAPS.read(scores_of([[0, 1, 2, 1], [2, 2, 0, 0]])).tolist() == [[0, 1, 2, 1, 2, 2, 0, 0]]
    scores = np.array([[-1.0, 1, -1, 1, 2, -2, 3, -3]])
    assert MASKS.read(scores).tolist() == [[0, 1, 0, 1, 1, 0, 1, 0]]
    assert PROBABLE.read(1 / (1 + np.exp(-scores))).tolist() == [[0, 1, 0, 1, 1, 0, 1, 0]]


def test_more_classes_than_a_byte_holds():
    measure = measure_of(OutputSpec(TaskKind.SEGMENTATION, (300, 1, 2)))
    answers = measure.read(scores_of([[299, 255]], 300))
    assert answers.tolist() == [[299, 255]]
    assert measure.share_of_truth(answers, np.array([[[299, 255]]])).tolist() == [1]
    assert measure.share_of_truth(answers, np.array([[[299, 0]]])).tolist() == [0.5]  # 255 is a class here


def share_of_truth(answer, truth=TRUTH, measure=MAPS):
    (share,) = measure.share_of_truth(np.array(answer).reshape(1, -1), np.array([truth]))
    return share


def test_iou_is_a_mean_over_classes():
    assert share_of_truth(TRUTH) == 1
    # Class 0: 4 of 5; class 1: 3 of 4.
    assert share_of_truth([[0, 0, 1, 1], [0, 0, 0, 1]]) == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert share_of_truth([[1, 1, 0, 0], [1, 1, 0, 0]]) == 0


def test_a_class_in_the_answer_alone_costs_what_it_takes():
    assert share_of_truth([[0, 0, 1, 1], [0, 0, 1, 2]]) == pytest.approx((1 + 3 / 4) / 2)


def test_a_network_that_finds_nothing_loses_every_object():
    assert share_of_truth([[0] * 4] * 2, [[0, 0, 0, 0], [0, 0, 0, 1]]) == pytest.approx((7 / 8 + 0) / 2)


@pytest.mark.parametrize("ignored", [255, -1])
def test_ignored_pixels_count_for_nothing(ignored):
    assert share_of_truth([[0, 0, 1, 1], [0, 0, 0, 2]], [[0, 0, 1, 1], [0, 0, ignored, ignored]]) == 1
    assert share_of_truth(TRUTH, [[ignored] * 4] * 2) == 1


def test_undecided_pixels_match_nothing():
    scores = np.concatenate([scores_of(TRUTH)] * 2)
    scores[1, 0] = np.nan  # class 0 at the first pixel
    answers = MAPS.read(scores)
    assert answers[1].tolist() == [-1, 0, 1, 1, 0, 0, 1, 1]
    expected = [1, (3 / 4 + 1) / 2]
    assert MAPS.share(answers, answers[:1].repeat(2, 0)) == pytest.approx(expected)
    assert MAPS.share_of_truth(answers, np.array([TRUTH] * 2)) == pytest.approx(expected)


def test_one_map_has_two_classes():
    assert share_of_truth([[0, 0, 1, 1], [0, 0, 0, 1]], measure=MASKS) == pytest.approx((4 / 5 + 3 / 4) / 2)


def test_distance_is_a_mean_over_pixels():
    certain = 50 * np.eye(3)[[0] * 8].T.reshape(1, -1)
    half = certain.copy().reshape(3, 8)
    half[:, :4] = 0
    assert MAPS.distance(certain, half.reshape(1, -1))[0] == pytest.approx(np.log(3) / 2)
    assert MASKS.distance(np.full((1, 8), 50.0), np.zeros((1, 8)))[0] == pytest.approx(np.log(2))


def test_an_image_is_near_where_undecided_pixels_can_spoil_the_iou():
    measure = measure_of(OutputSpec(TaskKind.SEGMENTATION, (2, 10, 10)))
    truth = np.zeros((10, 10), int)
    truth[:, :5] = 1
    outputs = np.concatenate([scores_of(truth, 2)] * 3).reshape(3, 2, 100)
    outputs[1, :, :2] = 0  # two pixels of 50: 48 / 50 and 50 / 52 at worst
    outputs[2, :, :9] = 0
    assert measure.is_near(outputs.reshape(3, -1), 1).tolist() == [False, False, True]
    assert MASKS.is_near(np.array([[0.1, 9, 9, 9, 9, 9, 9, 9], [9] * 8]), 1).tolist() == [True, False]
