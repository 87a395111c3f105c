import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.validation.evaluation import read_eval_data

GREY = InputSpec((1, 8, 6), (0.0,), (1.0,), (0.0, 255.0))
RGB = InputSpec((3, 8, 6), (0.0,) * 3, (1.0,) * 3, (0.0, 255.0))
TURN_TO_PORTRAIT = 6
RAMP = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(8, 6)


def of(num_classes):
    return OutputSpec(TaskKind.ONE_LABEL, (num_classes,))


def only(tmp_path, image, name="x.png", **options):
    """A folder of one class with one image."""
    (tmp_path / "real" / "a").mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        (tmp_path / "real" / "a" / name).write_bytes(image)
    else:
        image.save(tmp_path / "real" / "a" / name, **options)
    return tmp_path / "real"


def read(folder, spec=GREY):
    data = read_eval_data(folder, spec, of(1))
    ((images, _),) = data.batches(8)
    return images[0], " ".join(data.notes)


# --- 16 bits


@pytest.mark.parametrize("spec", [GREY, RGB])
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_grey_of_sixteen_bits_keeps_its_range(tmp_path, spec, name):
    found, notes = read(only(tmp_path, Image.fromarray(RAMP), name), spec)
    for channel in found:
        np.testing.assert_allclose(channel, RAMP / 257, atol=1e-3)
    assert "1 of 1 images are grey of 16 bits: values are divided by 65,535; the largest is 65,535" in notes


def test_big_endian_tiff_of_sixteen_bits(tmp_path):
    image = Image.frombytes("I;16B", (6, 8), RAMP.astype(">u2").tobytes())
    found, _ = read(only(tmp_path, image, "x.tif"))
    np.testing.assert_allclose(found[0], RAMP / 257, atol=1e-3)


def test_a_tiff_whose_white_is_zero_is_not_a_negative(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    found, _ = read(only(tmp_path, Image.fromarray(RAMP), "x.tif", tiffinfo=tags))
    np.testing.assert_allclose(found[0], 255 - RAMP / 257, atol=1e-3)


def test_twelve_bits_in_sixteen_are_pointed_out(tmp_path):
    _, notes = read(only(tmp_path, Image.fromarray(RAMP // 16)))
    assert "the largest is 4,095; if the network learnt from values divided by less" in notes


def test_eight_and_sixteen_bits_in_one_folder_have_one_scale(tmp_path):
    only(tmp_path, Image.fromarray((RAMP // 256).astype(np.uint8)), "0.png")
    data = read_eval_data(only(tmp_path, Image.fromarray(RAMP // 256 * 257), "1.png"), GREY, of(1))
    ((images, _),) = data.batches(8)
    np.testing.assert_allclose(images[0], images[1], atol=1e-3)


def test_sixteen_bits_are_resized_as_eight_are(tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    found, _ = read(only(tmp_path, Image.fromarray(large.astype(np.uint16) * 257)))
    expected, _ = read(only(tmp_path, Image.fromarray(large)))
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_range_are_refused_by_name(tmp_path, dtype):
    folder = only(tmp_path, Image.fromarray(RAMP.astype(dtype)), "scan.tif")
    with pytest.raises(BadInputError, match=r"scan\.tif.*no range says which value is white") as raised:
        read_eval_data(folder, GREY, of(1))
    assert "16-bit" in raised.value.hint


# --- other kinds of pixels


def test_transparent_images_are_what_convert_gives_and_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
    found, notes = read(only(tmp_path, Image.fromarray(pixels)), RGB)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), pixels[..., :3])
    assert "1 of 1 images are transparent in places" in notes


def test_an_alpha_channel_that_hides_nothing_is_not_worth_a_note(tmp_path):
    _, notes = read(only(tmp_path, Image.new("RGBA", (6, 8), (1, 2, 3, 255))), RGB)
    assert notes == ""


@pytest.mark.parametrize(("spec", "expected"), [(RGB, [200, 100, 50]), (GREY, [124])])
def test_palettes_give_their_colours(tmp_path, spec, expected):
    image = Image.new("P", (6, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    found, _ = read(only(tmp_path, image, transparency=0), spec)
    assert found[:, 0, 0].tolist() == expected


def test_one_bit_is_black_and_white(tmp_path):
    found, _ = read(only(tmp_path, Image.fromarray(RAMP > 30_000)))
    assert sorted(set(found.flat)) == [0, 255]


@pytest.mark.parametrize("name", ["x.jpg", "x.tif"])
def test_cmyk_is_no_negative(tmp_path, name):
    found, notes = read(only(tmp_path, Image.new("RGB", (6, 8), (250, 10, 10)).convert("CMYK"), name), RGB)
    np.testing.assert_allclose(found[:, 4, 3], [250, 10, 10], atol=6)
    assert "are CMYK" in notes


def test_grey_and_colour_are_converted_and_named(tmp_path):
    _, notes = read(only(tmp_path, Image.new("RGB", (6, 8), (9, 9, 9))))
    assert "1 of 1 images are stored in colour" in notes
    _, notes = read(only(tmp_path, Image.new("L", (6, 8), 9)), RGB)
    assert "1 of 1 images are grey" in notes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_exif_is_applied(tmp_path, orientation):
    """As viewers show it; the reference is Pillow's own."""
    from PIL import ImageOps

    image = Image.fromarray((RAMP // 257).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = only(tmp_path, image, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(folder / "a" / "x.png")))
    height, width = expected.shape
    found, notes = read(folder, InputSpec((1, height, width), (0.0,), (1.0,), (0.0, 255.0)))
    np.testing.assert_array_equal(found[0], expected)
    assert ("rotated" in notes) == (orientation != 1)
    assert "resized" not in notes


def test_broken_exif_does_not_cost_the_image(tmp_path):
    found, notes = read(only(tmp_path, Image.new("L", (6, 8), 9), "x.jpg", exif=b"Exif\0\0II*\0junk"))
    assert found.shape == (1, 8, 6)
    assert "rotated" not in notes or "not rotated" in notes


@pytest.mark.parametrize("name", ["x.gif", "x.tif"])
def test_of_several_frames_the_first_counts(tmp_path, name):
    frames = [Image.new("L", (6, 8), shade) for shade in (40, 90, 140)]
    found, notes = read(only(tmp_path, frames[0], name, save_all=True, append_images=frames[1:]))
    assert found[0, 0, 0] == 40
    assert "1 of 1 images hold several frames: the first is taken" in notes


def test_another_size_is_told(tmp_path):
    _, notes = read(only(tmp_path, Image.new("L", (60, 80))))
    assert "1 of 1 images are not 8 × 6: resized so that 9 × 7 fits in, then cropped at the centre" in notes


# --- files that are no images


@pytest.mark.parametrize(
    "hidden", ["a/._x.png", "a/.DS_Store", "a/Thumbs.db", "a/.ipynb_checkpoints/x.png", "__MACOSX/a/._x.png"]
)
def test_hidden_files_are_left_out_and_named(tmp_path, hidden):
    folder = only(tmp_path, Image.new("L", (6, 8), 9))
    (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
    (folder / hidden).write_bytes(b"\0\5\x16\7" + bytes(100))
    data = read_eval_data(folder, GREY, of(1))
    assert len(data) == 1
    (note,) = data.notes
    assert "hidden files and folders were left out" in note
    assert any(part in note for part in hidden.split("/")[-2:])


def test_files_that_are_no_images_are_named(tmp_path):
    folder = only(tmp_path, Image.new("L", (6, 8), 9))
    for name in ("a/notes.txt", "labels.csv", "loose.png"):
        (folder / name).write_bytes(b"x")
    data = read_eval_data(folder, GREY, of(1))
    assert len(data) == 1
    assert data.notes == (
        "real: not read, because they are not images in a class folder: a/notes.txt, labels.csv, loose.png",
    )


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp", "x.webp", "x.gif"])
def test_a_truncated_image_is_found_when_the_folder_is_opened(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    folder = only(tmp_path, Image.fromarray(noise), name)
    file = folder / "a" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadInputError, match=rf"{name}: cannot be decoded") as raised:
        read_eval_data(folder, RGB, of(1))
    assert raised.value.exit_code == 2


def test_all_damaged_files_are_counted(tmp_path):
    for index in range(3):
        folder = only(tmp_path, b"", f"{index}.png")
    with pytest.raises(BadInputError, match=r"0\.png: cannot be decoded.*2 others, .*1\.png among them"):
        read_eval_data(folder, RGB, of(1))


def test_a_claim_of_a_huge_image_is_refused(tmp_path):
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(BadInputError, match=r"x\.png: cannot be decoded"):
        read_eval_data(only(tmp_path, bomb), GREY, of(1))


def test_notes_reach_whoever_follows(tmp_path):
    class Heard:
        def __init__(self):
            self.lines = []

        def __getattr__(self, name):
            from edgerecover.progress import SILENT

            return getattr(SILENT, name)

        def note(self, message, **numbers):
            self.lines.append(message)

    heard = Heard()
    data = read_eval_data(only(tmp_path, Image.new("L", (60, 80))), GREY, of(1), progress=heard)
    assert heard.lines == list(data.notes) != []
