"""Which values of an array of images are black and white: settled by their type or, where it is open, by them."""

# Shapes: N images, H height, W width, C channels.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEAR = 0.1
"""Of black to white: images that were normalised by this mean and std come as near to both."""
_ROUNDING = 0.01


@dataclass(frozen=True)
class PixelScale:
    """How values become pixels from 0 to 255: times `factor`, plus `offset`; per channel, or one for all."""

    factor: tuple[float, ...]
    offset: tuple[float, ...] = (0.0,)
    reading: str = ""
    """In words, where the values settled it and not the type: "float32 from 0 to 1: 1 is white"."""


def scale_of_pixels(images_NHWC: NDArray[Any], input: InputSpec, where: str) -> PixelScale:
    """Settle what black and white are.

    Args:
        images_NHWC: of any type.
        input: of the network that they are for.
        where: they come from, for messages.

    Raises:
        BadInputError: the values fit no scale.
    """
    import numpy as np

    dtype = images_NHWC.dtype
    if dtype == np.uint8:
        return PixelScale((1.0,))
    if dtype == np.bool_:
        return PixelScale((255.0,), reading=f"{dtype}: True is white")
    span = str(dtype)
    is_integer = np.issubdtype(dtype, np.integer)
    if is_integer or np.issubdtype(dtype, np.floating):
        lowest, highest = images_NHWC.min(), images_NHWC.max()  # NaN where one is NaN, and then nothing below holds
        span = f"{dtype} from {lowest:g} to {highest:g}"
        if not is_integer and lowest >= 0 and highest <= 1:
            return PixelScale((255.0,), reading=f"{span}: 1 is white")
        if lowest >= 0 and highest <= 255 and (is_integer or bool((images_NHWC % 1 == 0).all())):
            return PixelScale((1.0,), reading=f"{span}: 255 is white")
        if dtype == np.uint16:
            return PixelScale((255 / 0xFFFF,), reading=f"{span}: 65,535 is white")
        if not is_integer and _is_normalised(images_NHWC, input):
            return _normalised(input, f"{span}: taken as normalised by the model's mean and std")
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise BadInputError(
                f"images {where}: pixels are NaN or infinite", hint="look for a division by zero where they were made"
            )
    raise BadInputError(
        f"images {where}: pixels of type uint8 or uint16, or floats from 0 (black) to 1 (white), were expected, "
        f"found {span}",
        hint="store 8-bit pixels as uint8, not normalised: mean and std of the model's input are applied here",
    )


def _is_normalised(images_NHWC: NDArray[Any], input: InputSpec) -> bool:
    """Whether black and white of this mean and std are about the least and the greatest value.

    Values that stay far within them were probably normalised by others.
    """
    import numpy as np

    low_C, high_C = (np.asarray(bound) for bound in input.bounds())
    darkest_C, brightest_C = (
        (edge_C - low_C) / (high_C - low_C) for edge_C in (images_NHWC.min((0, 1, 2)), images_NHWC.max((0, 1, 2)))
    )
    is_within = darkest_C.min() > -_ROUNDING and brightest_C.max() < 1 + _ROUNDING
    return bool(is_within and darkest_C.min() < _NEAR and brightest_C.max() > 1 - _NEAR)


def _normalised(input: InputSpec, reading: str) -> PixelScale:
    low_C, high_C = input.bounds()
    factors = tuple(255 / (high - low) for low, high in zip(low_C, high_C, strict=True))
    return PixelScale(factors, tuple(-low * factor for low, factor in zip(low_C, factors, strict=True)), reading)
