import io

import numpy as np
import pytest
from PIL import Image

from edgerecover.report.picture import contact_sheet
from edgerecover.synthesize.image_set import ImageSet, PixelScale, write_shard


@pytest.fixture
def image_set(tmp_path):
    def image_set(bytes_NCHW, targets=()):
        shard = write_shard(tmp_path, "train-00000", bytes_NCHW, targets, 0, 1.0)
        channels = bytes_NCHW.shape[1]
        return ImageSet(tmp_path, PixelScale((0.0,) * channels, (1.0,) * channels), (shard,))

    return image_set


def sheet(images):
    picture = Image.open(io.BytesIO(contact_sheet(images)))
    picture.load()
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    return np.asarray(picture)


def flat(colours):
    """8×8 images of one colour each."""
    return np.broadcast_to(np.array(colours, np.uint8)[:, :, None, None], (len(colours), len(colours[0]), 8, 8)).copy()


def test_a_row_per_class_with_small_images_enlarged(image_set):
    colours = [(200, 0, 0), (0, 150, 0), (210, 0, 0), (0, 160, 0), (0, 170, 0)]
    pixels = sheet(image_set(flat(colours), targets=(0, 1, 0, 1, 1)))
    assert pixels.shape == (2 + 2 * 66, 2 + 3 * 66, 3)
    centres = [[tuple(pixels[2 + 66 * row + 32, 2 + 66 * column + 32]) for column in range(3)] for row in range(2)]
    white = (255, 255, 255)
    assert centres == [[colours[0], colours[2], white], [colours[1], colours[3], colours[4]]]


@pytest.mark.parametrize("channels", [1, 2])
def test_fewer_than_three_channels_are_grey(image_set, channels):
    pixels = sheet(image_set(flat([(90,) * channels])))
    assert pixels.shape == (2 + 66, 2 + 66, 3)
    assert tuple(pixels[30, 30]) == (90, 90, 90)


def test_at_most_ten_rows_of_ten(image_set):
    many = np.zeros((250, 4, 70, 80), np.uint8)
    assert sheet(image_set(many)).shape == (2 + 10 * 72, 2 + 10 * 82, 3)
    by_class = image_set(many, targets=tuple(i % 12 for i in range(250)))
    assert sheet(by_class).shape == (2 + 10 * 72, 2 + 10 * 82, 3)
