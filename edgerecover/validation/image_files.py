"""Image files in a folder: which of them count, whether they can be decoded, and their pixels.

What Pillow's `convert("RGB")` gives, as torchvision's ImageFolder has it, with three differences: grey images of
more than 8 bits keep their range instead of being clipped at 255, EXIF orientation is applied, and hidden files are
left out.
What was done to the images is told as notes.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError
from edgerecover.progress import SILENT, Progress

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL.Image import Image, Resampling, Transpose

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
RESIZE_TO_CROP = 256 / 224
"""torchvision's convention: the shorter side is resized to 256 where the network takes the central 224."""
_LITTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"})
"""What operating systems leave in folders, beside names that begin with a dot."""
_NAMED = 3
"""So many files are named in a note or message."""
_MAX_THREADS = 8
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_DARK = 8
"""Where the brightest value is below white by that factor, white may have meant something else."""
_GREY_MODES = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class Found:
    """Images of a folder by class."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    notes: tuple[str, ...]
    """What was left out."""


def is_litter(name: str) -> bool:
    """Hidden, or left by an operating system: no data of anybody's."""
    return name.startswith(".") or name.casefold() in _LITTER


def find_images(root: Path, names: Sequence[str]) -> Found:
    """Image files below the class folders `names`, labelled by their position; what else lies there is noted."""
    found = [_images_in(root / name) for name in names]
    beside = [file for file in sorted(root.iterdir()) if file.is_file()]
    litter = [file for part in found for file in part.litter]
    litter += [entry for entry in sorted(root.iterdir()) if is_litter(entry.name)]
    foreign = [file for part in found for file in part.foreign]
    foreign += [file for file in beside if not is_litter(file.name)]
    notes = []
    if litter:
        notes.append(f"{root.name}: hidden files and folders were left out: {some(litter, root)}")
    if foreign:
        notes.append(f"{root.name}: not read, because they are not images in a class folder: {some(foreign, root)}")
    labelled = [(file, label) for label, part in enumerate(found) for file in part.images]
    return Found(tuple(file for file, _ in labelled), tuple(label for _, label in labelled), tuple(notes))


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere in a folder, sorted."""
    return _images_in(folder).images


@dataclass(frozen=True)
class _Folder:
    images: list[Path]
    litter: list[Path]
    """Files and whole folders."""
    foreign: list[Path]


def _images_in(folder: Path) -> _Folder:
    found = _Folder([], [], [])
    for path, folders, files in os.walk(folder, followlinks=True):
        found.litter.extend(Path(path, name) for name in [*folders, *files] if is_litter(name))
        folders[:] = sorted(name for name in folders if not is_litter(name))
        for name in sorted(name for name in files if not is_litter(name)):
            file = Path(path, name)
            (found.images if file.suffix.lower() in IMAGE_SUFFIXES else found.foreign).append(file)
    found.images.sort()
    return found


def some(files: Sequence[Path], root: Path) -> str:
    """The first few, as paths from `root`, and how many more."""
    named = ", ".join(str(file.relative_to(root)) for file in files[:_NAMED])
    return named if len(files) <= _NAMED else f"{named} and {len(files) - _NAMED:,} more"


# --- checking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """What one file was found to be."""

    remarks: frozenset[str] = frozenset()
    """Keys of `_REMARKS`."""
    white: int = 0
    """Of a grey image of more than 8 bits; 0: it is none."""
    brightest: int = 0
    error: str = ""


_REMARKS = {
    "grey": "are grey: all three channels of the network get the same values",
    "colour": "are stored in colour: they are converted to grey (ITU-R 601 luma)",
    "alpha": "are transparent in places: the alpha channel is dropped, as by convert('RGB')",
    "cmyk": "are CMYK: they are converted without a colour profile",
    "turned": "are rotated as their EXIF orientation says",
    "exif": "have EXIF data that cannot be read: they are not rotated",
    "frames": "hold several frames: the first is taken",
}


def check_images(
    files: Sequence[Path], name: str, channels: int, height: int, width: int, progress: Progress = SILENT
) -> tuple[str, ...]:
    """Decode every file once, in threads, so that a damaged one is found before hours of work and not after.

    Args:
        files: to check.
        name: of the folder, for notes.
        channels: that the network takes, 1 or 3.
        height: that the network takes.
        width: that the network takes.
        progress: where to report.

    Returns:
        Notes about what is done to these images.

    Raises:
        BadInputError: a file cannot be decoded, or has no range that says what white is.
    """
    from PIL import Image

    with warnings.catch_warnings(), progress.task("check images", len(files), "images") as task:
        # For all threads at once: the filters are not a thread's own.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            seen = []
            for one in pool.map(lambda file: _look(file, channels, height, width), files):
                seen.append(one)
                task.advance()
    _refuse_damaged(files, seen)
    return tuple(_notes(seen, name, height, width))


def _look(file: Path, channels: int, height: int, width: int) -> _Seen:
    try:
        with _open(file) as image:
            remarks = set(_remarks_beforedecoding(image, channels))
            white, size = _white(image), image.size
            # An eighth of a JPEG's size decodes faster, and still needs every byte of it.
            image.draft(None, (1, 1))
            image.load()
            orientation = _orientation(image)
            if orientation is None:
                remarks.add("exif")
            elif orientation > 1:
                remarks.add("turned")
            if _size_when_turned(size, orientation) != (width, height):
                remarks.add("size")
            if _is_transparent(image):
                remarks.add("alpha")
            if white:
                return _Seen(frozenset(remarks), white, int(_depths(image).max()))
            image.convert(_mode_of(channels))
            return _Seen(frozenset(remarks))
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        return _Seen(error=str(error) or type(error).__name__)


def _remarks_beforedecoding(image: Image, channels: int) -> Iterator[str]:
    is_grey = image.mode in _GREY_MODES or image.mode.startswith("I")
    if is_grey and channels == 3:
        yield "grey"
    if not is_grey and channels == 1:
        yield "colour"
    if image.mode == "CMYK":
        yield "cmyk"
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a photo with its own preview
        yield "frames"


def _refuse_damaged(files: Sequence[Path], seen: Sequence[_Seen]) -> None:
    damaged = [(file, one.error) for file, one in zip(files, seen, strict=True) if one.error]
    if not damaged:
        return
    file, error = damaged[0]
    others = f"; so are {len(damaged) - 1:,} others, {damaged[1][0]} among them" if len(damaged) > 1 else ""
    raise BadInputError(f"image {file}: cannot be decoded as an image: {error}{others}", hint=_hint(error))


def _hint(error: str) -> str:
    if error.startswith(_NO_RANGE):
        return "store it as 8-bit or 16-bit grey, scaled as the network's training scaled it, or give an .npz"
    return "repair or remove the file"


def _notes(seen: Sequence[_Seen], name: str, height: int, width: int) -> Iterator[str]:
    counts = Counter(remark for one in seen for remark in one.remarks)
    total = f"{len(seen):,} images"
    for key, text in _REMARKS.items():
        if counts[key]:
            yield f"{name}: {counts[key]:,} of {total} {text}"
    if counts["size"]:
        yield (
            f"{name}: {counts['size']:,} of {total} are not {height} × {width}: resized so that "
            f"{round(RESIZE_TO_CROP * height)} × {round(RESIZE_TO_CROP * width)} fits in, then cropped at the centre"
        )
    for white in sorted({one.white for one in seen if one.white}):
        deep = [one.brightest for one in seen if one.white == white]
        dark = (
            "; if the network learnt from values divided by less, scale the files so"
            if max(deep) * _DARK < white
            else ""
        )
        yield (
            f"{name}: {len(deep):,} of {total} are grey of {white.bit_length()} bits: values are divided by {white:,}; "
            f"the largest is {max(deep):,}{dark}"
        )


# --- pixels -------------------------------------------------------------------------------------------------


def read_pixels(file: Path, channels: int, height: int, width: int) -> NDArray[Any]:
    """One image as (H, W, C) on a scale of 0 to 255: uint8, or float32 where the file holds more than 8 bits.

    Raises:
        BadInputError: the file cannot be decoded.
    """
    import numpy as np
    from PIL import Image

    with decoding(file), _open(file) as opened:
        white = _white(opened)
        orientation = _orientation(opened)
        if white:
            image = Image.fromarray(_depths(opened).astype(np.float32) * np.float32(255 / white))
        else:
            image = opened.convert(_mode_of(channels))
    image = _turn(image, orientation)
    if image.size != (width, height):
        image = crop(image, height, width)
    pixels_HWc = np.asarray(image).reshape(height, width, -1)
    return np.broadcast_to(pixels_HWc, (height, width, channels))


def _mode_of(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


_NO_RANGE = "no range says which value is white"


def _white(image: Image) -> int | None:
    """The value of white of a grey image of more than 8 bits; None: it is none.

    Raises:
        ValueError: its numbers have no such value.
    """
    if image.mode.startswith("I;16"):
        return int(2 ** _tiff_tag(image, _BITS_PER_SAMPLE, 16) - 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits in both, whatever Pillow holds them in
        return 0xFFFF
    if image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise ValueError(f"{_NO_RANGE}: its pixels are {kind}")
    return None


def _depths(image: Image) -> NDArray[numpy.int32]:
    """Grey values (H, W) of more than 8 bits, dark to bright."""
    import numpy as np

    values_HW = np.asarray(image).astype(np.int32)
    if _tiff_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:  # Pillow turns it at 8 bits alone
        values_HW = (_white(image) or 0) - values_HW
    return values_HW


def _tiff_tag(image: Image, tag: int, otherwise: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)


def _orientation(image: Image) -> int | None:
    """Of EXIF, 1 (upright) to 8; None where it cannot be read."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF data are common, raise nearly anything, and leave the pixels whole
        return None
    return orientation if orientation in _turns() else 1


def upright(image: Image) -> Image:
    """The image as its EXIF orientation turns it."""
    return _turn(image, _orientation(image))


def _turn(image: Image, orientation: int | None) -> Image:
    return image if orientation in (None, 1) else image.transpose(_turns()[orientation])


def _turns() -> dict[int, Transpose]:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


def _size_when_turned(size: tuple[int, int], orientation: int | None) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _is_transparent(image: Image) -> bool:
    """Some pixel is not opaque."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return False
    if image.mode.startswith("I"):
        return True  # one of its grey values is named as transparent
    histogram = image.convert("RGBA").getchannel("A").histogram()
    return sum(histogram[:255]) > 0


def crop(image: Image, height: int, width: int, resampling: Resampling | None = None) -> Image:
    """The centre of an image that is resized so that `RESIZE_TO_CROP` times the size fits in; bilinear if not said."""
    from PIL.Image import Resampling

    resized_width, resized_height, left, top = crop_of(image.size, height, width)
    resized = image.resize((resized_width, resized_height), Resampling.BILINEAR if resampling is None else resampling)
    return resized.crop((left, top, left + width, top + height))


def crop_of(size: tuple[int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Width and height that an image (width, height) is resized to, and left and top of what `crop` takes of it."""
    scale = RESIZE_TO_CROP * max(height / size[1], width / size[0])
    resized_width, resized_height = max(width, round(size[0] * scale)), max(height, round(size[1] * scale))
    return resized_width, resized_height, round((resized_width - width) / 2), round((resized_height - height) / 2)


def _open(file: Path) -> Image:
    from PIL import Image

    return Image.open(file)


@contextlib.contextmanager
def decoding(file: Path) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of this image file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise BadInputError(f"image {file}: cannot be decoded as an image: {error}", hint=_hint(str(error))) from error
