import io

import numpy as np
import pytest
from PIL import Image

from edgerecover.artifacts import Sheet
from edgerecover.report.picture import contact_sheet, strips
from edgerecover.synthesis.image_set import ImageSet, PixelScale, write_shard


@pytest.fixture
def image_set(tmp_path):
    def image_set(bytes_NCHW, targets=()):
        shard = write_shard(tmp_path, "train-00000", bytes_NCHW, targets, 0, 1.0)
        channels = bytes_NCHW.shape[1]
        return ImageSet(tmp_path, PixelScale((0.0,) * channels, (1.0,) * channels), (shard,))

    return image_set


def sheet(images):
    picture = Image.open(io.BytesIO(contact_sheet(images)[0]))
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
    by_class = image_set(many, targets=tuple(i % 10 for i in range(250)))
    assert sheet(by_class).shape == (2 + 10 * 72, 2 + 10 * 82, 3)


def test_more_than_ten_classes_share_the_places(image_set):
    many = np.zeros((1000, 3, 70, 80), np.uint8)
    _, twelve = contact_sheet(image_set(many, targets=tuple(i % 12 for i in range(1000))))
    assert twelve.classes[:96] == tuple(number for number in range(12) for _ in range(8))
    assert set(twelve.classes[96:]) == {-1}
    _, thousand = contact_sheet(image_set(many, targets=tuple(range(1000))))
    assert thousand.classes == tuple(range(0, 1000, 10))


def test_large_images_are_made_smaller(image_set):
    pixels = sheet(image_set(np.full((3, 3, 448, 224), 77, np.uint8)))
    assert pixels.shape == (2 + 98, 2 + 3 * 50, 3)
    assert tuple(pixels[50, 25]) == (77, 77, 77)


def test_strips_hold_the_images_of_their_class(image_set):
    colours = [(200, 0, 0), (0, 150, 0), (210, 0, 0), (0, 160, 0), (0, 170, 0)]
    png, described = contact_sheet(image_set(flat(colours), targets=(3, 1, 3, 1, 1)))
    cut = {strip.class_number: strip for strip in strips(png, described, 100_000)}
    assert list(cut) == [1, 3]
    for number, wanted in ((1, [colours[1], colours[3], colours[4]]), (3, [colours[0], colours[2]])):
        strip = cut[number]
        picture = Image.open(io.BytesIO(strip.content)).convert("RGB")
        assert picture.size == (strip.width_px, strip.height_px) == (66 * len(wanted) - 2, 64)
        assert [picture.getpixel((66 * place + 32, 32)) for place in range(len(wanted))] == wanted
        assert (strip.num_images, strip.media_type) == (len(wanted), "image/png")


def test_strips_keep_to_their_bytes(image_set):
    noise = np.random.default_rng(0).integers(0, 256, (40, 3, 64, 64), np.uint8)
    png, described = contact_sheet(image_set(noise, targets=tuple(i % 20 for i in range(40))))
    sizes = {}
    for limit in (1_000_000, 150_000, 60_000, 100):
        cut = strips(png, described, limit)
        assert sum(len(strip.content) for strip in cut) <= limit
        sizes[limit] = (len(cut), {strip.media_type for strip in cut})
    assert sizes[1_000_000] == (20, {"image/png"})
    assert sizes[150_000] == (20, {"image/jpeg"})
    assert 0 < sizes[60_000][0] < 20
    assert sizes[100] == (0, set())


def test_a_sheet_that_is_not_as_described_is_refused(image_set):
    png, described = contact_sheet(image_set(flat([(90, 90, 90)] * 3), targets=(0, 1, 2)))
    wrong = [
        (png, Sheet("dreams.png", 0, 64, 64, 2, (0, 1, 2))),
        (png, Sheet("dreams.png", 1, 64, -64, 2, (0, 1, 2))),
        (png, Sheet("dreams.png", 1, 64, 64, 2, (0, -2, 2))),
        (png, Sheet("dreams.png", 2, 64, 64, 2, (0, 1, 2))),
        (png[:60], described),
        (b"GIF89a", described),
        (b"", described),
    ]
    for content, sheet_described in wrong:
        with pytest.raises(ValueError, match=r"dreams\.png"):
            strips(content, sheet_described, 100_000)
