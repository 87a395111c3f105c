"""Pictures of the synthetic images, by class."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgerecover.artifacts import Sheet

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgerecover.synthesis.image_set import ImageSet

SHEET_NAME = "dreams.png"
_COLUMNS = 10
_ROWS = 10
_GAP_PX = 2
_SMALLEST_TILE_PX = 64
_LARGEST_TILE_PX = 96
_EMPTY = -1
_JPEG_QUALITY = 85
_LARGEST_SIDE = 2048
"""Largest side of a sheet that is read, in pixels; the sheets made here have about half of it."""


def contact_sheet(images: ImageSet) -> tuple[bytes, Sheet]:
    """PNG of up to 10 × 10 dreams, and its layout.

    Up to ten classes get a row each; more classes share the places evenly, and of more than a hundred classes, a
    hundred evenly spaced ones are shown. Without class targets, images are shown in order. Small images are enlarged
    without smoothing, large ones are reduced; of more than three channels, the first three are shown as RGB.
    """
    from PIL import Image

    places = _places(images)
    height, width = _tile_size(*images.bytes_of([0]).shape[2:])
    columns = max(len(row) for row in places)
    size = (_GAP_PX + columns * (width + _GAP_PX), _GAP_PX + len(places) * (height + _GAP_PX))
    picture = Image.new("RGB", size, "white")
    for r, row in enumerate(places):
        for c, index in enumerate(row):
            tile = _tile(images, index).resize((width, height), _resampling(images, height))
            picture.paste(tile, (_GAP_PX + c * (width + _GAP_PX), _GAP_PX + r * (height + _GAP_PX)))
    targets = images.targets()
    classes: list[int | None] = []
    for row in places:
        classes += [targets[index] if targets else None for index in row]
        classes += [_EMPTY] * (columns - len(row))
    return _encode(picture, "PNG"), Sheet(SHEET_NAME, columns, height, width, _GAP_PX, tuple(classes))


@dataclass(frozen=True)
class Strip:
    """The images of one class, side by side."""

    class_number: int | None
    """None: the images were made for no class."""
    num_images: int
    width_px: int
    height_px: int
    media_type: str
    content: bytes


def strips(sheet_png: bytes, sheet: Sheet, max_bytes: int, max_images: int = 10) -> tuple[Strip, ...]:
    """The images of a sheet, cut out class by class; fewer classes if all would not fit in `max_bytes`.

    Raises:
        ValueError: the picture is not a readable PNG, or smaller than the sheet says.
    """
    picture = _open_sheet(sheet_png, sheet)
    tiles: dict[int | None, list[Image]] = {}
    for place, number in enumerate(sheet.classes):
        if number != _EMPTY and len(tiles.setdefault(number, [])) < max_images:
            left = sheet.gap_px + place % sheet.columns * (sheet.tile_width_px + sheet.gap_px)
            top = sheet.gap_px + place // sheet.columns * (sheet.tile_height_px + sheet.gap_px)
            tiles[number].append(picture.crop((left, top, left + sheet.tile_width_px, top + sheet.tile_height_px)))
    for image_format in ("PNG", "JPEG"):
        cut = [_strip(number, of_class, sheet.gap_px, image_format) for number, of_class in tiles.items()]
        if sum(len(strip.content) for strip in cut) <= max_bytes:
            return tuple(cut)
    return _evenly(cut, max_bytes)


def _open_sheet(sheet_png: bytes, sheet: Sheet) -> Image:
    """Open the sheet and check that it is as the report describes it: bundles are untrusted."""
    import warnings

    from PIL import Image

    sides = (sheet.columns, sheet.tile_height_px, sheet.tile_width_px, sheet.gap_px + 1)
    lowest = min((number for number in sheet.classes if number is not None), default=_EMPTY)
    if lowest < _EMPTY or not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise ValueError(f"{sheet.path}: the report describes an impossible contact sheet")
    rows = -(-len(sheet.classes) // sheet.columns)
    step_y, step_x = sheet.tile_height_px + sheet.gap_px, sheet.tile_width_px + sheet.gap_px
    size = (sheet.gap_px + sheet.columns * step_x, sheet.gap_px + rows * step_y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(sheet_png), formats=("PNG",)) as opened:
                if opened.size != size or size[0] * size[1] > _LARGEST_SIDE**2:
                    raise ValueError(f"{sheet.path} does not have the size that the report says")
                return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{sheet.path} cannot be read as a picture: {error}") from error


def _evenly(cut: list[Strip], max_bytes: int) -> tuple[Strip, ...]:
    """As many strips as fit, evenly spaced."""
    for every in range(2, len(cut) + 1):
        kept = cut[::every]
        if sum(len(strip.content) for strip in kept) <= max_bytes:
            return tuple(kept)
    return ()


def _strip(number: int | None, tiles: list[Image], gap_px: int, image_format: str) -> Strip:
    from PIL import Image

    width, height = tiles[0].size
    joined = Image.new("RGB", (len(tiles) * (width + gap_px) - gap_px, height), "white")
    for place, tile in enumerate(tiles):
        joined.paste(tile, (place * (width + gap_px), 0))
    media_type = f"image/{image_format.lower()}"
    return Strip(number, len(tiles), *joined.size, media_type, _encode(joined, image_format))


def _encode(picture: Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, optimize=True, quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _tile_size(height: int, width: int) -> tuple[int, int]:
    """Pixels of a tile: a whole multiple of a small image, at most `_LARGEST_TILE_PX` of a large one."""
    side = max(height, width)
    if side <= _LARGEST_TILE_PX:
        zoom = max(1, _SMALLEST_TILE_PX // side)
        return height * zoom, width * zoom
    return max(1, round(height * _LARGEST_TILE_PX / side)), max(1, round(width * _LARGEST_TILE_PX / side))


def _resampling(images: ImageSet, tile_height: int) -> int:
    from PIL import Image

    is_enlarged = tile_height >= images.bytes_of([0]).shape[2]
    return Image.Resampling.NEAREST if is_enlarged else Image.Resampling.LANCZOS


def _tile(images: ImageSet, index: int) -> Image:
    import numpy as np
    from PIL import Image

    (pixels_CHW,) = images.bytes_of([index])
    colours = pixels_CHW[:3] if len(pixels_CHW) >= 3 else np.repeat(pixels_CHW[:1], 3, axis=0)
    return Image.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0)))


def _places(images: ImageSet) -> list[list[int]]:
    """Indices of the images that are shown, row by row."""
    targets = images.targets()
    if not targets:
        return _rows(range(min(len(images), _ROWS * _COLUMNS)))
    by_class: dict[int, list[int]] = {}
    for index, target in enumerate(targets):
        by_class.setdefault(target, []).append(index)
    numbers = sorted(by_class)
    if len(numbers) <= _ROWS:
        return [by_class[number][:_COLUMNS] for number in numbers]
    room = _ROWS * _COLUMNS
    shown = [numbers[place * len(numbers) // room] for place in range(room)] if len(numbers) > room else numbers
    each = max(1, room // len(shown))
    return _rows([index for number in shown for index in by_class[number][:each]])


def _rows(indices: range | list[int]) -> list[list[int]]:
    return [list(indices[start : start + _COLUMNS]) for start in range(0, len(indices), _COLUMNS)]
