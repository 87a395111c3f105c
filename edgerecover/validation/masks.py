"""Folders of images with a class map for each. Shapes: N images, H height, W width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.errors import BadInputError
from edgerecover.progress import Progress
from edgerecover.tasks.measure.maps import IGNORED
from edgerecover.validation.folders import Labelled, wrong_layout
from edgerecover.validation.image_files import crop, decoding, images_below, some, upright
from edgerecover.validation.truth import beyond, class_maps, example_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES, MASKS = "images", "masks"
SUFFIX = ".png"
MAX_BYTES = 4 << 30
"""Of all class maps: they are held in memory."""
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
"""Of files whose pixels are numbers, not colours."""


def find_masked(path: Path, input: InputSpec, output: OutputSpec, progress: Progress) -> Labelled:
    """Image files in `images/`, each with the class map of the same name in `masks/`.

    A map is resized and cropped as its image is, each pixel being that of the nearest, and then resized to the maps
    that the network gives.

    Args:
        path: of the folder.
        input: of the network.
        output: of the network.
        progress: where to report.

    Raises:
        BadInputError: another layout, an image without a map, or a map that cannot be read or does not fit.
    """
    import numpy as np

    if not ((path / IMAGES).is_dir() and (path / MASKS).is_dir()):
        raise wrong_layout(path, f"the folders {IMAGES} and {MASKS} were expected", output)
    files = images_below(path / IMAGES)
    if not files:
        raise BadInputError(f"images {path}: {IMAGES} holds no images", hint=example_of(output))
    masks = [(path / MASKS / file.relative_to(path / IMAGES)).with_suffix(SUFFIX) for file in files]
    if missing := [file for file, mask in zip(files, masks, strict=True) if not mask.is_file()]:
        raise BadInputError(
            f"images {path}: no class map in {MASKS} for {some(missing, path)}", hint=example_of(output)
        )
    _, height, width = output.shape
    if len(files) * height * width > MAX_BYTES:
        raise BadInputError(
            f"images {path}: {len(files):,} class maps of {height} × {width} take more than {MAX_BYTES >> 30} GiB",
            hint="give fewer images: a few thousand tell a mean IoU to a percentage point",
        )
    maps_NHW: NDArray[Any] = np.empty((len(files), height, width), np.uint8 if output.shape[0] <= IGNORED else np.int32)
    with progress.task("read masks", len(files), "masks") as task:
        for i, (file, mask) in enumerate(zip(files, masks, strict=True)):
            maps_NHW[i] = _read_mask(mask, file, input, output)
            task.advance()
    unused = sorted(set(images_below(path / MASKS)) - set(masks))
    notes = (f"{path.name}: class maps without an image were left out: {some(unused, path)}",) if unused else ()
    return Labelled(tuple(files), class_maps(str(path), maps_NHW, output), notes)


def _read_mask(mask: Path, file: Path, input: InputSpec, output: OutputSpec) -> NDArray[Any]:
    import numpy as np
    from PIL import Image

    with decoding(file), Image.open(file) as opened:
        size = upright(opened).size
    with decoding(mask), Image.open(mask) as opened:
        mode, image = opened.mode, upright(opened)
        image.load()
    if mode not in _MODES:
        raise BadInputError(
            f"image {mask}: class numbers were expected, grey or with a palette, found colours ({mode})",
            hint="store for each pixel the number of its class, not its colour",
        )
    if image.size != size:
        raise BadInputError(
            f"image {mask}: {image.width} × {image.height}, but its image is {size[0]} × {size[1]}",
            hint="a class map has a pixel for each of its image's",
        )
    numbers_HW = np.asarray(image).astype(np.int32)
    if numbers_HW.max() > max(IGNORED, output.shape[0]):
        raise beyond(str(mask), [int(numbers_HW.max())], output)
    resized = _fit(Image.fromarray(numbers_HW), input.shape[1:], output.shape[1:])
    return np.asarray(resized)


def _fit(image: Any, input_HW: Sequence[int], output_HW: Sequence[int]) -> Any:
    """As the image is cropped to the network's input, and resized to its maps."""
    from PIL.Image import Resampling

    height, width = input_HW
    if image.size != (width, height):
        image = crop(image, height, width, Resampling.NEAREST)
    height, width = output_HW
    return image if image.size == (width, height) else image.resize((width, height), Resampling.NEAREST)
