"""Folders of images with a file of boxes for each, as YOLO has them. Shapes: N images, M boxes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.errors import BadInputError
from edgerecover.progress import Progress
from edgerecover.tasks.measure.boxes import NO_BOX
from edgerecover.validation.folders import Labelled, wrong_layout
from edgerecover.validation.image_files import crop_of, decoding, images_below, some, upright
from edgerecover.validation.truth import boxes, example_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy
    from numpy.typing import NDArray

    Box = Sequence[float]
    """Class, left, top, right and bottom."""

IMAGES, LABELS = "images", "labels"
SUFFIX = ".txt"
MAX_BYTES = 1 << 20
"""Of one file of boxes: some ten thousand of them."""
_LEAST_SEEN = 0.5
"""Share of a box that is inside the crop, for it to count."""


def find_boxed(path: Path, input: InputSpec, output: OutputSpec, progress: Progress) -> Labelled:
    """Image files in `images/`, each with the boxes of the file of the same name in `labels/`.

    A line is `class x y width height`: a class number, and the centre and the sides as fractions of the image's. An
    image without a file shows no object. Boxes are cropped as their image is; of which less than half is left are out.

    Args:
        path: of the folder.
        input: of the network.
        output: of the network.
        progress: where to report.

    Raises:
        BadInputError: another layout, a line that is no box, or an unknown class.
    """
    import numpy as np

    if not ((path / IMAGES).is_dir() and (path / LABELS).is_dir()):
        raise wrong_layout(path, f"the folders {IMAGES} and {LABELS} were expected", output)
    files = images_below(path / IMAGES)
    if not files:
        raise BadInputError(f"images {path}: {IMAGES} holds no images", hint=example_of(output))
    tables = [(path / LABELS / file.relative_to(path / IMAGES)).with_suffix(SUFFIX) for file in files]
    bare = [file for file, table in zip(files, tables, strict=True) if not table.is_file()]
    if len(bare) == len(files):
        raise BadInputError(
            f"images {path}: no file in {LABELS} is named as an image is, {some(bare, path)}", hint=example_of(output)
        )
    found: list[list[Box]] = []
    num_out = 0
    with progress.task("read boxes", len(files), "files") as task:
        for file, table in zip(files, tables, strict=True):
            fractions = _read_table(table, output) if table.is_file() else []
            seen = _crop(fractions, file, input)
            num_out += len(fractions) - len(seen)
            found.append(seen)
            task.advance()
    notes = []
    if bare:
        notes.append(f"{path.name}: images without a file in {LABELS} show no object: {some(bare, path)}")
    if num_out:
        notes.append(f"{path.name}: {num_out:,} boxes of which the crop leaves less than half were left out")
    labels_NM5: NDArray[numpy.float32] = np.full((len(files), max(map(len, found)), 5), NO_BOX, np.float32)
    for labels_M5, seen in zip(labels_NM5, found, strict=True):
        labels_M5[: len(seen)] = np.array(seen, np.float32).reshape(-1, 5)
    return Labelled(tuple(files), boxes(str(path), labels_NM5, output), tuple(notes))


def _read_table(table: Path, output: OutputSpec) -> list[Box]:
    """Class, and left, top, right and bottom as fractions, of every line."""
    try:
        if table.stat().st_size > MAX_BYTES:
            raise BadInputError(f"{table}: is larger than {MAX_BYTES >> 20} MiB", hint=example_of(output))
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{table}: cannot be read as text: {error}", hint=example_of(output)) from error
    return [_read_line(table, number, line, output) for number, line in enumerate(lines, 1) if line.strip()]


def _read_line(table: Path, number: int, line: str, output: OutputSpec) -> Box:
    try:
        label, x, y, width, height = (float(cell) for cell in line.split())
    except ValueError:
        label, x, y, width, height = [math.nan] * 5
    is_box = label >= 0 and 0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1
    if not is_box:
        raise BadInputError(
            f"{table}: line {number} should be a class number and four fractions from 0 to 1, found {line[:80]!r}",
            hint=example_of(output),
        )
    return label, x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _crop(fractions: Sequence[Box], file: Path, input: InputSpec) -> list[Box]:
    """Boxes in pixels of the network's input, of which at least half is in it."""
    from PIL import Image

    if not fractions:
        return []
    with decoding(file), Image.open(file) as opened:
        size = upright(opened).size
    _, height, width = input.shape
    across, down, left, top = crop_of(size, height, width) if size != (width, height) else (width, height, 0, 0)
    seen: list[Box] = []
    for label, *corners in fractions:
        x1, y1, x2, y2 = (
            corner * side - start
            for corner, side, start in zip(corners, (across, down) * 2, (left, top) * 2, strict=True)
        )
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        area = max(inside[2] - inside[0], 0.0) * max(inside[3] - inside[1], 0.0)
        if area >= _LEAST_SEEN * (x2 - x1) * (y2 - y1):
            seen.append((label, *inside))
    return seen
