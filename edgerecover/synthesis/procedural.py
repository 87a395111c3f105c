"""Images made from formulas alone, without the teacher: white noise, shapes, and fractals over coloured noise.

They need no gradient (one core makes hundreds of 32×32 images per second) and are the baseline for dreams.
Fractals are attractors of random iterated function systems (Hutchinson 1981; Barnsley, Fractals Everywhere, 1988),
drawn by the chaos game, on a background whose power spectrum falls as 1/f^a, as that of photographs does (Field 1987).
"""

# Shapes: N images, C channels, H height, W width, M maps of one system, P points, Q points of one map.
# ruff: noqa: TID253 - array arithmetic from top to bottom; only the synthesis stage imports it

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit_NCHW = NDArray[np.float32]
"""Pixels as fractions of the range that a pixel can have, 0 to 1."""

_NOISE_MEAN, _NOISE_STD = 0.5, 0.25
"""About the mean and standard deviation of pixels in natural photographs."""
_SHARED_BY_CHANNELS = 0.85
"""Share of a shape's variance: the colour channels of photographs are correlated."""
_BRIGHTNESS_STD = 0.3
"""Standard deviation of an image's mean, relative to that inside an image. With much more, some images of a dark set
are all black, and stay so where the teacher assigns black to the target class."""
_LINE_STEEPNESS = 3.0
"""Lines are where a field crosses 0; at this they are about a tenth of its wavelength wide."""
_LEAST_STD = 0.01
_WIDEST_STD = 0.95
"""As a fraction of the standard deviation of pixels that are only black and white."""
_NUM_ATTRACTORS = 2
_NUM_MAPS = 4
_SCALES = (0.25, 0.85)
"""Singular values of the maps: below 1 they contract, so an attractor exists; far above 0 it is not a few dots."""
_BURN_IN = 15
_STEPS = 25
_POINTS_PER_PIXEL = 0.25


def procedural_images(
    source: Literal["shapes", "fractal", "noise"],
    num_images: int,
    shape_CHW: tuple[int, int, int],
    bounds_C: tuple[tuple[float, ...], tuple[float, ...]],
    seed: int,
) -> NDArray[np.float32]:
    """Make network inputs, float32 (N, C, H, W), inside `bounds_C`; the same seed gives the same images.

    Args:
        source: `noise`, Gaussian and independent in every pixel, `fractal`, or `shapes` with the pixels' mean and
            standard deviation that follow from `bounds_C`.
        num_images: N.
        shape_CHW: of one image.
        bounds_C: lowest and highest network input of a real pixel, per channel.
        seed: not negative.
    """
    rng = np.random.default_rng(seed)
    low, high = (np.asarray(bound, np.float32)[:, None, None] for bound in bounds_C)
    if source == "shapes":
        unit_NCHW = shapes(num_images, shape_CHW, *pixel_statistics(bounds_C), rng)
    else:
        unit_NCHW = {"noise": white_noise, "fractal": fractals}[source](num_images, shape_CHW, rng)
    images_NCHW: NDArray[np.float32] = low + (high - low) * unit_NCHW
    return images_NCHW


def pixel_statistics(
    bounds_C: tuple[tuple[float, ...], tuple[float, ...]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and std per channel, as fractions of a pixel's range, that normalisation maps to 0 and 1.

    Args:
        bounds_C: network inputs of the darkest and the brightest pixel.
    """
    low_C, high_C = (np.asarray(bound, np.float64) for bound in bounds_C)
    return -low_C / (high_C - low_C), 1 / (high_C - low_C)


def white_noise(num_images: int, shape_CHW: tuple[int, int, int], rng: np.random.Generator) -> Unit_NCHW:
    """Every pixel Gaussian, clipped at black and white."""
    noise = rng.standard_normal((num_images, *shape_CHW), np.float32)
    pixels_NCHW: Unit_NCHW = np.clip(_NOISE_MEAN + _NOISE_STD * noise, 0, 1)
    return pixels_NCHW


def fractals(
    num_images: int, shape_CHW: tuple[int, int, int], rng: np.random.Generator, *, saturation: float = 1.0
) -> Unit_NCHW:
    """Attractors in random colours, painted over coloured noise between two random colours.

    `saturation` 1 leaves the colours as drawn, independent by channel; 0 makes them grey.
    """
    channels, height, width = shape_CHW
    images_NCHW = _blend(
        coloured_noise(num_images, height, width, rng),
        _colours(num_images, channels, rng),
        _colours(num_images, channels, rng),
    )
    for _ in range(_NUM_ATTRACTORS):
        density_NHW = attractors(num_images, height, width, rng)
        images_NCHW = _blend(density_NHW, images_NCHW, _colours(num_images, channels, rng))
    grey_N1HW = images_NCHW.mean(1, keepdims=True, dtype=np.float32)
    mixed_NCHW: Unit_NCHW = grey_N1HW + np.float32(saturation) * (images_NCHW - grey_N1HW)
    return mixed_NCHW


def shapes(
    num_images: int,
    shape_CHW: tuple[int, int, int],
    mean_C: NDArray[np.float64],
    std_C: NDArray[np.float64],
    rng: np.random.Generator,
) -> Unit_NCHW:
    """Blobs, lines and fractals whose pixels, over all images, have the given mean and standard deviation by channel.

    Smooth Gaussian fields (blobs), ridges of such fields (lines) and attractors, brighter in some images than in
    others, whose values are replaced, rank for rank, by those of the Beta distribution with that mean and deviation. It
    decides how dark and bright are distributed: MNIST's 0.13 and 0.31 make few bright shapes on black, a photograph's
    0.45 and 0.23 a range of greys.

    Args:
        num_images: N; half are blobs, a quarter lines and a quarter fractals.
        shape_CHW: of one image.
        mean_C: of each channel's pixels, as a fraction of their range.
        std_C: standard deviation of each channel's pixels, as a fraction of their range. Where no such pixels exist
            (`are_pixel_statistics`), 0.5 and 0.25 replace mean and standard deviation.
        rng: all randomness.
    """
    channels, height, width = shape_CHW
    shared_NHW = _shape_fields(num_images, height, width, rng)
    images_NCHW = np.empty((num_images, *shape_CHW), np.float32)
    for channel in range(channels):
        field_NHW = shared_NHW
        if channels > 1:
            own_NHW = _smooth_fields(num_images, height, width, rng)
            field_NHW = _SHARED_BY_CHANNELS**0.5 * shared_NHW + (1 - _SHARED_BY_CHANNELS) ** 0.5 * own_NHW
        field_NHW = field_NHW + _BRIGHTNESS_STD * rng.standard_normal((num_images, 1, 1))
        images_NCHW[:, channel] = _with_beta_values(field_NHW, mean_C[channel], std_C[channel], rng)
    return images_NCHW


def are_pixel_statistics(mean: float, std: float) -> bool:
    """Whether pixels from 0 to 1 of some images can have this mean and standard deviation.

    Pixels with mean m have √(m (1 - m)) only if all are black or white: a network's "0.5 and 0.5" is a convention.
    """
    return 0 < mean < 1 and _LEAST_STD < std < _WIDEST_STD * (mean * (1 - mean)) ** 0.5


def _shape_fields(num_images: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Blobs, lines and fractals in random order, the values of each image Gaussian, (N, H, W)."""
    num_lines, num_fractals = num_images // 4, num_images // 4
    field_NHW = _smooth_fields(num_images, height, width, rng)
    field_NHW[:num_lines] = np.exp(-_LINE_STEEPNESS * np.abs(field_NHW[:num_lines]))
    if num_fractals:
        fractals_N1HW = fractals(num_fractals, (1, height, width), rng)
        field_NHW[num_lines : num_lines + num_fractals] = fractals_N1HW[:, 0]
    return rng.permutation(_with_gaussian_values(field_NHW, rng))


def _with_gaussian_values(field_NHW: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Rank for rank, so that every image has bright parts: of ridges left as they are, one in four would have none."""
    flat_NP = field_NHW.reshape(len(field_NHW), -1)
    values_NP = np.sort(rng.standard_normal(flat_NP.shape), axis=1)
    ranked_NP = np.empty_like(values_NP)
    np.put_along_axis(ranked_NP, np.argsort(flat_NP, axis=1), values_NP, axis=1)
    return ranked_NP.reshape(field_NHW.shape)


def _standardise(field_NHW: NDArray[np.float64]) -> NDArray[np.float64]:
    centred_NHW = field_NHW - field_NHW.mean((1, 2), keepdims=True)
    unit_NHW: NDArray[np.float64] = centred_NHW / np.maximum(centred_NHW.std((1, 2), keepdims=True), 1e-9)
    return unit_NHW


def _smooth_fields(num_images: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian fields (N, H, W) with amplitude 1/f^(a/2), a from 2 to 4 by image, each of variance 1."""
    exponents_N11 = rng.uniform(2, 4, (num_images, 1, 1))
    return _standardise(_colour(num_images, height, width, exponents_N11, rng))


def _with_beta_values(
    field_NHW: NDArray[np.float64], mean: float, std: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    if not are_pixel_statistics(mean, std):
        mean, std = _NOISE_MEAN, _NOISE_STD
    size = mean * (1 - mean) / std**2 - 1
    values = np.sort(rng.beta(mean * size, (1 - mean) * size, field_NHW.size))
    mapped = np.empty_like(values)
    mapped[np.argsort(field_NHW, axis=None)] = values
    return mapped.reshape(field_NHW.shape)


def coloured_noise(num_images: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise (N, H, W) from 0 to 1 with amplitude 1/f^(a/2), a from 1 to 3, drawn for each image."""
    return _stretch(_colour(num_images, height, width, rng.uniform(1, 3, (num_images, 1, 1)), rng))


def _colour(
    num_images: int, height: int, width: int, exponents_N11: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    frequency_HF = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency_HF[0, 0] = np.inf  # no constant part: the colours decide the mean
    spectrum = np.fft.rfft2(rng.standard_normal((num_images, height, width))) * frequency_HF ** (-exponents_N11 / 2)
    field_NHW: NDArray[np.float64] = np.fft.irfft2(spectrum, s=(height, width))
    return field_NHW


def attractors(num_images: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How densely the chaos game visits each pixel, (N, H, W): 0 off the attractor, 1 at its densest, logarithmic."""
    matrices_NM22, offsets_NM21 = _contractions(num_images, rng)
    points_per_map = max(16, round(height * width * _POINTS_PER_PIXEL / _NUM_MAPS))
    points_N2P = rng.uniform(-1, 1, (num_images, 2, _NUM_MAPS * points_per_map)).astype(np.float32)
    visited = []
    for step in range(_BURN_IN + _STEPS):
        # Each map takes an equal share of the points; shuffling them first is the game's random choice of a map.
        shuffled_N2P = points_N2P[:, :, rng.permutation(points_N2P.shape[2])]
        shared_NM2Q = shuffled_N2P.reshape(num_images, 2, _NUM_MAPS, points_per_map).transpose(0, 2, 1, 3)
        points_N2P = (matrices_NM22 @ shared_NM2Q + offsets_NM21).transpose(0, 2, 1, 3).reshape(points_N2P.shape)
        if step >= _BURN_IN:
            visited.append(points_N2P)
    # Image by image: the pixels of all points of 64 images take 0.7 GB at 224 × 224.
    points_of = (np.concatenate([points_N2P[number] for points_N2P in visited], axis=1) for number in range(num_images))
    return np.stack([_density(points_2P, height, width) for points_2P in points_of])


def _contractions(num_images: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Affine maps of random systems: rotation · scales · rotation, so that the singular values are the scales."""
    turn, turn_back = (_rotations(rng.uniform(0, 2 * np.pi, (num_images, _NUM_MAPS))) for _ in range(2))
    scale = rng.uniform(*_SCALES, (num_images, _NUM_MAPS, 1, 2))
    offsets_NM21 = rng.uniform(-1, 1, (num_images, _NUM_MAPS, 2, 1))
    return ((turn * scale) @ turn_back).astype(np.float32), offsets_NM21.astype(np.float32)


def _rotations(angles_NM: NDArray[np.float64]) -> NDArray[np.float64]:
    cos, sin = np.cos(angles_NM), np.sin(angles_NM)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def _density(points_2P: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """How densely points visit each pixel of one image, (H, W)."""
    low, high = points_2P.min(1, keepdims=True), points_2P.max(1, keepdims=True)
    last_pixel = np.array([[height - 1], [width - 1]], np.float32)
    pixels_2P = np.rint((points_2P - low) / np.maximum(high - low, 1e-6) * last_pixel).astype(np.int64)
    visits_HW = np.bincount(pixels_2P[0] * width + pixels_2P[1], minlength=height * width).reshape(height, width)
    density_HW: NDArray[np.float32] = _stretch(np.log1p(visits_HW[None]))[0]
    return density_HW


def _stretch(x_NHW: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each image from exactly 0 to 1."""
    low, high = x_NHW.min((1, 2), keepdims=True), x_NHW.max((1, 2), keepdims=True)
    unit_NHW: NDArray[np.float32] = ((x_NHW - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return unit_NHW


def _colours(num_images: int, channels: int, rng: np.random.Generator) -> Unit_NCHW:
    return rng.random((num_images, channels, 1, 1), np.float32)


def _blend(share_NHW: NDArray[np.float32], below_NCHW: Unit_NCHW, above_NCHW: Unit_NCHW) -> Unit_NCHW:
    share_N1HW = share_NHW[:, None]
    return (1 - share_N1HW) * below_NCHW + share_N1HW * above_NCHW
