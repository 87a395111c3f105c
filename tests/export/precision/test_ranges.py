from pathlib import Path

import numpy as np
import pytest

from edgerecover.errors import BadInputError
from edgerecover.export.precision.graph import prepare
from edgerecover.export.precision.ranges import NUM_BINS, scan
from tests.export.precision.conftest import Builder, ImagesInMemory, random_images, residual


def scanned(save, model, images, **options):
    return scan(prepare(Path(save(model).path)), ImagesInMemory(images), max_images=100, **options)


@pytest.mark.parametrize("batch", ["N", 1, 5])
def test_extremes_are_those_of_all_images_whatever_the_batch(save, batch):
    images = random_images(12)
    images[7, 1, 2, 3] = 31.0
    ranges = scanned(save, residual(batch=batch), images)
    assert (ranges.num_images, ranges.tensors["input"].high) == (12, 31.0)
    assert ranges.tensors["input"].low == pytest.approx(float(images.min()))
    assert ranges.tensors["b"].low == 0.0
    assert {"a", "b", "sum", "logits"} <= set(ranges.tensors)


def test_channel_means_are_of_what_layers_read(save):
    images = random_images(12)
    ranges = scanned(save, residual(), images)
    np.testing.assert_allclose(ranges.tensors["input"].channel_means, images.mean((0, 2, 3)), atol=1e-6)


def test_histograms_count_every_value_between_the_extremes(save):
    images = random_images(12)
    seen = scanned(save, residual(), images, with_histograms=True).tensors["input"]
    assert seen.histogram.shape == (NUM_BINS,)
    assert seen.histogram.sum() == images.size


def test_only_so_many_images_are_run(save):
    graph = prepare(Path(save(residual()).path))
    assert scan(graph, ImagesInMemory(random_images(12)), max_images=7).num_images == 7
    with pytest.raises(BadInputError, match="no calibration images"):
        scan(graph, ImagesInMemory(random_images(0)), max_images=7)


def test_values_that_are_not_finite_are_seen_and_do_not_spread(save):
    b = Builder()
    x = b.add("Div", ["input", b.weight("zero", values=np.float32(0))], "infinite")
    x = b.add("Gemm", [b.add("Flatten", [x], "a"), b.weight("fc.weight", 5, 192)], "logits", transB=1)
    ranges = scanned(save, b.model(x), random_images(2))
    assert not ranges.tensors["infinite"].is_finite
    assert ranges.tensors["input"].is_finite
