"""What real images come with, in arrays: for each task what is read, and what is said of anything else."""

import numpy as np
import pytest

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.evaluation import LabelledArrays, read_eval_data

RGB = InputSpec((3, 4, 5), (0.0,) * 3, (1.0,) * 3)
BINARY = OutputSpec(TaskKind.BINARY, (1,))
LABELS = OutputSpec(TaskKind.MULTI_LABEL, (3,))
EMBEDDING = OutputSpec(TaskKind.EMBEDDING, (16,))
VALUES = OutputSpec(TaskKind.REGRESSION, (2,))
DEPTH = OutputSpec(TaskKind.REGRESSION, (1, 4, 5))
MAPS = OutputSpec(TaskKind.SEGMENTATION, (3, 4, 5))
MASKS = OutputSpec(TaskKind.SEGMENTATION, (1, 4, 5))


def read(labels, output, classes=None):
    labels = np.asarray(labels)
    images = np.zeros((len(labels), 4, 5, 3), np.uint8)
    return read_eval_data(LabelledArrays(images, labels), RGB, output, classes)


def refused(labels, output, classes=None):
    with pytest.raises(BadInputError) as caught:
        read(labels, output, classes)
    assert str(caught.value).startswith("images in memory: ")
    assert caught.value.hint
    return str(caught.value), caught.value.hint


# --- yes or no


@pytest.mark.parametrize(
    "labels", [[1, 0, 1], [[1], [0], [1]], [True, False, True], [1.0, 0, 1], [[0, 1], [1, 0], [0, 1]]]
)
def test_yes_or_no_is_one_number(labels):
    assert read(labels, BINARY).labels.tolist() == [1, 0, 1]


def test_yes_or_no_by_name():
    assert read(["good", "broken", "good"], BINARY, ["broken", "good"]).labels.tolist() == [1, 0, 1]


def test_a_third_answer_is_refused():
    assert "labels from 0 to 2, but the model has 2 classes" in refused([0, 1, 2], BINARY)[0]


# --- several labels


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32, np.uint8])
def test_sets_of_labels_are_rows_of_0_and_1(kind):
    rows = [[1, 0, 1], [0, 0, 0]]
    data = read(np.array(rows, kind), LABELS)
    assert data.labels.tolist() == rows
    ((_, labels),) = data.batches(8)
    assert labels.tolist() == rows


def test_one_label_may_be_a_column():
    assert read([1, 0], OutputSpec(TaskKind.MULTI_LABEL, (1,))).labels.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([2, 0, 1], r"found int64 (3,) from 0 to 2"),
        ([[0, 1]], "found int64 (1, 2) from 0 to 1"),
        ([[0, 1, 2]], "found int64 (1, 3) from 0 to 2"),
        ([[0, 1, 0.5]], "found float64 (1, 3) from 0 to 1"),
        ([[0, 1, np.nan]], "found float64 (1, 3) from nan to nan"),
        ([["a", "b", "c"]], "found <U1 (1, 3)"),
    ],
)
def test_what_is_no_set_of_labels(labels, found):
    message, hint = refused(labels, LABELS)
    assert message == f"images in memory: labels (N, 3) of 0 and 1 were expected, {found}"
    assert "labels.csv: `file,cat,dog`, then `a.png,0,1`" in hint


# --- embeddings


@pytest.mark.parametrize("labels", [[7, 7, -3], ["anna", "anna", "ben"], [[7], [7], [5]], [7.0, 7, 5]])
def test_any_numbers_or_names_say_what_belongs_together(labels):
    data = read(labels, EMBEDDING)
    assert (data.labels[0], data.labels[0] != data.labels[2]) == (data.labels[1], True)
    assert data.notes == ("images in memory: 1 of 3 images are the only one of their label, and count as wrong",)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([3, 3, 3], "their 3 labels are all alike"),
        ([1, 2, 3], "their 3 labels are all different"),
        ([[1, 2], [1, 2]], "one number or name for each image (N,) were expected, found int64 (2, 2) from 1 to 2"),
        ([0.5, 0.5, 1], "found float64 (3,) from 0.5 to 1"),
    ],
)
def test_labels_that_no_neighbour_can_meet(labels, says):
    assert says in refused(labels, EMBEDDING)[0]


# --- numbers


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_values_are_rows_of_numbers(kind):
    data = read(np.array([[1, 2], [3, -4]], kind), VALUES)
    assert data.labels.tolist() == [[1, 2], [3, -4]]
    assert data.labels.dtype == np.float64


def test_one_value_may_be_in_a_column():
    assert read([0.5, 2], OutputSpec(TaskKind.REGRESSION, (1,))).labels.tolist() == [[0.5], [2]]


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 1, 4, 5), (2, 20)])
def test_a_map_of_values_may_lack_its_axis(shape):
    data = read(np.arange(40.0).reshape(shape), DEPTH)
    assert data.labels.shape == (2, 20)
    assert data.labels[1, 0] == 20


def test_maps_of_values_come_in_arrays(tmp_path):
    message, hint = refused(np.zeros((2, 5, 4)), DEPTH)
    assert message.startswith("images in memory: labels (N, 1, 4, 5) of finite numbers were expected")
    assert hint == "a network of maps of values reads an .npz with labels (N, 1, 4, 5) of numbers"
    with pytest.raises(BadInputError, match=r"an \.npz was expected, found nothing"):
        read_eval_data(tmp_path, RGB, DEPTH, None)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0.5, 2], "found float64 (2,) from 0.5 to 2"),
        ([[1, 2, 3]], "found int64 (1, 3) from 1 to 3"),
        ([[1, np.inf]], "found float64 (1, 2) from 1 to inf"),
        ([["1", "2"]], "found <U1 (1, 2)"),
    ],
)
def test_what_are_no_values(labels, found):
    message, hint = refused(labels, VALUES)
    assert message == f"images in memory: labels (N, 2) of finite numbers were expected, {found}"
    assert "`file,width`, then `a.png,0.25`" in hint


# --- class maps

CLASSES = np.arange(40).reshape(2, 4, 5) % 3


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("axis", [None, 1, 3])
def test_class_maps_are_numbers_at_pixels(kind, axis):
    stored = CLASSES.astype(kind)
    data = read(stored if axis is None else np.expand_dims(stored, axis), MAPS)
    np.testing.assert_array_equal(data.labels, CLASSES)
    assert data.labels.dtype == np.uint8
    ((_, labels),) = data.batches(8)
    assert labels.shape == (2, 4, 5)


def test_ignored_pixels_are_255_whatever_they_were():
    stored = CLASSES.copy()
    stored[0, 0, :2] = -1, 255
    assert read(stored, MAPS).labels[0, 0, :3].tolist() == [255, 255, 2]


def test_with_more_classes_255_is_one_of_them():
    output = OutputSpec(TaskKind.SEGMENTATION, (300, 4, 5))
    stored = CLASSES.copy()
    stored[0, 0] = -1, 255, 299, 256, 0
    assert read(stored, output).labels[0, 0].tolist() == [-1, 255, 299, 256, 0]


@pytest.mark.parametrize("output", [MASKS, OutputSpec(TaskKind.SEGMENTATION, (2, 4, 5))])
def test_a_mask_of_two_classes_may_be_black_and_white(output):
    assert read(CLASSES % 2 * 255, output).labels.tolist() == (CLASSES % 2).tolist()
    assert read(CLASSES % 2 == 1, output).labels.tolist() == (CLASSES % 2).tolist()
    mixed = CLASSES % 2
    mixed[0, 0, 0] = 255
    assert read(mixed, output).labels[0, 0].tolist() == [255, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1], "labels (N, 4, 5) of class numbers were expected, found int64 (2,) from 0 to 1"),
        (np.zeros((2, 5, 4), int), "labels (N, 4, 5) of class numbers were expected, found int64 (2, 5, 4)"),
        (CLASSES + 1, "class numbers from 0 to 2 were expected, found 3 too"),
        (CLASSES + 0.5, "class numbers from 0 to 2 were expected, found 0.5, 1.5, 2.5 too"),
        (np.full((2, 4, 5), np.nan), "found nan too"),
        (np.arange(40).reshape(2, 4, 5), "found 3, 4, 5, 6 and 33 more too"),
        (np.array([CLASSES[0], np.full((4, 5), 255)]), "all pixels of 1 class maps are ignored, that of image 1"),
    ],
)
def test_what_are_no_class_maps(labels, says):
    assert says in refused(labels, MAPS)[0]


# --- all


@pytest.mark.parametrize(
    ("output", "shape"), [(BINARY, ()), (LABELS, (3,)), (EMBEDDING, ()), (VALUES, (2,)), (MAPS, (4, 5))]
)
def test_there_is_a_label_for_each_image(output, shape):
    labels = np.ones((3, *shape), int)
    with pytest.raises(BadInputError, match="2 images but 3 labels"):
        read_eval_data(LabelledArrays(np.zeros((2, 4, 5, 3), np.uint8), labels), RGB, output)
    with pytest.raises(BadInputError, match="expected, found int64"):
        read_eval_data(LabelledArrays(np.zeros((2, 4, 5, 3), np.uint8), np.int64(3)), RGB, output)


@pytest.mark.parametrize("key", ["labels", "targets", "masks"])
def test_a_sample_keeps_images_and_truth_together(tmp_path, key):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(5, 2).repeat(3, 3)
    np.savez(tmp_path / "d.npz", images=images, **{key: np.arange(12).reshape(6, 2) / 2})
    chosen = read_eval_data(tmp_path / "d.npz", RGB, VALUES).sample(3)
    ((images_NCHW, values_ND),) = chosen.batches(8)
    np.testing.assert_allclose(images_NCHW[:, 0, 0, 0] * 255, values_ND[:, 0], atol=1e-4)


# --- boxes


BOXES = OutputSpec(TaskKind.DETECTION, (7, 50))
A_BOX, NOTHING = [2, 0, 1, 3, 4], [-1] * 5


def test_boxes_are_rows_and_rows_that_are_left_are_none():
    read_labels = read([[A_BOX, NOTHING], [[np.nan] * 5, [-1, 3, 3, 0, 0]]], BOXES).labels
    assert read_labels.tolist() == [[A_BOX, NOTHING], [NOTHING, NOTHING]]
    assert read(np.zeros((2, 0, 5)), BOXES).labels.shape == (2, 0, 5)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([[1, 2], [3, 4]], r"labels (N, M, 5) of class, left, top, right and bottom were expected, found int64 (2, 2)"),
        ([[[1, 2, 3, 4]]], "were expected, found int64 (1, 1, 4) from 1 to 4"),
        ([[[3, 0, 1, 3, 4]]], "class numbers from 0 to 2 were expected, found 3 too"),
        ([[[0.5, 0, 1, 3, 4]]], "found 0.5 too"),
        ([[A_BOX, [1, 3, 3, 1, 2]]], "a box should end right of and below where it begins, found 1, 3, 3, 1, 2"),
        ([[[1, 0.1, 0.1, 0.6, 0.9]]], "they look like fractions of the image"),
        ([[[1, np.nan, 0.1, 3, 4]]], "numbers of a box are not finite"),
    ],
)
def test_what_is_no_boxes_is_named_with_an_example(labels, found):
    message, hint = refused(labels, BOXES)
    assert found in message
    assert "an .npz with labels (N, M, 5) of class, left, top, right and bottom in pixels" in hint
