"""Folders of images for tasks beyond one label."""

import numpy as np
import pytest
from PIL import Image

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.evaluation import read_eval_data

GREY = InputSpec((1, 4, 4), (0.0,), (1.0,), (0.0, 255.0))
BINARY = OutputSpec(TaskKind.BINARY, (1,))
LABELS = OutputSpec(TaskKind.MULTI_LABEL, (2,))
EMBEDDING = OutputSpec(TaskKind.EMBEDDING, (16,))
VALUES = OutputSpec(TaskKind.REGRESSION, (1,))


@pytest.fixture
def folder(tmp_path):
    """Where `picture` puts an image of one shade."""
    (tmp_path / "real").mkdir()
    return tmp_path / "real"


def picture(file, shade=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), shade).save(file)


def shades(data):
    return [int(images[0, 0, 0, 0]) for images, _ in data.batches(1)]


def refused(folder, output, classes=None):
    with pytest.raises(BadInputError) as caught:
        read_eval_data(folder, GREY, output, classes)
    assert str(folder) in str(caught.value)
    return str(caught.value).replace(str(folder), "real"), caught.value.hint


# --- class folders


def test_two_folders_are_no_and_yes(folder):
    picture(folder / "broken" / "1.png", 1)
    picture(folder / "good" / "1.png", 2)
    data = read_eval_data(folder, GREY, BINARY)
    assert data.labels.tolist() == [0, 1]
    assert data.notes[0].startswith("real: 'broken' is taken as 0 (no) and 'good' as 1 (yes)")
    data = read_eval_data(folder, GREY, BINARY, ["good", "broken"])
    assert (data.labels.tolist(), shades(data), data.notes) == ([0, 1], [2, 1], ())


def test_a_third_folder_is_refused(folder):
    for name in "abc":
        picture(folder / name / "1.png")
    assert refused(folder, BINARY)[0] == "images real: 3 class subfolders, but the model has 2 classes"


def test_folders_of_an_embedding_are_any_number(folder):
    for name in ("anna/1", "anna/2", "ben/1", "ben/2", "carl/1"):
        picture(folder / f"{name}.png")
    data = read_eval_data(folder, GREY, EMBEDDING)
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    assert data.notes == ("real: 1 of 5 images are the only one of their label, and count as wrong",)


def test_images_without_folders_say_nothing_to_an_embedding(folder):
    picture(folder / "1.png")
    message, hint = refused(folder, EMBEDDING)
    assert message == "images real: one folder for each label was expected, found 1.png"
    assert "anna/1.jpg, anna/2.jpg, ben/1.jpg" in hint
    picture(folder / "anna" / "1.png")
    picture(folder / "anna" / "2.png")
    assert "their 2 labels are all alike" in refused(folder, EMBEDDING)[0]


# --- tables


def table(folder, text, pictures=("a.png", "b.png")):
    for number, name in enumerate(pictures):
        picture(folder / name, number + 1)
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "text", ["file,cat,dog\nb.png,0,1\na.png,1,1\n", "\ufefffile, cat, dog\r\n\r\nb.png, 0 ,1\r\n./a.png,1,1"]
)
def test_a_table_has_labels_for_each_file(folder, text):
    data = read_eval_data(table(folder, text), GREY, LABELS)
    assert data.labels.tolist() == [[0, 1], [1, 1]]
    assert shades(data) == [2, 1]
    assert data.notes == ()


def test_columns_are_matched_by_name(folder):
    table(folder, "file,dog,cat\na.png,1,0\n", ["a.png"])
    assert read_eval_data(folder, GREY, LABELS, ["cat", "dog"]).labels.tolist() == [[0, 1]]
    message, hint = refused(folder, LABELS, ["cat", "cow"])
    assert message == "images real/labels.csv: 'dog' is no label of the model; they are cat, cow"
    assert "`classes` in model.toml" in hint


def test_columns_of_one_name_are_refused(folder):
    table(folder, "file,cat,cat\na.png,1,0\n", ["a.png"])
    assert refused(folder, LABELS, ["cat", "dog"])[0] == "images real/labels.csv: two columns have one name"


def test_a_table_of_values(folder):
    data = read_eval_data(
        table(folder, "name,width\nsub/a.png,-2.5e-1\nb.png,3\n", ["sub/a.png", "b.png"]), GREY, VALUES
    )
    assert data.labels.tolist() == [[-0.25], [3]]
    assert shades(data) == [1, 2]


def test_images_that_the_table_does_not_name_are_told(folder):
    data = read_eval_data(table(folder, "file,width\nb.png,3\n"), GREY, VALUES)
    assert shades(data) == [2]
    assert data.notes == ("real: not read, because labels.csv does not name them: a.png",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the first line should name the columns, found ''"),
        ("a.png,1\nb.png,2\n", "the first line should name the columns, found 'a.png,1'"),
        ("file;width\na.png;1\n", "the first line should name the columns, found 'file;width'"),
        ("file,width\n", "there are no lines below the first"),
        ("file,width\na.png,1,2\n", "line 2 has 3 cells, but the first line 2"),
        ("file,width\na.png,1\nc.png,1\n", "line 3 names 'c.png', and there is no such file in real"),
        ("file,width\na.png,wide\n", "line 2 has 'wide' where a number should be"),
        ("file,width\na.png,nan\n", "line 2 has 'nan' where a number should be"),
        ("file,width\na.png,1\na.png,2\n", "a.png is named twice"),
        ("file,width,height\na.png,1,2\n", "2 columns beside the file's name, but the network has 1 values"),
    ],
)
def test_a_table_that_cannot_be_read_is_bad_input(folder, text, says):
    assert refused(table(folder, text), VALUES)[0] == f"images real/labels.csv: {says}"


def test_lines_are_counted_with_empty_ones(folder):
    assert "line 4 has 'x'" in refused(table(folder, "file,width\n\na.png,1\nb.png,x\n"), VALUES)[0]


def test_labels_in_a_table_are_0_and_1(folder):
    message, hint = refused(table(folder, "file,cat,dog\na.png,0,2\n"), LABELS)
    assert message.startswith("images real/labels.csv: labels (N, 2) of 0 and 1 were expected, found float64 (1, 2)")
    assert "`a.png,0,1`" in hint


@pytest.mark.parametrize(
    "content",
    [
        b"file,width\na.png,\xff\xfe\n",
        b"file,width\n\x00",
        b"x" * 5000 + b",width\n",
        b"file,width\n" + b"x" * 5000 + b",1",
    ],
)
def test_a_table_of_hostile_bytes(folder, content):
    picture(folder / "a.png")
    (folder / "labels.csv").write_bytes(content)
    with pytest.raises(BadInputError, match=r"labels\.csv"):
        read_eval_data(folder, GREY, VALUES)


@pytest.mark.parametrize("output", [LABELS, VALUES])
def test_class_folders_are_no_table(folder, output):
    for name in "abcdefg":
        picture(folder / name / "1.png")
    message, hint = refused(folder, output)
    assert message == "images real: a file labels.csv was expected, found a, b, c, d and 3 more"
    assert "labels.csv: `file," in hint


def test_a_file_in_the_table_that_is_no_image(folder):
    table(folder, "file,width\na.png,1\nlabels.csv,2\n")
    with pytest.raises(BadInputError, match="cannot be decoded as an image"):
        read_eval_data(folder, GREY, VALUES)


def test_an_array_of_images_is_what_other_numbers_of_channels_need(folder):
    with pytest.raises(BadInputError, match="1 or 3 channels"):
        read_eval_data(folder, InputSpec((2, 4, 4), (0.0,) * 2, (1.0,) * 2), VALUES)


def test_values_of_a_table_are_what_numpy_reads(folder):
    data = read_eval_data(table(folder, "file,width\na.png,0.1\nb.png,1e300\n"), GREY, VALUES)
    np.testing.assert_array_equal(data.labels, [[0.1], [1e300]])
