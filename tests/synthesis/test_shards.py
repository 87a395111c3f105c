import numpy as np

from edgerecover.synthesis import shards
from edgerecover.synthesis.image_set import PixelScale


def test_a_few_flat_images_give_way_to_fractals(input_spec):
    plan = shards.ShardPlan("train-00000", 5, 4, ())
    scale = PixelScale(*input_spec.bounds())
    pixels = np.random.default_rng(0).integers(0, 255, (4, *input_spec.shape), np.uint8)
    pixels[2] = 0
    made = shards._without_flat_images(pixels.copy(), plan, input_spec, scale)
    assert (made[[0, 1, 3]] == pixels[[0, 1, 3]]).all()
    assert np.ptp(made[2]) > 50
    alike = np.zeros_like(pixels)
    assert not shards._without_flat_images(alike, plan, input_spec, scale).any()
