"""Of several outputs an image counts the weighted mean."""

import numpy as np
import pytest

from edgerecover.artifacts import Activation, OutputPart, OutputSpec, TaskKind, from_json, to_json
from edgerecover.tasks.measure import join, measure_of, words_of

DIGIT = OutputSpec(TaskKind.ONE_LABEL, (3,))
SICK = OutputSpec(TaskKind.BINARY, (1,), Activation.SIGMOID)
AGE = OutputSpec(TaskKind.REGRESSION, (1,))
CARD = OutputSpec.several((OutputPart("digit", DIGIT), OutputPart("sick", SICK), OutputPart("age", AGE, 2.0)))
MEASURE = measure_of(CARD)
REFERENCE_ND = np.array([[3, 1, 0, 0.9, 30], [0, 2, 1, 0.1, 50], [0, 0, 1, 0.8, 40]], np.float32)


def test_it_is_read_back_from_json():
    assert from_json(OutputSpec, to_json(CARD)) == CARD
    assert (CARD.num_values, CARD.num_values_in_file, CARD.num_classes) == (5, {"digit": 3, "sick": 1, "age": 1}, None)
    assert [columns for _, columns in CARD.columns] == [slice(0, 3), slice(3, 4), slice(4, 5)]
    assert CARD.description.endswith("age: image regression, 1 value, weight 2")


def test_an_image_counts_the_weighted_mean():
    answers_ND = REFERENCE_ND.copy()
    answers_ND[0, :3] = 0, 1, 0  # another digit
    answers_ND[1, 3] = 0.6  # another yes or no
    answers_ND[2, 4] += REFERENCE_ND[:, 4].std() / 2
    reference, answers = MEASURE.read(REFERENCE_ND), MEASURE.read(answers_ND)
    assert MEASURE.share(reference, reference).tolist() == [1, 1, 1]
    assert MEASURE.share(answers, reference) == pytest.approx([0.75, 0.75, 0.75])


def test_each_output_has_its_own_answers():
    answers = MEASURE.read(REFERENCE_ND)
    for part, columns in CARD.columns:
        own = measure_of(part.output).read(REFERENCE_ND[:, columns])
        assert np.array_equal(answers[part.name], own)


def test_answers_are_joined_as_arrays_are():
    answers = MEASURE.read(REFERENCE_ND)
    pieces = np.concatenate([MEASURE.read(REFERENCE_ND[:1]), MEASURE.read(REFERENCE_ND[1:])])
    assert MEASURE.share(pieces, answers).tolist() == [1, 1, 1]


def test_truth_has_a_field_for_each_output():
    truth = join({"digit": np.array([0, 1, 0]), "sick": np.array([1, 0, 1]), "age": np.array([[30.0], [50], [40]])})
    assert MEASURE.share_of_truth(MEASURE.read(REFERENCE_ND), truth) == pytest.approx([1, 1, 0.75])


def test_a_constant_answer_is_one_for_each_output():
    reference = MEASURE.read(REFERENCE_ND)
    own = [measure_of(part.output).chance(reference[part.name]) for part in CARD.parts]
    assert MEASURE.chance(reference) == pytest.approx((own[0] + own[1] + 2 * own[2]) / 4)


def test_distances_and_logits_are_those_of_the_outputs():
    logits_ND = MEASURE.as_logits(REFERENCE_ND)
    assert logits_ND[:, 3] == pytest.approx(np.log(9) * np.array([1, -1, np.log(4) / np.log(9)]), rel=1e-5)
    assert MEASURE.distance(logits_ND, logits_ND) == pytest.approx([0, 0, 0])
    moved_ND = logits_ND.copy()
    moved_ND[0, 4] = np.nan
    assert np.isinf(MEASURE.distance(logits_ND, moved_ND)).tolist() == [True, False, False]


def test_an_image_is_near_where_one_output_is():
    assert MEASURE.is_near(REFERENCE_ND, 0.5).tolist() == [False, False, False]
    assert MEASURE.is_near(REFERENCE_ND, 1.4).tolist() == [False, False, True]


def test_reports_have_words():
    assert words_of(TaskKind.SEVERAL).agreement == "weighted agreement with the teacher"
