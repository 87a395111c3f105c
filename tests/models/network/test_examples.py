import torch

from edgerecover.artifacts import InputSpec
from edgerecover.models.network.examples import example_images


def test_examples_are_pixels_none_of_them_flat_and_always_the_same():
    input = InputSpec((3, 9, 7), (0.2, 0.5, 0.7), (0.25, 0.5, 1.0))
    images_NCHW = example_images(input, 4)
    assert images_NCHW.shape == (4, 3, 9, 7)
    low, high = (torch.tensor(bound).view(1, 3, 1, 1) for bound in input.bounds())
    assert bool(((images_NCHW >= low) & (images_NCHW <= high)).all())
    assert float(images_NCHW.std((1, 2, 3)).min()) > 0.1
    assert not torch.equal(images_NCHW[0], images_NCHW[1])
    assert torch.equal(images_NCHW, example_images(input, 4))


def test_images_of_one_pixel_are_examples_too():
    assert example_images(InputSpec((4, 1, 1), (0.0,) * 4, (1.0,) * 4), 2).shape == (2, 4, 1, 1)
