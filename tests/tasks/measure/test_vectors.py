import numpy as np
import pytest

from edgerecover.artifacts import OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of, vectors

PLANE = measure_of(OutputSpec(TaskKind.EMBEDDING, (2,)))
WIDE = measure_of(OutputSpec(TaskKind.EMBEDDING, (64,)))
NUMBERS = measure_of(OutputSpec(TaskKind.REGRESSION, (2,)))


def at(*degrees):
    """Vectors of different lengths."""
    angles = np.radians(degrees)
    return np.arange(1, len(angles) + 1)[:, np.newaxis] * np.stack([np.cos(angles), np.sin(angles)], 1)


def share(answers, reference, measure=PLANE):
    return measure.share(measure.read(answers), measure.read(reference))


# --- embeddings


def test_length_means_nothing():
    vectors_ND = np.random.default_rng(0).normal(size=(5, 64))
    assert share(vectors_ND * 7, vectors_ND, WIDE).tolist() == [1] * 5
    np.testing.assert_allclose(np.linalg.norm(WIDE.read(vectors_ND), axis=1), 1)


def test_an_image_counts_its_cosine():
    assert share(at(10, 120), at(0, 90)) == pytest.approx(np.cos(np.radians([10, 30])))
    assert share(at(170), at(0)).tolist() == [0]


def test_it_counts_nothing_where_a_clearly_different_image_is_nearer():
    # 30° off, and 20° from another image that is 50° away.
    assert share(at(30, 50), at(0, 50)) == pytest.approx([0, 1])


def test_images_that_are_as_alike_as_the_error_is_large_do_not_compete():
    # 3° off, and 1° from an image that is 2° away: two frames of one film.
    assert share(at(3, 2), at(0, 2)) == pytest.approx([np.cos(np.radians(3)), 1])


def test_what_all_embeddings_have_in_common_is_not_enough():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(600, 64)) + 2.5
    common = np.broadcast_to(reference.mean(0), reference.shape)
    cosines = (WIDE.read(common) * WIDE.read(reference)).sum(1)
    assert cosines.mean() > 0.9
    assert share(common, reference, WIDE).mean() < 0.05
    close = reference + 0.3 * rng.normal(size=reference.shape)
    assert share(close, reference, WIDE).mean() > 0.98


def test_shares_do_not_depend_on_the_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(50, 2))
    answers = reference + 0.5 * rng.normal(size=reference.shape)
    labels = rng.integers(0, 3, 50)
    whole = share(answers, reference), PLANE.share_of_truth(PLANE.read(answers), labels)
    monkeypatch.setattr(vectors, "_BLOCK_ROWS", 7)
    np.testing.assert_array_equal(share(answers, reference), whole[0])
    np.testing.assert_array_equal(PLANE.share_of_truth(PLANE.read(answers), labels), whole[1])
    assert 0 < (whole[0] == 0).mean() < 1


@pytest.mark.parametrize("broken", [np.zeros(2), np.array([np.inf, 1]), np.array([np.nan, 1])])
def test_vectors_without_a_direction(broken):
    outputs = at(0, 10, 90)
    outputs[1] = broken
    answers = PLANE.read(outputs)
    assert np.isnan(answers[1]).all()
    assert PLANE.distance(at(0, 10, 90), outputs)[1] == np.inf
    # Nobody's neighbour either.
    assert PLANE.share_of_truth(answers, np.array([5, 6, 5])).tolist() == [1, 0, 1]


def test_the_nearest_other_image_has_the_same_label():
    assert PLANE.share_of_truth(PLANE.read(at(0, 10, 80, 90)), np.array([0, 0, 1, 1])).tolist() == [1, 1, 1, 1]
    assert PLANE.share_of_truth(PLANE.read(at(0, 10, 80, 90)), np.array([0, 1, 0, 1])).tolist() == [0, 0, 0, 0]
    assert PLANE.share_of_truth(PLANE.read(at(0, 10, 90)), np.array([0, 0, 7])).tolist() == [1, 1, 0]
    assert PLANE.share_of_truth(PLANE.read(at(0)), np.array([0])).tolist() == [0]


def test_distance_is_one_minus_the_cosine():
    assert PLANE.distance(at(0, 0, 0), at(0, 90, 180)) == pytest.approx([0, 1, 2])


# --- numbers


def test_errors_are_told_in_standard_deviations_of_the_reference():
    reference = np.array([[0.0, 0], [2, 20]])  # standard deviations 1 and 10
    answers = NUMBERS.read(np.array([[0.5, 0], [2, 18]]))
    assert NUMBERS.share(answers, NUMBERS.read(reference)) == pytest.approx([1 - 0.5 / 2, 1 - 0.2 / 2])
    assert NUMBERS.share_of_truth(answers, reference) == pytest.approx([0.75, 0.9])
    assert NUMBERS.distance(reference, np.array([[0.5, 0], [2, 18]])) == pytest.approx([0.25 / 2, 0.04 / 2])


def test_an_error_beyond_one_deviation_counts_nothing():
    reference = np.array([[0.0, 0], [2, 20]])
    assert NUMBERS.share(NUMBERS.read(reference + 1.1 * np.array([1, 10])), reference).tolist() == [0, 0]


def test_values_that_do_not_vary_are_compared_with_their_size():
    assert NUMBERS.share(np.array([[9.0, 5]]), np.array([[10.0, 5]])) == pytest.approx([1 - 0.1 / 2])
    constant = np.array([[4.0, 0], [4, 0]])
    assert NUMBERS.share(constant, constant).tolist() == [1, 1]
    assert NUMBERS.share(constant + np.array([1, 0.5]), constant) == pytest.approx([1 - 0.75 / 2] * 2)


def test_one_value_may_be_a_column_or_a_row():
    measure = measure_of(OutputSpec(TaskKind.REGRESSION, (1,)))
    answers = measure.read(np.array([[0.0], [1.0]]))
    assert measure.share_of_truth(answers, np.array([0.0, 1.0])).tolist() == [1, 1]
    assert measure.share_of_truth(answers, np.array([[0.0], [1.0]])).tolist() == [1, 1]


def test_a_reference_without_numbers_shares_nothing():
    assert NUMBERS.share(np.zeros((2, 2)), np.full((2, 2), np.nan)).tolist() == [0, 0]
    assert NUMBERS.share(np.full((2, 2), np.inf), np.array([[0.0, 0], [1, 1]])).tolist() == [0, 0]


# --- maps of values

MAPS = measure_of(OutputSpec(TaskKind.REGRESSION, (2, 60, 80)))


def maps_of(seed, num_images=6):
    """Of a map around 0 and one around 100, which varies ten times as much."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(num_images, 2, 4800)) * [[1], [10]] + [[0], [100]]).reshape(num_images, -1)


def test_an_error_of_a_map_is_told_in_the_deviations_of_its_pixels():
    reference = maps_of(0)
    errors = np.repeat([0.2, 2.0], 4800)  # a fifth of each map's
    assert share(reference + errors, reference, MAPS) == pytest.approx([0.8] * 6, abs=0.01)
    assert MAPS.distance(reference, reference + errors) == pytest.approx([0.04] * 6, rel=0.05)


def test_a_pixel_that_is_alike_in_all_images_is_compared_with_its_map():
    reference = maps_of(0)
    reference[:, :100] = 3.0
    assert share(reference + 0.1, reference, MAPS) == pytest.approx([1 - 0.055] * 6, abs=0.005)


def test_of_large_maps_some_pixels_are_kept_which_stand_for_all():
    reference = maps_of(0)
    assert MAPS.read(reference).shape == (6, vectors.MOST_VALUES)
    rng = np.random.default_rng(1)
    answers = reference + rng.normal(size=reference.shape) * np.repeat([0.5, 5.0], 4800) * rng.random(9600)
    of_all = 1 - (np.abs(answers - reference) / np.repeat([1.0, 10.0], 4800)).mean(1)
    assert share(answers, reference, MAPS) == pytest.approx(of_all, abs=0.01)


def test_a_number_that_is_not_finite_shares_nothing_wherever_it_is():
    reference = maps_of(0)
    for place in (0, 1, 5000, 9599):
        answers = reference.copy()
        answers[2, place] = np.nan
        assert share(answers, reference, MAPS).tolist() == [1, 1, 0, 1, 1, 1]


def test_true_maps_are_read_as_outputs():
    reference = maps_of(0)
    truth = reference.reshape(6, 2, 60, 80).astype(np.float32)
    assert MAPS.share_of_truth(MAPS.read(reference), truth) == pytest.approx([1] * 6)
