"""Real labelled images, given with --eval-data to judge on, or with --data to make an activation record from.

Shapes: N images, H height, W width, C channels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec, OutputSpec, TaskKind
from edgerecover.errors import BadInputError
from edgerecover.progress import SILENT, Progress
from edgerecover.validation.box_files import find_boxed
from edgerecover.validation.folders import find_labelled
from edgerecover.validation.image_files import check_images, read_pixels
from edgerecover.validation.masks import find_masked
from edgerecover.validation.pixel_scale import scale_of_pixels
from edgerecover.validation.truth import example_of, notes_of, truth_of, truth_of_several

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from edgerecover.validation.truth import Truth

    Labels = NDArray[Any] | Mapping[str, NDArray[Any]]
    """As they are given; of several outputs, by name."""
    Pixels = NDArray[Any]
    """(N, H, W, C) on a scale of 0 to 255: uint8, or float32 where they come with more than 8 bits."""


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """Images and labels in memory, as an .npz holds them; see `read_eval_data`."""

    images: Any
    labels: Any

    def __str__(self) -> str:
        return "in memory"

    @property
    def name(self) -> str:
        """What reports call them."""
        return "images in memory"


NPZ_KEYS = (
    ("images", "labels"),
    ("x_test", "y_test"),
    ("x", "y"),
    ("test_images", "test_labels"),
    ("images", "targets"),
    ("images", "masks"),
)
MAX_NPZ_BYTES = 4 << 30
"""Unpacked: an .npz is read into memory whole, and a small file can claim to be any size."""


@dataclass(frozen=True)
class EvalSet:
    """Labelled images that fit a network's input."""

    source: str
    """For people: the file's or folder's name."""
    labels: Truth
    """Class indices (N,), or what the task's truth is, along the first axis: see `truth.truth_of`."""
    input: InputSpec
    read_pixels: Callable[[slice], Pixels]
    """Pixels (n, H, W, C) of a slice of the images."""
    notes: tuple[str, ...] = ()
    """What was left out or converted, one sentence each."""

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, num_images: int) -> EvalSet:
        """At most so many of them, drawn at random but always the same ones."""
        import numpy as np

        if num_images >= len(self):
            return self
        chosen_N = np.sort(np.random.default_rng(0).permutation(len(self))[:num_images])

        def read(part: slice) -> Pixels:
            return np.concatenate([self.read_pixels(slice(i, i + 1)) for i in chosen_N[part]])

        return replace(self, labels=self.labels[chosen_N], read_pixels=read)

    def batches(self, batch_size: int) -> Iterator[tuple[NDArray[numpy.float32], Truth]]:
        """Images (n, C, H, W) as the network takes them, with their labels (n, …), in order.

        Raises:
            BadInputError: an image of a folder cannot be decoded.
        """
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield _normalise(self.read_pixels(part), self.input), self.labels[part]


def read_eval_data(
    data: Path | LabelledArrays,
    input: InputSpec,
    output: OutputSpec | int,
    classes: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> EvalSet:
    """Open labelled images: an .npz, or a folder.

    An .npz holds images of the network's own size, (N, H, W, C), (N, C, H, W), or (N, H, W) for one channel, and
    labels; named images and labels, x_test and y_test, x and y, test_images and test_labels, images and targets, or
    images and masks. Pixels are uint8, uint16, or numbers whose range is plain: 0 to 1 in floats, 0 to 255 in integers.
    A folder's images are resized (shorter side, bilinear) and cropped at the centre where their size differs. All are
    decoded once here.

    Labels are, by the task of `output`, where a number stands for one label of so many classes:

    - one label and binary: class numbers (N,), one-hot rows, or names where `classes` are given; in a folder, one
      subfolder per class, in sorted order or, when `classes` are given, by name.
    - multi-label: 0 and 1 (N, K); in a folder, a table labels.csv of files with 0 and 1 for each label.
    - embedding: any numbers or names (N,), alike for images that belong together; in a folder, subfolders.
    - regression: numbers (N, D); in a folder, a table labels.csv.
    - segmentation: class numbers (N, H, W), 255 and -1 being ignored; in a folder, images/ and masks/ with a .png of
      the same name for each image.
    - detection: class, left, top, right and bottom of each box, in pixels, (N, M, 5), the class being -1 in rows that
      are left; in a folder, images/ and labels/ with a .txt of the same name for each image, as YOLO has them.
    - several outputs: in an .npz, an array of truth for each, under its name; no folder.

    Arrays in memory, or tensors, are read as those in an .npz are.

    What was left out or converted is noted, in `progress` too.

    Raises:
        BadInputError: not such data, a file cannot be decoded, or it does not fit the network: another shape, label
            outside 0 … K-1. It says what is read for this task, with an example.
    """
    output = OutputSpec.one_label(output) if isinstance(output, int) else output
    if isinstance(data, LabelledArrays):
        images = _open_arrays(data, *_as_arrays(data, output), input, output, classes)
    elif data.is_dir():
        images = _open_folder(data, input, output, classes, progress)
    elif data.exists():
        images = _open_arrays(data, *_read_npz(data, output), input, output, classes)
    else:
        raise BadInputError(
            f"images {data}: no such file or folder",
            hint=f"check the path; {example_of(output)}",
        )
    for note in images.notes:
        progress.note(note)
    return images


def _normalise(pixels_NHWC: Pixels, input: InputSpec) -> NDArray[numpy.float32]:
    import numpy as np

    low, high = input.range
    mean, std = np.array(input.mean, np.float32), np.array(input.std, np.float32)
    scaled_NHWC = pixels_NHWC.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
    normalised_NHWC = (scaled_NHWC - mean) / std
    return np.ascontiguousarray(normalised_NHWC.transpose(0, 3, 1, 2))


# --- arrays ----------------------------------------------------------------------------------------------------


def _open_arrays(
    path: Path | LabelledArrays,
    images: NDArray[Any],
    labels: Labels,
    input: InputSpec,
    output: OutputSpec,
    classes: Sequence[str] | None,
) -> EvalSet:
    images_NHWC = _as_NHWC(path, images, input, output)
    if isinstance(labels, Mapping):
        truth = truth_of_several(str(path), labels, len(images_NHWC), output)
    else:
        truth = truth_of(str(path), labels, len(images_NHWC), output, classes)
    scale = scale_of_pixels(images_NHWC, input, str(path))

    def read(part: slice) -> Pixels:
        import numpy as np

        pixels_NHWC = images_NHWC[part]
        if pixels_NHWC.dtype == np.uint8:
            return pixels_NHWC
        factor_C, offset_C = (np.asarray(per_channel, np.float32) for per_channel in (scale.factor, scale.offset))
        return pixels_NHWC.astype(np.float32) * factor_C + offset_C

    notes = (f"{path.name}: its images are {scale.reading}",) if scale.reading else ()
    return EvalSet(path.name, truth, input, read, (*notes, *notes_of(path.name, truth, output)))


def _as_arrays(data: LabelledArrays, output: OutputSpec) -> tuple[NDArray[Any], Labels]:
    import numpy as np

    def array(name: str, values: Any) -> NDArray[Any]:
        try:
            return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        except Exception as error:  # ragged lists, tensors of a type that numpy lacks, anyone's objects
            raise BadInputError(
                f"images {data}: the {name} are no array: {type(error).__name__}: {error}",
                hint="give images and labels, two arrays or tensors of the same length",
            ) from error

    if output.parts and isinstance(data.labels, Mapping):
        labels = {str(name): array(f"labels of {name}", values) for name, values in data.labels.items()}
        return array("images", data.images), labels
    if output.parts:
        raise BadInputError(
            f"images {data}: the labels are a {type(data.labels).__name__}, for several outputs",
            hint=f"give a dictionary with the truth of each: {', '.join(output.names)}",
        )
    return array("images", data.images), array("labels", data.labels)


def _read_npz(path: Path, output: OutputSpec) -> tuple[NDArray[Any], Labels]:
    import numpy as np

    if path.suffix.lower() == ".npy":
        raise BadInputError(
            f"images {path}: is a single array, without labels",
            hint="put both into an .npz: np.savez(path, images=images, labels=labels)",
        )
    try:
        _refuse_oversize(path)
        with np.load(path, allow_pickle=False) as arrays:
            of_images = [first for first, _ in NPZ_KEYS if first in arrays.files]
            if output.parts and of_images:
                named = {name: arrays[name] for name in arrays.files if name in output.names}
                return arrays[of_images[0]], named
            keys = next((pair for pair in NPZ_KEYS if set(pair) <= set(arrays.files)), None)
            if keys is None:
                raise BadInputError(
                    f"images {path}: no images and labels, found {', '.join(arrays.files) or 'nothing'}",
                    hint=_hint_of_members(path, output),
                )
            return arrays[keys[0]], arrays[keys[1]]
    except BadInputError:
        raise
    except Exception as error:  # a hostile archive makes zipfile, zlib and numpy raise nearly anything
        raise BadInputError(
            f"images {path}: cannot be read as .npz: {error}",
            hint=f"an .npz holds plain arrays (np.savez); {example_of(output)}",
        ) from error


def _hint_of_members(path: Path, output: OutputSpec) -> str:
    """What to do with an archive without the arrays that are looked for."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        return "it is a file of torch.save: np.savez(path, images=images.numpy(), labels=labels.numpy()) writes an .npz"
    if not any(name.endswith(".npy") for name in names):
        return f"unpack it; {example_of(output)}"
    if output.parts:
        return example_of(output)
    return f"name the arrays {', or '.join(' and '.join(pair) for pair in NPZ_KEYS)}"


def _refuse_oversize(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes = sum(member.file_size for member in archive.infolist())
    if unpacked_bytes > MAX_NPZ_BYTES:
        raise BadInputError(
            f"images {path}: unpacks to {unpacked_bytes / 2**30:.1f} GiB, "
            f"more than the {MAX_NPZ_BYTES >> 30} GiB read into memory",
            hint="give a folder of images: it is read in batches",
        )


def _as_NHWC(path: Path | LabelledArrays, images: NDArray[Any], input: InputSpec, output: OutputSpec) -> NDArray[Any]:
    import numpy as np

    channels, height, width = input.shape
    if not len(images.shape) or not len(images):
        raise BadInputError(
            f"images {path}: there are no images in it",
            hint=example_of(output),
        )
    if images.shape[1:] == (height, width, channels):
        return images
    if images.shape[1:] == (channels, height, width):
        return images.transpose(0, 2, 3, 1)
    if channels == 1 and images.shape[1:] == (height, width):
        return images[..., np.newaxis]
    raise BadInputError(
        f"images {path}: images of shape (N, {height}, {width}, {channels}) were expected, found {images.shape}",
        hint=_hint_of_shape(images.shape, input),
    )


def _hint_of_shape(shape: tuple[int, ...], input: InputSpec) -> str:
    channels, height, width = input.shape
    if len(shape) == 4 and sorted(shape[:3]) == sorted((height, width, channels)):  # as MATLAB stores them
        return "the images come last: np.moveaxis(images, -1, 0) puts them first"
    if shape[1:] == (width, height, channels) or shape[1:] == (channels, width, height):
        return "height and width are the other way round: transpose the images, or the two in --input-shape"
    if shape[1:3] == (height, width) or shape[2:] == (height, width):
        grey = "average the channels" if channels == 1 else "give all channels"
        return f"the network takes {channels} channels: {grey}, or give a folder of images, which are converted"
    return "a folder of images, unlike an .npz, is resized to the model's input"


# --- folder -------------------------------------------------------------------------------------------------


def _open_folder(
    path: Path, input: InputSpec, output: OutputSpec, classes: Sequence[str] | None, progress: Progress
) -> EvalSet:
    import numpy as np

    channels, height, width = input.shape
    if output.parts:
        raise BadInputError(
            f"images {path}: a folder holds one truth, and the network has {len(output.parts)} outputs",
            hint=example_of(output),
        )
    if channels not in (1, 3):
        raise BadInputError(
            f"images {path}: a folder of images fits 1 or 3 channels, the model takes {channels}",
            hint="store the images in an .npz",
        )
    if output.task is TaskKind.SEGMENTATION:
        found = find_masked(path, input, output, progress)
    elif output.task is TaskKind.DETECTION:
        found = find_boxed(path, input, output, progress)
    else:
        found = find_labelled(path, output, classes)
    notes = check_images(found.files, path.name, channels, height, width, progress)

    def read(part: slice) -> Pixels:
        return np.stack([read_pixels(file, channels, height, width) for file in found.files[part]])

    notes = (*found.notes, *notes_of(path.name, found.truth, output), *notes)
    return EvalSet(path.name, found.truth, input, read, notes)
