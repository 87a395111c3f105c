import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from edgerecover.artifacts import InputSpec, OutputPart, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.evaluation import LabelledArrays, read_eval_data

RGB = InputSpec((3, 8, 6), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
GREY = InputSpec((1, 8, 8), (0.0,), (1.0,), (0.0, 255.0))


def of(num_classes):
    return OutputSpec(TaskKind.ONE_LABEL, (num_classes,))


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def everything(data, batch_size=4):
    batches = list(data.batches(batch_size))
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


# --- npz


@pytest.mark.parametrize(
    "keys", [("images", "labels"), ("x", "y"), ("x_test", "y_test"), ("test_images", "test_labels")]
)
@pytest.mark.parametrize("channels_first", [False, True])
def test_pixels_are_normalised_as_torchvision_does(tmp_path, keys, channels_first):
    images = pixels(10, 8, 6, 3)
    labels = np.arange(10, dtype=np.uint8).reshape(10, 1)
    stored = images.transpose(0, 3, 1, 2) if channels_first else images
    data = read_eval_data(write_npz(tmp_path / "d.npz", **{keys[0]: stored, keys[1]: labels}), RGB, of(10))
    found, found_labels = everything(data)
    normalize = v2.Normalize(RGB.mean, RGB.std)
    expected = normalize(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    assert found.flags["C_CONTIGUOUS"]
    assert found_labels.tolist() == list(range(10))
    assert (len(data), data.source) == (10, "d.npz")


@pytest.mark.parametrize(
    "labels",
    [
        np.eye(3)[[2, 0, 1]],
        np.eye(3, dtype=bool)[[2, 0, 1]],
        np.array([2.0, 0.0, 1.0]),
        np.array(["eel", "ant", "cat"]),
    ],
)
def test_labels_that_say_a_class_each(tmp_path, labels):
    path = write_npz(tmp_path / "d.npz", images=pixels(3, 8, 8), labels=labels)
    assert read_eval_data(path, GREY, of(3), ["ant", "cat", "eel"]).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "labels", [np.ones((3, 3)), np.array([2.5, 0.0, 1.0]), np.array(["eel", "ant", "dog"]), np.array([np.nan, 0, 1])]
)
def test_labels_that_do_not(tmp_path, labels):
    path = write_npz(tmp_path / "d.npz", images=pixels(3, 8, 8), labels=labels)
    with pytest.raises(BadInputError, match=r"integer labels of shape \(N,\) were expected"):
        read_eval_data(path, GREY, of(3), ["ant", "cat", "eel"])


def test_one_channel_needs_no_channel_axis_and_raw_bytes_stay_raw(tmp_path):
    images = pixels(3, 8, 8)
    found, _ = everything(
        read_eval_data(write_npz(tmp_path / "d.npz", images=images, labels=np.zeros(3, int)), GREY, of(2))
    )
    np.testing.assert_array_equal(found[:, 0], images)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (lambda pixels: pixels.astype(np.uint16) * 257, "uint16 from 0 to 65535: 65,535 is white"),
        (lambda pixels: pixels.astype(np.uint16), "uint16 from 0 to 255: 255 is white"),
        (lambda pixels: pixels.astype(np.int64), "int64 from 0 to 255: 255 is white"),
        (lambda pixels: (pixels / 255).astype(np.float32), "float32 from 0 to 1: 1 is white"),
        (lambda pixels: pixels.astype(np.float32), "float32 from 0 to 255: 255 is white"),
    ],
)
def test_other_types_keep_their_range_and_are_told(tmp_path, stored, says):
    images = pixels(3, 8, 8)
    images.flat[:2] = 0, 255
    data = read_eval_data(write_npz(tmp_path / "d.npz", images=stored(images), labels=np.zeros(3, int)), GREY, of(2))
    found, _ = everything(data)
    np.testing.assert_allclose(found[:, 0], images, atol=1e-3)
    assert found.dtype == np.float32
    assert data.notes == (f"d.npz: its images are {says}",)


def test_images_that_are_normalised_already_are_taken_back(tmp_path):
    images, labels = pixels(10, 8, 6, 3), np.zeros(10, int)
    plain, _ = everything(read_eval_data(write_npz(tmp_path / "u.npz", images=images, labels=labels), RGB, of(10)))
    data = read_eval_data(write_npz(tmp_path / "n.npz", images=plain, labels=labels), RGB, of(10))
    np.testing.assert_allclose(everything(data)[0], plain, atol=1e-5)
    (note,) = data.notes
    assert note.endswith("taken as normalised by the model's mean and std")


@pytest.mark.parametrize("factor", [0.5, 1.2])
def test_images_that_others_normalised_are_refused(tmp_path, factor):
    images, labels = pixels(10, 8, 6, 3), np.zeros(10, int)
    plain, _ = everything(read_eval_data(write_npz(tmp_path / "u.npz", images=images, labels=labels), RGB, of(10)))
    with pytest.raises(BadInputError, match="found float32 from"):
        read_eval_data(write_npz(tmp_path / "n.npz", images=plain * factor, labels=labels), RGB, of(10))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda values: values.tolist()])
def test_arrays_in_memory_are_read_as_those_of_a_file(tmp_path, kind):
    images, labels = pixels(6, 3, 8, 6), np.arange(6) % 3
    file = read_eval_data(write_npz(tmp_path / "a.npz", images=images, labels=labels), RGB, of(3))
    data = read_eval_data(LabelledArrays(kind(images), kind(labels)), RGB, of(3))
    for found, expected in zip(everything(data), everything(file), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert data.source == "images in memory"


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (torch.zeros(2, 3, 8, 6, dtype=torch.bfloat16), [0, 1], "images in memory: the images are no array: TypeError"),
        (pixels(2, 3, 8, 6), [[0], [1, 2]], "images in memory: the labels are no array: ValueError"),
        (pixels(2, 3, 8, 6), [0], "images in memory: 2 images but 1 labels"),
        (pixels(2, 3, 9, 9), [0, 1], r"images in memory: images of shape \(N, 8, 6, 3\)"),
    ],
)
def test_what_is_no_array_in_memory_is_bad_input(images, labels, says):
    with pytest.raises(BadInputError, match=says):
        read_eval_data(LabelledArrays(images, labels), RGB, of(3))


def test_masks_are_black_and_white(tmp_path):
    images = pixels(3, 8, 8) > 99
    data = read_eval_data(write_npz(tmp_path / "d.npz", images=images, labels=np.zeros(3, int)), GREY, of(2))
    np.testing.assert_array_equal(everything(data)[0][:, 0], images * 255)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": pixels(4, 9, 6, 3), "labels": np.zeros(4, int)}, r"\(N, 8, 6, 3\) were expected"),
        ({"images": pixels(4, 8, 6), "labels": np.zeros(4, int)}, r"were expected, found \(4, 8, 6\)"),
        ({"images": pixels(4, 8, 6, 3) - 127.5, "labels": np.zeros(4, int)}, "found float64 from -127.5 to 127.5"),
        ({"images": pixels(4, 8, 6, 3) * np.nan, "labels": np.zeros(4, int)}, "pixels are NaN or infinite"),
        ({"images": pixels(4, 8, 6, 3).astype(int) * 9, "labels": np.zeros(4, int)}, "found int64 from 0"),
        ({"images": pixels(4, 8, 6, 3), "labels": np.zeros(3, int)}, "4 images but 3 labels"),
        ({"images": pixels(4, 8, 6, 3), "labels": np.full(4, 10)}, "labels from 10 to 10"),
        ({"images": pixels(4, 8, 6, 3), "labels": np.array([0, 1, -1, 2])}, "labels from -1 to 2"),
        ({"images": pixels(4, 8, 6, 3), "labels": np.zeros((4, 10), int)}, "integer labels"),
        ({"images": pixels(4, 8, 6, 3), "labels": np.full(4, 0.5)}, "integer labels"),
        ({"images": pixels(0, 8, 6, 3), "labels": np.zeros(0, int)}, "no images"),
        ({"images": np.uint8(3), "labels": np.zeros(1, int)}, "no images"),
        ({"pictures": pixels(4, 8, 6, 3), "labels": np.zeros(4, int)}, "found pictures, labels"),
        ({"images": np.array([{}] * 4, dtype=object), "labels": np.zeros(4, int)}, "cannot be read as .npz"),
    ],
)
def test_an_npz_that_does_not_fit_is_bad_input(tmp_path, arrays, says):
    with pytest.raises(BadInputError, match=says):
        read_eval_data(write_npz(tmp_path / "d.npz", **arrays), RGB, of(10))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((8, 6, 3, 4), "np.moveaxis"),
        ((4, 6, 8, 3), "height and width are the other way round"),
        ((4, 3, 6, 8), "height and width are the other way round"),
        ((4, 8, 6, 1), "the network takes 3 channels"),
        ((4, 9, 9, 3), "is resized to the model's input"),
    ],
)
def test_the_hint_says_what_is_wrong_with_the_shape(tmp_path, shape, hint):
    with pytest.raises(BadInputError) as caught:
        read_eval_data(write_npz(tmp_path / "d.npz", images=pixels(*shape), labels=np.zeros(4, int)), RGB, of(10))
    assert hint in caught.value.hint


def test_a_single_array_has_no_labels(tmp_path):
    np.save(tmp_path / "d.npy", pixels(4, 8, 6, 3))
    with pytest.raises(BadInputError, match="without labels") as caught:
        read_eval_data(tmp_path / "d.npy", RGB, of(10))
    assert "np.savez" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"junk" * 100, "truncated", "crc"])
def test_hostile_bytes_are_bad_input(tmp_path, content):
    whole = io.BytesIO()
    np.savez(whole, images=pixels(4, 8, 6, 3), labels=np.zeros(4, int))
    damaged = bytearray(whole.getvalue())
    damaged[300] ^= 255
    files = {"truncated": whole.getvalue()[:-50], "crc": bytes(damaged)}
    (tmp_path / "d.npz").write_bytes(files[content] if isinstance(content, str) else content)
    with pytest.raises(BadInputError, match=r"d\.npz"):
        read_eval_data(tmp_path / "d.npz", RGB, of(10))


def test_a_header_that_claims_more_than_there_is(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 8, 6, 3)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(BadInputError, match="cannot be read"):
        read_eval_data(tmp_path / "d.npz", RGB, of(10))


def test_an_archive_that_unpacks_to_more_than_memory_should_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("edgerecover.validation.evaluation.MAX_NPZ_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "d.npz", images=np.zeros((20_000, 8, 6, 3), np.uint8), labels=np.zeros(20_000, int))
    with pytest.raises(BadInputError, match="unpacks to"):
        read_eval_data(tmp_path / "d.npz", RGB, of(10))


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(BadInputError, match="no such file or folder"):
        read_eval_data(tmp_path / "nothing", RGB, of(10))


# --- folder


def write_folder(root, names, size=(6, 8), mode="RGB", per_class=2):
    for index, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            shade = (index * 60 + number) % 256
            Image.new(mode, size, shade if mode == "L" else (shade,) * 3).save(root / name / f"{number}.png")
    return root


def test_subfolders_are_classes_in_sorted_order(tmp_path):
    data = read_eval_data(write_folder(tmp_path / "real", ["dog", "cat"]), RGB, of(2))
    assert data.labels.tolist() == [0, 0, 1, 1]
    images, labels = everything(data, 3)
    assert images.shape == (4, 3, 8, 6)
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[0, 0, 0, 0] == pytest.approx((60 / 255 - 0.4) / 0.2)  # the cat was written second


def test_splits_are_no_classes(tmp_path):
    for split in ("Test", "train", "val"):
        write_folder(tmp_path / split, ["cat", "dog"])
    with pytest.raises(BadInputError, match="are parts of a data set, not classes") as caught:
        read_eval_data(tmp_path, RGB, of(3))
    assert caught.value.hint == f"give one of them: {tmp_path / 'Test'}"
    assert len(read_eval_data(tmp_path, RGB, of(3), ["Test", "train", "val"])) == 12


def test_numbers_in_the_order_of_text_are_pointed_out(tmp_path):
    write_folder(tmp_path / "few", ["0", "1", "2"])
    assert not read_eval_data(tmp_path / "few", RGB, of(3)).notes
    write_folder(tmp_path / "more", [str(number) for number in range(11)])
    (note,) = read_eval_data(tmp_path / "more", RGB, of(11)).notes
    assert "in the order of text (0, 1, 10 …)" in note


def test_named_classes_decide_the_label_whatever_the_order(tmp_path):
    folder = write_folder(tmp_path / "real", ["dog", "cat"])
    assert read_eval_data(folder, RGB, of(2), ["dog", "cat"]).labels.tolist() == [0, 0, 1, 1]
    images, _ = everything(read_eval_data(folder, RGB, of(2), ["dog", "cat"]))
    assert images[0, 0, 0, 0] == pytest.approx((0 - 0.4) / 0.2)


def test_other_sizes_are_resized_and_cropped_as_torchvision_does(tmp_path):
    (tmp_path / "real" / "a").mkdir(parents=True)
    picture = Image.fromarray(pixels(300, 400, 3)).resize((90, 70))
    picture.save(tmp_path / "real" / "a" / "x.png")
    spec = InputSpec((3, 56, 56), (0.0,) * 3, (1.0,) * 3, (0.0, 255.0))
    found, _ = everything(read_eval_data(tmp_path / "real", spec, of(1)))
    expected = v2.CenterCrop(56)(v2.Resize(64)(picture))
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), np.asarray(expected), atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("spec", [RGB, GREY])
def test_colour_is_converted_to_the_networks_channels(tmp_path, mode, spec):
    data = read_eval_data(write_folder(tmp_path / "real", ["a", "b"], mode=mode), spec, of(2))
    images, _ = everything(data)
    assert images.shape == (4, *spec.shape)


def test_palettes_with_transparency_decode_in_silence(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("P", (6, 8)).save(tmp_path / "a" / "p.png", transparency=b"\x00\x80")
    assert everything(read_eval_data(tmp_path, RGB, of(1)))[0].shape == (1, 3, 8, 6)


@pytest.mark.parametrize(
    ("names", "classes", "says"),
    [
        (["a", "b", "c"], None, "3 class subfolders, but the model has 2"),
        ([], None, "0 class subfolders"),
        (["a", "x"], ["a", "b"], "'x' is no class of the model; they are a, b"),
    ],
)
def test_a_folder_of_other_classes_is_bad_input(tmp_path, names, classes, says):
    root = tmp_path / "real"
    root.mkdir()
    write_folder(root, names)
    with pytest.raises(BadInputError, match=says):
        read_eval_data(root, RGB, of(2), classes)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(BadInputError, match="hold no images"):
        read_eval_data(write_folder(tmp_path / "real", ["a", "b"], per_class=0), RGB, of(2))


def test_a_file_that_is_no_image_is_found_at_once(tmp_path):
    folder = write_folder(tmp_path / "real", ["a", "b"])
    (folder / "b" / "1.png").write_bytes(b"not an image")
    with pytest.raises(BadInputError, match=r"1\.png: cannot be decoded"):
        read_eval_data(folder, RGB, of(2))


def test_a_truncated_image_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels(64, 64, 3)).save(tmp_path / "a" / "x.png")
    whole = (tmp_path / "a" / "x.png").read_bytes()
    (tmp_path / "a" / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match=r"x\.png: cannot be decoded"):
        everything(read_eval_data(tmp_path, RGB, of(1)))


def test_four_channels_do_not_come_from_image_files(tmp_path):
    spec = InputSpec((4, 8, 8), (0.0,) * 4, (1.0,) * 4)
    with pytest.raises(BadInputError, match="1 or 3 channels"):
        read_eval_data(write_folder(tmp_path / "real", ["a"]), spec, of(1))


def test_a_number_stands_for_so_many_classes(tmp_path):
    folder = write_folder(tmp_path / "real", ["dog", "cat"])
    assert read_eval_data(folder, RGB, 2).labels.tolist() == read_eval_data(folder, RGB, of(2)).labels.tolist()


# --- several outputs


CARD = OutputSpec.several((OutputPart("digit", of(3)), OutputPart("age", OutputSpec(TaskKind.REGRESSION, (1,)))))


def test_several_outputs_have_an_array_each(tmp_path):
    digit, age = np.arange(5) % 3, np.arange(5.0)
    path = write_npz(tmp_path / "d.npz", images=pixels(5, 8, 8), digit=digit, age=age, height=age)
    stored = read_eval_data(path, GREY, CARD)
    in_memory = read_eval_data(LabelledArrays(pixels(5, 8, 8), {"age": age, "digit": digit}), GREY, CARD)
    for data in (stored, in_memory):
        _, truth = everything(data, 2)
        assert truth["digit"].tolist() == digit.tolist()
        assert truth["age"][:, 0].tolist() == age.tolist()


def test_names_of_classes_are_the_truth_of_an_output(tmp_path):
    names = np.array(["cat", "dog", "cat", "hen", "dog"])
    path = write_npz(tmp_path / "d.npz", images=pixels(5, 8, 8), digit=names, age=np.arange(5.0))
    digit, age = CARD.parts
    named = OutputSpec.several((replace(digit, classes=("hen", "dog", "cat")), age))
    _, truth = everything(read_eval_data(path, GREY, named), 2)
    assert truth["digit"].tolist() == [2, 1, 2, 0, 1]
    with pytest.raises(BadInputError, match=r"d.npz, digit: integer labels"):
        read_eval_data(path, GREY, CARD)


def test_truth_that_several_outputs_lack_is_named(tmp_path):
    images, age = pixels(5, 8, 8), np.arange(5.0)
    with pytest.raises(BadInputError, match=r"no truth of digit, found age") as caught:
        read_eval_data(write_npz(tmp_path / "d.npz", images=images, age=age), GREY, CARD)
    assert "one array of truth for each output: digit, age" in caught.value.hint
    with pytest.raises(BadInputError, match=r"d.npz, digit: labels from 0 to 4, but the model has 3 classes"):
        read_eval_data(write_npz(tmp_path / "d.npz", images=images, age=age, digit=np.arange(5)), GREY, CARD)
    with pytest.raises(BadInputError, match="a folder holds one truth, and the network has 2 outputs"):
        read_eval_data(tmp_path, GREY, CARD)
    with pytest.raises(BadInputError, match="the labels are a ndarray, for several outputs") as caught:
        read_eval_data(LabelledArrays(images, age), GREY, CARD)
    assert "a dictionary with the truth of each: digit, age" in caught.value.hint


@pytest.mark.parametrize(
    ("members", "advice"),
    [
        ({"a/0.png": b"x", "b/0.png": b"x"}, "unpack it; "),
        ({"x/data.pkl": b"x", "x/data/0": b"x"}, "it is a file of torch.save"),
    ],
)
def test_the_hint_fits_an_archive_of_something_else(tmp_path, members, advice):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(BadInputError, match="no images and labels") as caught:
        read_eval_data(tmp_path / "d.zip", RGB, of(10))
    assert advice in caught.value.hint
