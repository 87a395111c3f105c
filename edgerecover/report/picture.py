"""A contact sheet of the dreams, one row per class: people look before they read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgerecover.synthesize.image_set import ImageSet

_COLUMNS = 10
_ROWS = 10
_GAP_PX = 2
_TILE_PX = 64


def contact_sheet(images: ImageSet) -> bytes:
    """PNG of up to 10 × 10 dreams: a row per class where they have class targets, else in order.

    Small images are enlarged without smoothing; more than three channels show the first three as RGB.
    """
    import numpy as np
    from PIL import Image

    rows = _rows(images)
    side = max(images.bytes_of([0]).shape[2:])
    zoom = max(1, _TILE_PX // side)
    height, width = (px * zoom for px in images.bytes_of([0]).shape[2:])
    sheet = Image.new(
        "RGB",
        (
            _GAP_PX + max(len(row) for row in rows) * (width + _GAP_PX),
            _GAP_PX + len(rows) * (height + _GAP_PX),
        ),
        "white",
    )
    for r, row in enumerate(rows):
        for c, pixels_CHW in enumerate(images.bytes_of(row)):
            colours = pixels_CHW[:3] if len(pixels_CHW) >= 3 else np.repeat(pixels_CHW[:1], 3, axis=0)
            tile = Image.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0)))
            tile = tile.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (_GAP_PX + c * (width + _GAP_PX), _GAP_PX + r * (height + _GAP_PX)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _rows(images: ImageSet) -> list[list[int]]:
    targets = images.targets()
    if not targets:
        some = list(range(min(len(images), _ROWS * _COLUMNS)))
        return [some[start : start + _COLUMNS] for start in range(0, len(some), _COLUMNS)]
    by_class: dict[int, list[int]] = {}
    for index, target in enumerate(targets):
        by_class.setdefault(target, []).append(index)
    return [by_class[target][:_COLUMNS] for target in sorted(by_class)[:_ROWS]]
