"""What holds for the measure of every task."""

import numpy as np
import pytest

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of, words_of


@pytest.mark.parametrize("task", [task for task in TaskKind if task is not TaskKind.SEVERAL])
def test_every_task_has_a_measure_and_words_for_it(task):
    shape = {TaskKind.SEGMENTATION: (1, 1, 1), TaskKind.DETECTION: (5, 6)}.get(task, (1,))
    measure = measure_of(OutputSpec(task, shape))
    words = measure.words
    assert all((words.name, words.agreement, words.truth, words.answers, words.score))
    assert words.is_graded is not measure.has_classes
    assert words == words_of(task)
    assert words.with_pytorch.endswith("PyTorch")
    assert measure.words.rule.endswith(".")
    assert 0 < measure.least_same <= 1


def test_identical_outputs_share_everything(measure, logits):
    answers = measure.read(logits[0])
    assert len(answers) == 12
    assert measure.share(answers, answers).tolist() == [1] * 12
    np.testing.assert_allclose(measure.distance(logits[0], logits[0]), 0, atol=1e-12)


CHANCES = {
    TaskKind.MULTI_LABEL: ((3,), [[1, 1, -1]] * 3 + [[-1, -1, 1]], 0.75),
    TaskKind.REGRESSION: ((1,), [[0], [0], [0], [4]], 0.75),
    TaskKind.SEGMENTATION: ((1, 1, 2), [[-1, -1]] * 3 + [[1, 1]], 0.75),
}


@pytest.mark.parametrize("task", CHANCES)
def test_chance_is_that_of_the_best_answer_for_all(task):
    shape, outputs, chance = CHANCES[task]
    measure = measure_of(OutputSpec(task, shape))
    assert measure.chance(measure.read(np.array(outputs, np.float32))) == pytest.approx(chance)


def test_chance_of_classes_is_the_most_frequent_one():
    measure = measure_of(OutputSpec.one_label(3))
    assert measure.chance(np.array([0, 1, 1, 2])) == 0.5


def test_two_directions_are_not_told_by_their_mean():
    measure = measure_of(OutputSpec(TaskKind.EMBEDDING, (2,)))
    assert measure.chance(measure.read(np.eye(2))) < 1


def test_chance_of_detection_is_the_share_of_images_without_a_box():
    measure = measure_of(OutputSpec(TaskKind.DETECTION, (16, 6)))
    outputs_NAV = np.full((4, 16, 6), -9, np.float32)
    outputs_NAV[..., :4] = 8, 8, 4, 4
    outputs_NAV[3, 0, 4] = 9
    assert measure.chance(measure.read(outputs_NAV.reshape(4, -1))) == 0.75


def test_a_teacher_that_answers_alike_has_a_chance_of_1(measure, logits):
    if measure.output.task is TaskKind.DETECTION:
        pytest.skip("boxes that are the same everywhere are not tried: no box is")
    assert measure.chance(measure.read(np.repeat(logits[0][:1], 5, axis=0))) == pytest.approx(1)


def test_chance_of_outputs_that_are_no_numbers_is_0(measure, logits):
    assert measure.chance(measure.read(np.full_like(logits[0], np.nan))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_share_is_from_0_to_1_and_a_distance_is_not_negative(measure, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(0, 3, (20, measure.output.num_values)) for _ in range(2))
    share = measure.share(measure.read(a), measure.read(b))
    assert share.shape == (20,)
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean() < 1
    assert measure.distance(a, b).min() > -1e-12


def test_the_further_off_the_less_is_shared(measure, logits):
    reference, erring = logits
    answers = measure.read(reference)
    shares, distances = zip(
        *(
            (measure.share(measure.read(outputs), answers).mean(), measure.distance(reference, outputs).mean())
            for outputs in (reference, reference + 0.3 * (erring - reference), reference + 6 * (erring - reference))
        ),
        strict=True,
    )
    assert shares[0] >= shares[1] > shares[2]
    assert distances[0] < distances[1] < distances[2]


def test_what_is_no_number_shares_nothing_and_is_infinitely_far(measure, logits):
    broken = logits[0].copy()
    broken[3] = np.nan
    answers, sound = measure.read(broken), measure.read(logits[0])
    for share in (measure.share(answers, sound), measure.share(sound, answers), measure.share(answers, answers)):
        assert share[3] == 0
        assert np.delete(share, 3).tolist() == [1] * 11
    for distance in (measure.distance(broken, logits[0]), measure.distance(logits[0], broken)):
        assert distance[3] == np.inf
        np.testing.assert_allclose(np.delete(distance, 3), 0, atol=1e-12)


def test_outputs_of_another_width_are_refused(measure):
    with pytest.raises(ValueError, match=rf"outputs \(N, {measure.output.num_values}\) were expected"):
        measure.read(np.zeros((2, measure.output.num_values + 1)))
    with pytest.raises(ValueError, match="were expected"):
        measure.read(np.zeros(measure.output.num_values))


def test_nothing_is_near_where_answers_are_sure(measure, logits):
    assert not measure.is_near(logits[0], 1e-9).any()
