"""Images and truth for benchmarks/tasks.py: made from a seed, or put together from images that you bring.

Shapes: N images, H height, W width, C channels, K labels, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import task_detector

Split = Literal["train", "test"]
_SEEDS: Mapping[Split, int] = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Examples:
    """Images, and what is true of them."""

    images: np.ndarray
    """uint8 (N, H, W, C)."""
    truth: np.ndarray
    """Of each image: 0 or 1 (N,), 0 or 1 per label (N, K), a class (N,), real numbers (N, D), classes (N, H, W),
    boxes (N, M, 5) of class, left, top, right and bottom."""

    def __len__(self) -> int:
        return len(self.images)

    def first(self, num: int) -> Examples:
        return Examples(self.images[:num], self.truth[:num])


# --- generated surfaces and shapes --------------------------------------------------------------------------


def scratched_surfaces(num: int, split: Split, size: int = 32) -> Examples:
    """Grey surfaces with a grain; every second one has a scratch. Truth: 1 where there is one (N,)."""
    random = np.random.default_rng((0, _SEEDS[split]))
    surfaces = _surfaces(random, num, size)
    is_scratched = np.arange(num) % 2
    angle, length = random.uniform(0, np.pi, num), random.uniform(0.25, 0.6, num) * size
    middle = random.uniform(0.25, 0.75, (2, num)) * size
    x, y = _grid(size)
    along, across = _turned(x - middle[0, :, None, None], y - middle[1, :, None, None], angle)
    beyond = np.maximum(np.abs(along) - length[:, None, None] / 2, 0)
    depth = random.choice([-1.0, 1.0], num) * random.uniform(0.12, 0.35, num)
    scratch = depth[:, None, None] * np.exp(-(across**2 + beyond**2) / 0.8)
    return Examples(_grey_bytes(surfaces + is_scratched[:, None, None] * scratch), is_scratched)


def measured_bars(num: int, split: Split, size: int = 32) -> Examples:
    """A bar somewhere on a grey surface. Truth: length and width, of the image's side, and tilt, of 45° (N, 3)."""
    random = np.random.default_rng((1, _SEEDS[split]))
    surfaces = _surfaces(random, num, size)
    length, width, tilt = random.uniform(0.4, 0.75, num), random.uniform(0.1, 0.3, num), random.uniform(-0.9, 0.9, num)
    middle = random.uniform(0.4, 0.6, (2, num, 1, 1)) * size
    x, y = _grid(size)
    along, across = _turned(x - middle[0], y - middle[1], tilt * np.pi / 4)
    inside = [
        np.clip(side[:, None, None] * size / 2 - np.abs(place) + 0.5, 0, 1)
        for side, place in ((length, along), (width, across))
    ]
    contrast = random.choice([-1.0, 1.0], num) * random.uniform(0.2, 0.45, num)
    shades = surfaces + contrast[:, None, None] * inside[0] * inside[1]
    return Examples(_grey_bytes(shades), np.stack([length, width, tilt], axis=1).astype(np.float32))


def segmented_shapes(num: int, split: Split, size: int = 48) -> Examples:
    """One to three coloured shapes over one another. Truth: 0 ground, 1 disc, 2 square, 3 triangle of each pixel."""
    random = np.random.default_rng((2, _SEEDS[split]))
    shades = np.stack([_surfaces(random, num, size) for _ in range(3)], axis=-1)
    classes_NHW = np.zeros((num, size, size), np.int64)
    how_many = random.integers(1, 4, num)
    for place in range(3):
        kind, inside = _shapes(random, num, size)
        inside &= (place < how_many)[:, None, None]
        classes_NHW[inside] = np.broadcast_to(kind[:, None, None], inside.shape)[inside]
        colour = random.uniform(0.05, 0.95, (num, 1, 1, 3))
        shades = np.where(inside[..., None], colour + 0.25 * (shades - 0.5), shades)
    shades = shades + random.normal(0, 0.02, shades.shape)
    return Examples(_bytes(shades), classes_NHW)


def _shapes(random: np.random.Generator, num: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Kinds (N,) and insides (N, H, W) of one shape per image, turned by any angle."""
    kind = random.integers(1, 4, num)
    radius = random.uniform(0.14, 0.28, num)[:, None, None] * size
    centre = random.uniform(0.15, 0.85, (2, num, 1, 1)) * size
    x, y = _grid(size)
    along, across = _turned(x - centre[0], y - centre[1], random.uniform(0, 2 * np.pi, num))
    disc = along**2 + across**2 <= radius**2
    square = np.maximum(np.abs(along), np.abs(across)) <= 0.85 * radius
    corners = np.arange(3) * 2 * np.pi / 3
    triangle = np.all([along * np.cos(a) + across * np.sin(a) <= 0.75 * radius for a in corners], axis=0)
    return kind, np.choose(kind[:, None, None] - 1, [disc, square, triangle])


def boxed_shapes(num: int, split: Split) -> Examples:
    """Discs, squares and triangles beside one another in colour; see `task_detector`. Truth: boxes (N, M, 5)."""
    return Examples(*task_detector.boxed_shapes(num, split))


def _surfaces(random: np.random.Generator, num: int, size: int) -> np.ndarray:
    """Shades around 0.5 (N, H, W): three waves of any direction and length of each surface, and grain."""
    x, y = _grid(size)
    shades = random.uniform(0.35, 0.65, (num, 1, 1)) + random.normal(0, 0.03, (num, size, size))
    for _ in range(3):
        angle, phase = random.uniform(0, 2 * np.pi, (2, num, 1, 1))
        length = size * 2.0 ** random.uniform(-3, 0.5, (num, 1, 1))
        height = random.uniform(0, 0.08, (num, 1, 1))
        shades += height * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return shades


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The middles of pixels, x (1, 1, W) and y (1, H, 1)."""
    middles = np.arange(size) + 0.5
    return middles[None, None, :], middles[None, :, None]


def _turned(x: np.ndarray, y: np.ndarray, angle_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle_N)[:, None, None], np.sin(angle_N)[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def _bytes(shades: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(255 * shades), 0, 255).astype(np.uint8)


def _grey_bytes(shades_NHW: np.ndarray) -> np.ndarray:
    return _bytes(shades_NHW)[..., None]


# --- put together from images that are brought --------------------------------------------------------------


def several_digits(data: Path, num: int, split: Split, size: int = 44) -> Examples:
    """One to four digits of MNIST on a canvas, in its quarters. Truth: 1 for each digit that is there (N, 10).

    Only MNIST's test images are in DATA: the first 8,000 are for training, the others for testing.
    """
    random = np.random.default_rng((3, _SEEDS[split]))
    images_NHWC, labels_N = read_npz(data / "mnist_test.npz")
    cut = 4 * len(labels_N) // 5
    part = slice(0, cut) if split == "train" else slice(cut, None)
    digits_NHW, labels_N = images_NHWC[part, 4:24, 4:24, 0], labels_N[part]  # digits keep to the 20×20 in the middle
    canvas_NHWC, truth_NK = np.zeros((num, size, size, 1), np.uint8), np.zeros((num, 10), np.int64)
    room = size // 2 - 20
    for image in range(num):
        for quarter in random.permutation(4)[: random.integers(1, 5)]:
            digit = random.integers(len(labels_N))
            top, left = np.array(divmod(quarter, 2)) * (size // 2) + random.integers(room + 1, size=2)
            canvas_NHWC[image, top : top + 20, left : left + 20, 0] = digits_NHW[digit]
            truth_NK[image, labels_N[digit]] = 1
    return Examples(canvas_NHWC, truth_NK)


UNSEEN_CLASSES = (4, 7, 8)
"""Of Fashion-MNIST: coat, sneaker and bag, which the embedding is not trained on."""


def clothes(data: Path, num: int, split: Split) -> Examples:
    """Fashion-MNIST. Truth: the class (N,); the train split is without UNSEEN_CLASSES."""
    images_NHWC, labels_N = read_npz(data / f"fashion_mnist_{split}.npz")
    if split == "train":
        is_seen = ~np.isin(labels_N, UNSEEN_CLASSES)
        images_NHWC, labels_N = images_NHWC[is_seen], labels_N[is_seen]
    return Examples(images_NHWC[:num], labels_N[:num])


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) and labels of a file of DATA, or of a task's folder."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def _of_no_data(make: Callable[[int, Split], Examples]) -> Callable[[Path, int, Split], Examples]:
    return lambda _data, num, split: make(num, split)


EXAMPLES: Mapping[str, Callable[[Path, int, Split], Examples]] = {
    "binary": _of_no_data(scratched_surfaces),
    "multi-label": several_digits,
    "embedding": clothes,
    "regression": _of_no_data(measured_bars),
    "segmentation": _of_no_data(segmented_shapes),
    "detection": _of_no_data(boxed_shapes),
}
"""By task: DATA, number of images and split to examples."""
