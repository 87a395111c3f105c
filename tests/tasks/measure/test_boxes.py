import numpy as np
import pytest

from edgerecover.artifacts import Activation, OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of
from edgerecover.tasks.measure.boxes import LEAST_SCORE, MOST_BOXES, NO_BOX, least_score

NUM_CLASSES, NUM_CANDIDATES = 3, 12
BOXES = measure_of(OutputSpec(TaskKind.DETECTION, (7, NUM_CANDIDATES)))
LARGE, BESIDE, FAR = (20, 20, 16, 16), (22, 20, 16, 16), (50, 50, 10, 20)  # IoU of the first two: 14 / 18


def outputs_of(*candidates, num_candidates=NUM_CANDIDATES):
    """Outputs (1, D) of (class, logit, box), and of candidates that are sure to be nothing."""
    values = np.full((num_candidates, 7), -9.0)
    values[:, :4] = 1
    for row, (label, logit, box) in zip(values, candidates, strict=False):
        row[:4], row[4 + label] = box, logit
    return values.T.reshape(1, -1)


def boxes_in(answers):
    (rows,) = answers
    return rows[rows[:, 0] >= 0].tolist()


def share(answer, reference, measure=BOXES):
    (value,) = measure.share(measure.read(answer), measure.read(reference))
    return value


def test_the_surest_of_boxes_that_overlap_is_left():
    answers = BOXES.read(outputs_of((1, 1.0, BESIDE), (1, 2.0, LARGE), (0, 3.0, FAR)))
    assert boxes_in(answers) == [[0, 45, 40, 55, 60], [1, 12, 12, 28, 28]]
    assert answers.shape == (1, MOST_BOXES, 5)
    assert (answers[0, 2:] == NO_BOX).all()


def test_boxes_of_two_classes_do_not_suppress_each_other():
    assert len(boxes_in(BOXES.read(outputs_of((1, 1.0, BESIDE), (2, 2.0, LARGE))))) == 2


def test_a_candidate_has_one_class():
    outputs = outputs_of((1, 1.0, LARGE))
    outputs.reshape(7, -1)[4 + 2, 0] = 3.0
    assert boxes_in(BOXES.read(outputs)) == [[2, 12, 12, 28, 28]]


def test_the_threshold_is_the_same_probability_for_logits_and_sigmoids():
    logits = outputs_of((0, -1.0, LARGE), (1, -1.2, FAR))
    sigmoids = logits.copy().reshape(7, -1)
    sigmoids[4:] = 1 / (1 + np.exp(-sigmoids[4:]))
    probable = measure_of(OutputSpec(TaskKind.DETECTION, (7, NUM_CANDIDATES), Activation.SIGMOID))
    assert boxes_in(BOXES.read(logits)) == boxes_in(probable.read(sigmoids.reshape(1, -1))) == [[0, 12, 12, 28, 28]]
    assert least_score(probable.output) == LEAST_SCORE
    np.testing.assert_allclose(probable.as_logits(sigmoids.reshape(1, -1)), logits, rtol=1e-6)


def test_candidates_may_come_first():
    rows = measure_of(OutputSpec(TaskKind.DETECTION, (NUM_CANDIDATES, 7)))
    outputs = outputs_of((1, 2.0, LARGE), (0, 3.0, FAR))
    turned = outputs.reshape(7, NUM_CANDIDATES).T.reshape(1, -1)
    assert boxes_in(rows.read(turned)) == boxes_in(BOXES.read(outputs))


def test_a_candidate_without_an_area_is_no_box():
    assert boxes_in(BOXES.read(outputs_of((1, 2.0, (20, 20, 0, 16)), (1, 2.0, (20, 20, 16, -1))))) == []


def test_a_broken_network_gives_as_many_boxes_as_there_are_rows():
    many = measure_of(OutputSpec(TaskKind.DETECTION, (7, 3000)))
    outputs = np.full((7, 3000), 5.0)
    outputs[0], outputs[2:4] = 2 * np.arange(3000), 1
    (answer,) = many.read(outputs.reshape(1, -1))
    assert (answer[:, 0] == 0).all()


def test_an_image_counts_the_f1_of_its_boxes():
    both = outputs_of((1, 2.0, LARGE), (0, 3.0, FAR))
    assert share(both, both) == 1
    assert share(outputs_of((1, 2.0, BESIDE)), both) == pytest.approx(2 / 3)
    assert share(both, outputs_of((1, 2.0, BESIDE))) == pytest.approx(2 / 3)
    assert share(outputs_of((2, 2.0, LARGE)), both) == 0  # of another class
    assert share(outputs_of((1, 2.0, (32, 20, 16, 16))), both) == 0  # IoU 1 / 7
    assert share(outputs_of(), both) == share(both, outputs_of()) == 0
    assert share(outputs_of(), outputs_of()) == 1


def test_every_box_is_matched_once_with_the_nearest():
    left, middle, right = (20, 20, 16, 16), (25, 20, 16, 16), (30, 20, 16, 16)  # neighbours: IoU 11 / 21
    truth = np.array([[[1, 12, 12, 28, 28], [1, 22, 12, 38, 28]]], np.float32)
    (value,) = BOXES.share_of_truth(BOXES.read(outputs_of((1, 2.0, left), (1, 1.0, right))), truth)
    assert value == 1
    (value,) = BOXES.share_of_truth(BOXES.read(outputs_of((1, 2.0, middle))), truth)
    assert value == pytest.approx(2 / 3)


@pytest.mark.parametrize("rows", [0, 1, 200])
def test_truth_has_rows_of_its_own_number(rows):
    truth = np.full((1, rows, 5), NO_BOX, np.float32)
    assert BOXES.share_of_truth(BOXES.read(outputs_of()), truth).tolist() == [1]
    assert BOXES.share_of_truth(BOXES.read(outputs_of((1, 2.0, LARGE))), truth).tolist() == [0]


def test_distance_is_of_the_candidates_that_either_network_is_sure_of():
    reference = outputs_of((1, 9.0, LARGE))
    moved, unsure = outputs_of((1, 9.0, (28, 20, 16, 16))), outputs_of((1, 0.0, LARGE))
    assert BOXES.distance(reference, moved)[0] == pytest.approx(0.5 * 0.5**2, rel=0.01)  # off by half its width
    assert BOXES.distance(reference, unsure)[0] == pytest.approx(np.log(2), rel=0.01)
    elsewhere = outputs_of((1, 9.0, LARGE), (0, 5.0, FAR))
    assert BOXES.distance(reference, elsewhere)[0] > 2


def test_an_image_is_near_where_a_score_is_about_the_threshold():
    outputs = np.concatenate([outputs_of((1, 2.0, LARGE)), outputs_of((1, -1.1, LARGE))])
    assert BOXES.is_near(outputs, 0.1).tolist() == [False, True]
