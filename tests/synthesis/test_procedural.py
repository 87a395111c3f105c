import numpy as np
import pytest

from edgerecover.artifacts import OutputSpec
from edgerecover.synthesis.procedural import (
    are_pixel_statistics,
    attractors,
    coloured_noise,
    pixel_statistics,
    procedural_images,
    shapes,
    white_noise,
)
from edgerecover.synthesis.sets import synthesize
from edgerecover.synthesis.source import Source

BOUNDS = (-2.0, -1.5, -1.0), (1.0, 1.5, 2.0)
SHAPE = (3, 24, 32)


@pytest.mark.parametrize("source", ["noise", "fractal", "shapes"])
def test_images_are_inside_the_bounds_and_use_most_of_them(source):
    images_NCHW = procedural_images(source, 16, SHAPE, BOUNDS, seed=1)
    assert images_NCHW.shape == (16, *SHAPE)
    assert images_NCHW.dtype == np.float32
    low, high = (np.array(bound)[:, None, None] for bound in BOUNDS)
    assert (images_NCHW >= low - 1e-6).all()
    assert (images_NCHW <= high + 1e-6).all()
    assert (np.ptp(images_NCHW, axis=(0, 2, 3)) > 0.8 * 3.0).all()


@pytest.mark.parametrize("source", ["noise", "fractal", "shapes"])
def test_a_seed_decides_every_pixel_and_no_two_images_are_alike(source):
    one, same, other = (procedural_images(source, 8, SHAPE, BOUNDS, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert len(np.unique(np.concatenate([one, other]).reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (4, 5, 64)])
@pytest.mark.parametrize("source", ["noise", "fractal", "shapes"])
def test_any_size_and_number_of_channels(source, shape):
    bounds = (0.0,) * shape[0], (255.0,) * shape[0]
    images_NCHW = procedural_images(source, 3, shape, bounds, seed=0)
    assert images_NCHW.shape == (3, *shape)
    assert np.isfinite(images_NCHW).all()


def test_white_noise_has_the_mean_and_spread_of_photographs_and_no_structure():
    pixels_NCHW = white_noise(32, (1, 32, 32), np.random.default_rng(0))
    assert pixels_NCHW.mean() == pytest.approx(0.5, abs=0.01)
    assert pixels_NCHW.std() == pytest.approx(0.24, abs=0.01)  # a little under 0.25: black and white cut it off
    assert abs(neighbour_correlation(pixels_NCHW[:, 0])) < 0.02


def test_coloured_noise_is_smoother_than_white():
    noise_NHW = coloured_noise(32, 32, 32, np.random.default_rng(0))
    assert (noise_NHW.min((1, 2)) == 0).all()
    assert (noise_NHW.max((1, 2)) == 1).all()
    assert neighbour_correlation(noise_NHW) > 0.3


@pytest.mark.parametrize(("mean", "std"), [(0.1307, 0.3081), (0.286, 0.353), (0.45, 0.23), (0.9, 0.05)])
def test_shapes_have_the_mean_and_std_asked_for_and_are_smooth(mean, std):
    pixels_NCHW = shapes(64, (1, 28, 28), np.array([mean]), np.array([std]), np.random.default_rng(0))
    assert pixels_NCHW.mean() == pytest.approx(mean, abs=0.01)
    assert pixels_NCHW.std() == pytest.approx(std, rel=0.02)
    assert neighbour_correlation(pixels_NCHW[:, 0]) > 0.5


def test_shapes_have_each_channels_own_statistics_and_most_else_in_common():
    mean_C, std_C = np.array([0.2, 0.5, 0.7]), np.array([0.1, 0.2, 0.3])
    pixels_NCHW = shapes(64, (3, 16, 16), mean_C, std_C, np.random.default_rng(0))
    np.testing.assert_allclose(pixels_NCHW.mean((0, 2, 3)), mean_C, atol=0.01)
    np.testing.assert_allclose(pixels_NCHW.std((0, 2, 3)), std_C, rtol=0.02)
    correlations_CC = np.corrcoef(pixels_NCHW.transpose(1, 0, 2, 3).reshape(3, -1))
    assert (correlations_CC > 0.5).all()


def test_shapes_fall_back_to_those_of_photographs_where_mean_and_std_are_a_convention():
    pixels_NCHW = shapes(64, (1, 16, 16), np.array([0.0]), np.array([1.0]), np.random.default_rng(0))
    assert pixels_NCHW.mean() == pytest.approx(0.5, abs=0.01)
    assert pixels_NCHW.std() == pytest.approx(0.25, rel=0.02)


def test_pixel_statistics_are_what_normalisation_takes_to_0_and_1():
    mean_C, std_C = pixel_statistics(((-0.5, -2.0), (2.0, 2.0)))
    np.testing.assert_allclose(mean_C, [0.2, 0.5])
    np.testing.assert_allclose(std_C, [0.4, 0.25])


def test_no_pixels_spread_wider_than_black_and_white():
    assert are_pixel_statistics(0.5, 0.25)
    assert not are_pixel_statistics(0.5, 0.5)
    assert not are_pixel_statistics(0.1, 0.31)
    assert not are_pixel_statistics(0.5, 0.0)
    assert not are_pixel_statistics(-0.1, 0.1)


def test_an_attractor_fills_some_of_the_image_and_touches_its_edges():
    density_NHW = attractors(16, 32, 32, np.random.default_rng(0))
    visited_NHW = density_NHW > 0
    filled_N = visited_NHW.mean((1, 2))
    assert (filled_N > 0.05).all()
    assert (filled_N < 0.95).all()
    assert visited_NHW[:, 0].any(1).all()
    assert visited_NHW[:, :, -1].any(1).all()


@pytest.mark.parametrize("source", ["noise", "fractal", "shapes"])
def test_as_a_source_they_make_the_three_sets_without_class_targets(
    source, teacher, input_spec, synthesis, cpu, tmp_path
):
    settings = synthesis.model_copy(update={"source": source})
    sets, facts = synthesize(
        Source(teacher, input_spec, OutputSpec.one_label(4), cpu), settings, seed=0, folder=tmp_path
    )
    assert [len(part) for part in (sets.train, sets.calibration, sets.held_back)] == [96, 64, 32]
    assert sets.train.targets() == ()
    assert facts.teacher_agrees_with_target is None
    low, high = (np.array(bound)[:, None, None] for bound in input_spec.bounds())
    images_NCHW = sets.train.images_of(range(96))
    assert (images_NCHW >= low - 1e-5).all()
    assert (images_NCHW <= high + 1e-5).all()


def neighbour_correlation(x_NHW):
    return np.corrcoef(x_NHW[:, :, :-1].ravel(), x_NHW[:, :, 1:].ravel())[0, 1]
