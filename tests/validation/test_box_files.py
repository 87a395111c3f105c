"""Folders of images with a file of boxes for each."""

import numpy as np
import pytest
from PIL import Image

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.evaluation import read_eval_data

RGB = InputSpec((3, 224, 224), (0.0,) * 3, (1.0,) * 3)
BOXES = OutputSpec(TaskKind.DETECTION, (6, 100))


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / "real" / name).mkdir(parents=True)
    return tmp_path / "real"


def put(folder, lines, name="a", size=(224, 224)):
    (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(folder / "images" / f"{name}.png")
    if lines is not None:
        (folder / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "labels" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def refused(folder):
    with pytest.raises(BadInputError) as caught:
        read_eval_data(folder, RGB, BOXES)
    assert "images/a.jpg and labels/a.txt" in caught.value.hint
    return str(caught.value).replace(str(folder), "real")


def test_lines_are_fractions_of_the_image(folder):
    put(folder, ["1 0.5 0.25 0.5 0.125", "", "0 0.5 0.5 1 1"])
    put(folder, [], "sub/b")
    data = read_eval_data(folder, RGB, BOXES)
    np.testing.assert_allclose(data.labels[0], [[1, 56, 42, 168, 70], [0, 0, 0, 224, 224]])
    assert (data.labels[1, :, 0] == -1).all()
    assert data.notes == ()


def test_boxes_are_cropped_as_their_image_is(folder):
    # Resized to 512 × 256; of that, 144 to 368 across and 16 to 240 down are left.
    put(folder, ["0 0.5 0.5 0.25 0.5", "1 0.28 0.5 0.1 0.5", "1 0.1 0.5 0.1 0.5"], size=(1024, 512))
    data = read_eval_data(folder, RGB, BOXES)
    assert data.labels.shape == (1, 1, 5)
    np.testing.assert_allclose(data.labels[0], [[0, 48, 48, 176, 176]])
    assert data.notes[0] == "real: 2 boxes of which the crop leaves less than half were left out"


def test_what_is_drawn_at_a_box_is_seen_in_it(folder):
    image = np.zeros((300, 500, 3), np.uint8)
    image[100:200, 200:300] = 255
    put(folder, ["0 0.5 0.5 0.2 0.3333333"], size=(500, 300))
    Image.fromarray(image).save(folder / "images" / "a.png")
    data = read_eval_data(folder, RGB, BOXES)
    ((images, labels),) = data.batches(1)
    _, left, top, right, bottom = labels[0, 0].round().astype(int)
    assert images[0, 0, top + 1 : bottom - 1, left + 1 : right - 1].min() > 0.9
    assert images[0, 0].sum() == pytest.approx((right - left) * (bottom - top), rel=0.02)


def test_images_without_a_file_show_no_object(folder):
    put(folder, ["0 0.5 0.5 0.25 0.5"])
    put(folder, None, "b")
    data = read_eval_data(folder, RGB, BOXES)
    assert data.labels[:, :, 0].tolist() == [[0], [-1]]
    assert data.notes == ("real: images without a file in labels show no object: images/b.png",)


@pytest.mark.parametrize(
    "line",
    ["0 0.5 0.5 0.2", "0 10 20 30 40", "cat 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2 0", "0 nan 0.5 0.2 0.2", "-1 .5 .5 .2 .2"],
)
def test_a_line_that_is_no_box_is_named(folder, line):
    message = refused(put(folder, ["0 0.5 0.5 0.2 0.2", line]))
    assert f"line 2 should be a class number and four fractions from 0 to 1, found '{line}'" in message


@pytest.mark.parametrize("number", ["2", "0.5"])
def test_a_class_of_another_network_is_named(folder, number):
    assert f"class numbers from 0 to 1 were expected, found {number} too" in refused(
        put(folder, [f"{number} 0.5 0.5 0.2 0.2"])
    )


def test_another_layout_is_named(folder):
    put(folder, None)
    assert "no file in labels is named as an image is, images/a.png" in refused(folder)
    (folder / "labels").rmdir()
    assert "the folders images and labels were expected, found images" in refused(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    put(folder, [])
    (folder / "labels" / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in refused(folder)
