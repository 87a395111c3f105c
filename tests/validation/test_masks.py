"""Folders of images with a class map for each."""

import numpy as np
import pytest
from PIL import Image

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.evaluation import read_eval_data

GREY = InputSpec((1, 4, 6), (0.0,), (1.0,), (0.0, 255.0))
MAPS = OutputSpec(TaskKind.SEGMENTATION, (3, 4, 6))
CLASSES = (np.arange(24).reshape(4, 6) % 3).astype(np.uint8)
SHADES = (CLASSES * 100).astype(np.uint8)
TURN_TO_PORTRAIT = 6


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "real" / name).mkdir(parents=True)
    return tmp_path / "real"


def put(folder, image=SHADES, mask=CLASSES, name="a", suffix=".png"):
    for part, pixels, end in (("images", image, suffix), ("masks", mask, ".png")):
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / part / f"{name}{end}")
    return folder


def refused(folder, output=MAPS):
    with pytest.raises(BadInputError) as caught:
        read_eval_data(folder, GREY, output)
    assert caught.value.hint
    return str(caught.value).replace(str(folder), "real"), caught.value.hint


def test_every_image_has_the_map_of_its_name(folder):
    put(folder, name="b", suffix=".bmp")
    put(folder, 200 - SHADES, 2 - CLASSES, name="sub/a")
    data = read_eval_data(folder, GREY, MAPS)
    ((images, maps),) = data.batches(8)
    np.testing.assert_array_equal(maps, [CLASSES, 2 - CLASSES])
    np.testing.assert_array_equal(images[:, 0] // 100, maps)
    assert data.notes == ()


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_grey_and_palettes_hold_class_numbers(folder, mode):
    if mode == "P":
        mask = Image.fromarray(CLASSES)
        mask = mask.convert("P")
        mask.putdata(CLASSES.ravel().tolist())
        mask.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    else:
        mask = Image.fromarray(CLASSES.astype(np.uint16) if mode == "I;16" else CLASSES)
    put(folder, mask=mask)
    with Image.open(folder / "masks" / "a.png") as stored:
        assert stored.mode == mode
    np.testing.assert_array_equal(read_eval_data(folder, GREY, MAPS).labels, [CLASSES])


def test_one_bit_is_two_classes(folder):
    put(folder, mask=Image.fromarray(CLASSES == 1))
    output = OutputSpec(TaskKind.SEGMENTATION, (1, 4, 6))
    np.testing.assert_array_equal(read_eval_data(folder, GREY, output).labels, [CLASSES == 1])


def test_more_classes_than_a_byte_holds(folder):
    put(folder, mask=CLASSES.astype(np.uint16) + 280)
    output = OutputSpec(TaskKind.SEGMENTATION, (300, 4, 6))
    np.testing.assert_array_equal(read_eval_data(folder, GREY, output).labels, [CLASSES.astype(int) + 280])


def test_a_map_is_cropped_as_its_image_is_and_no_class_is_invented(folder):
    fine = np.zeros((60, 90), np.uint8)
    fine[20:40, 30:70] = 2
    put(folder, fine * 100, fine)
    ((images, maps),) = read_eval_data(
        folder, InputSpec((1, 40, 60), (0.0,), (1.0,), (0.0, 255.0)), OutputSpec(TaskKind.SEGMENTATION, (3, 40, 60))
    ).batches(1)
    assert set(np.unique(maps).tolist()) == {0, 2}
    assert ((images[0, 0] > 100) == (maps[0] == 2)).mean() > 0.97


def test_maps_are_resized_to_those_of_the_network(folder):
    coarse = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    put(folder, mask=coarse.repeat(2, 0).repeat(2, 1))
    output = OutputSpec(TaskKind.SEGMENTATION, (3, 2, 3))
    np.testing.assert_array_equal(read_eval_data(folder, GREY, output).labels, [coarse])


def test_a_photo_on_its_side_has_a_map_that_is_upright_already(folder):
    exif = Image.Exif()
    exif[0x0112] = TURN_TO_PORTRAIT
    put(folder, Image.fromarray(np.rot90(SHADES)))
    Image.fromarray(np.rot90(SHADES)).save(folder / "images" / "a.png", exif=exif)
    ((images, maps),) = read_eval_data(folder, GREY, MAPS).batches(1)
    np.testing.assert_array_equal(images[0, 0] // 100, maps[0])


def test_maps_without_images_are_told(folder):
    put(folder)
    Image.fromarray(CLASSES).save(folder / "masks" / "z.png")
    assert read_eval_data(folder, GREY, MAPS).notes == ("real: class maps without an image were left out: masks/z.png",)


def test_an_image_without_a_map_is_refused(folder):
    put(folder)
    Image.fromarray(SHADES).save(folder / "images" / "b.png")
    assert refused(folder)[0] == "images real: no class map in masks for images/b.png"


def test_a_map_of_another_size_is_refused(folder):
    put(folder, mask=CLASSES[:3])
    assert refused(folder)[0] == "image real/masks/a.png: 6 × 3, but its image is 6 × 4"


def test_colours_are_no_class_numbers(folder):
    put(folder, mask=np.zeros((4, 6, 3), np.uint8))
    message, hint = refused(folder)
    assert message.startswith(
        "image real/masks/a.png: class numbers were expected, grey or with a palette, found colours"
    )
    assert "the number of its class" in hint


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (CLASSES + 1, "images real: class numbers from 0 to 2 were expected, found 3 too"),
        (
            CLASSES.astype(np.uint16) + 300,
            "images real/masks/a.png: class numbers from 0 to 2 were expected",
        ),
        (np.full((4, 6), 255, np.uint8), "images real: all pixels of 1 class maps are ignored"),
    ],
)
def test_numbers_beyond_the_classes_are_refused(folder, mask, says):
    assert refused(put(folder, mask=mask))[0].startswith(says)


def test_other_layouts_are_refused(tmp_path):
    (tmp_path / "real" / "cats").mkdir(parents=True)
    message, hint = refused(tmp_path / "real")
    assert message == "images real: the folders images and masks were expected, found cats"
    assert "images/a.jpg and masks/a.png" in hint
    for name in ("images", "masks"):
        (tmp_path / "real" / name).mkdir()
    assert refused(tmp_path / "real")[0] == "images real: images holds no images"


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_damaged_file_is_named(folder, part):
    put(folder)
    (folder / part / "a.png").write_bytes(b"no image")
    assert f"image real/{part}/a.png: cannot be decoded" in refused(folder)[0]


def test_more_maps_than_memory_should_hold(folder, monkeypatch):
    monkeypatch.setattr("edgerecover.validation.masks.MAX_BYTES", 20)
    assert "1 class maps of 4 × 6 take more than" in refused(put(folder))[0]
