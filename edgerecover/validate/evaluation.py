"""Real labelled images, given with --eval-data to judge on, or with --data to make an activation record from.

Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL.Image import Image

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
NPZ_KEYS = (("images", "labels"), ("x_test", "y_test"), ("x", "y"))
MAX_NPZ_BYTES = 4 << 30
"""Unpacked: an .npz is read into memory whole, and a small file can claim to be any size."""
RESIZE_TO_CROP = 256 / 224
"""torchvision's convention: the shorter side is resized to 256 where the network takes the central 224."""


@dataclass(frozen=True)
class EvalSet:
    """Labelled images that fit a network's input."""

    source: str
    """For people: the file's or folder's name."""
    labels: NDArray[numpy.int64]
    """Class indices (N,)."""
    input: InputSpec
    read_pixels: Callable[[slice], NDArray[numpy.uint8]]
    """uint8 pixels (n, H, W, C) of a slice of the images."""

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, num_images: int) -> EvalSet:
        """At most so many of them, drawn at random but always the same ones."""
        import numpy as np

        if num_images >= len(self):
            return self
        chosen_N = np.sort(np.random.default_rng(0).permutation(len(self))[:num_images])

        def read(part: slice) -> NDArray[numpy.uint8]:
            return np.concatenate([self.read_pixels(slice(i, i + 1)) for i in chosen_N[part]])

        return replace(self, labels=self.labels[chosen_N], read_pixels=read)

    def batches(self, batch_size: int) -> Iterator[tuple[NDArray[numpy.float32], NDArray[numpy.int64]]]:
        """Images (n, C, H, W) as the network takes them, with their labels (n,), in order.

        Raises:
            BadInputError: an image of a folder cannot be decoded.
        """
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield _normalised(self.read_pixels(part), self.input), self.labels[part]


def read_eval_data(path: Path, input: InputSpec, num_classes: int, classes: Sequence[str] | None = None) -> EvalSet:
    """Open labelled images: an .npz, or a folder with one subfolder of images per class.

    An .npz holds uint8 images of the network's own size, (N, H, W, C), (N, C, H, W), or (N, H, W) for one
    channel, and integer labels (N,); named images and labels, x_test and y_test, or x and y.
    A folder's images are resized (shorter side, bilinear) and cropped at the centre where their size differs;
    its subfolders are the classes in sorted order or, when `classes` are given, by name.

    Raises:
        BadInputError: not such data, or it does not fit the network: another shape, label outside 0 … K-1.
    """
    if path.is_dir():
        return _open_folder(path, input, num_classes, classes)
    if not path.exists():
        raise BadInputError(f"images {path}: no such file or folder")
    return _open_npz(path, input, num_classes)


def _normalised(pixels_NHWC: NDArray[numpy.uint8], input: InputSpec) -> NDArray[numpy.float32]:
    import numpy as np

    low, high = input.range
    mean, std = np.array(input.mean, np.float32), np.array(input.std, np.float32)
    scaled_NHWC = pixels_NHWC.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
    normalised_NHWC = (scaled_NHWC - mean) / std
    return np.ascontiguousarray(normalised_NHWC.transpose(0, 3, 1, 2))


# --- npz ----------------------------------------------------------------------------------------------------


def _open_npz(path: Path, input: InputSpec, num_classes: int) -> EvalSet:
    images, labels = _read_npz(path)
    pixels_NHWC = _as_NHWC(path, images, input)
    labels_N = _as_labels(path, labels, len(pixels_NHWC), num_classes)
    return EvalSet(path.name, labels_N, input, pixels_NHWC.__getitem__)


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    try:
        _refuse_oversize(path)
        with np.load(path, allow_pickle=False) as arrays:
            keys = next((pair for pair in NPZ_KEYS if set(pair) <= set(arrays.files)), None)
            if keys is None:
                raise BadInputError(
                    f"images {path}: no images and labels, found {', '.join(arrays.files) or 'nothing'}",
                    hint=f"name the arrays {', or '.join(' and '.join(pair) for pair in NPZ_KEYS)}",
                )
            return arrays[keys[0]], arrays[keys[1]]
    except BadInputError:
        raise
    except Exception as error:  # a hostile archive makes zipfile, zlib and numpy raise nearly anything
        raise BadInputError(
            f"images {path}: cannot be read as .npz: {error}",
            hint="an .npz of plain arrays (np.savez), or a folder with one subfolder of images per class",
        ) from error


def _refuse_oversize(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes = sum(member.file_size for member in archive.infolist())
    if unpacked_bytes > MAX_NPZ_BYTES:
        raise BadInputError(
            f"images {path}: unpacks to {unpacked_bytes / 2**30:.1f} GiB, "
            f"more than the {MAX_NPZ_BYTES >> 30} GiB read into memory",
            hint="give a folder with one subfolder of images per class: it is read in batches",
        )


def _as_NHWC(path: Path, images: NDArray[Any], input: InputSpec) -> NDArray[numpy.uint8]:
    import numpy as np

    channels, height, width = input.shape
    if images.dtype != np.uint8:
        raise BadInputError(
            f"images {path}: images of type uint8 (pixels 0 to 255) were expected, found {images.dtype}",
            hint="store the pixels as they are; mean and std of the model's input are applied here",
        )
    if not len(images.shape) or not len(images):
        raise BadInputError(f"images {path}: there are no images in it")
    if images.shape[1:] == (height, width, channels):
        return images
    if images.shape[1:] == (channels, height, width):
        return images.transpose(0, 2, 3, 1)
    if channels == 1 and images.shape[1:] == (height, width):
        return images[..., np.newaxis]
    raise BadInputError(
        f"images {path}: images of shape (N, {height}, {width}, {channels}) were expected, found {images.shape}",
        hint="a folder of images, unlike an .npz, is resized to the model's input",
    )


def _as_labels(path: Path, labels: NDArray[Any], num_images: int, num_classes: int) -> NDArray[numpy.int64]:
    import numpy as np

    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras stores CIFAR
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise BadInputError(
            f"images {path}: integer labels of shape (N,) were expected, found {labels.dtype} {labels.shape}"
        )
    if len(labels) != num_images:
        raise BadInputError(f"images {path}: {num_images} images but {len(labels)} labels")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        raise BadInputError(
            f"images {path}: labels from {lowest} to {highest}, but the model has {num_classes} classes",
            hint=f"labels count from 0 to {num_classes - 1}",
        )
    return labels.astype(np.int64)


# --- folder -------------------------------------------------------------------------------------------------


def _open_folder(path: Path, input: InputSpec, num_classes: int, classes: Sequence[str] | None) -> EvalSet:
    import numpy as np

    if input.shape[0] not in (1, 3):
        raise BadInputError(
            f"images {path}: a folder of images fits 1 or 3 channels, the model takes {input.shape[0]}",
            hint="store the images in an .npz",
        )
    names = _class_folders(path, num_classes, classes)
    found = [(file, label) for label, name in enumerate(names) for file in _images_in(path / name)]
    if not found:
        raise BadInputError(
            f"images {path}: its subfolders hold no images", hint=f"read are {', '.join(IMAGE_SUFFIXES)}"
        )
    files = [file for file, _ in found]
    for file in files:
        _check_header(file)
    labels_N = np.array([label for _, label in found], dtype=np.int64)
    return EvalSet(path.name, labels_N, input, lambda part: np.stack([_pixels(file, input) for file in files[part]]))


def _class_folders(path: Path, num_classes: int, classes: Sequence[str] | None) -> list[str]:
    """Subfolders in the order of the model's classes."""
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) != num_classes:
        raise BadInputError(
            f"images {path}: {len(names)} class subfolders, but the model has {num_classes} classes",
            hint="one subfolder of images per class, empty ones too; or an .npz with images and labels",
        )
    if classes is None:
        return names
    if unknown := sorted(set(names) - set(classes)):
        raise BadInputError(
            f"images {path}: {unknown[0]!r} is no class of the model; they are {', '.join(classes)}",
            hint="name the subfolders as the model's classes are named in model.toml",
        )
    return list(classes)


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def _opened(file: Path) -> Image:
    from PIL import Image

    return Image.open(file)


def _check_header(file: Path) -> None:
    """Find a file that is no image before hours of work, not after."""
    with _decoding(file), _opened(file):
        pass


def _pixels(file: Path, input: InputSpec) -> NDArray[numpy.uint8]:
    """One image as (H, W, C)."""
    import numpy as np

    channels, height, width = input.shape
    with _decoding(file), _opened(file) as opened:
        image = opened.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = _cropped(image, height, width)
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


def _cropped(image: Image, height: int, width: int) -> Image:
    from PIL.Image import Resampling

    scale = RESIZE_TO_CROP * max(height / image.height, width / image.width)
    resized_height = max(height, round(image.height * scale))
    resized_width = max(width, round(image.width * scale))
    resized = image.resize((resized_width, resized_height), Resampling.BILINEAR)
    top, left = round((resized_height - height) / 2), round((resized_width - width) / 2)
    return resized.crop((left, top, left + width, top + height))


@contextlib.contextmanager
def _decoding(file: Path) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of this image file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise BadInputError(
            f"image {file}: cannot be decoded as an image: {error}", hint="repair or remove the file"
        ) from error
