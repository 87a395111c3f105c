"""What kind of numbers a classifier's file gives: logits, or what a softmax made of them.

Decisions are the same on all three scales; differences and margins are not. Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE = 0.01
"""Of a sum that should be 1: half precision and 8-bit outputs round."""
_SMALLEST = 1e-38
"""Stands for a probability that float32 rounds to 0; its logarithm is finite."""
_BLOCK_ROWS = 2048
"""Images taken at a time where scores are widened to float64: a copy of those of 50,000 images is 400 MB."""
_BLOCK_VALUES = 1 << 23
"""Of maps, which are large, fewer images are taken."""


class Scale(str, Enum):
    """The scale of a classifier's scores."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"


def in_blocks(*scores_NK: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same images' scores (n, K), or (n, A, K), of several models, some images at a time, as float64."""
    import numpy as np

    num_rows = max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // max(1, math.prod(scores_NK[0].shape[1:]))))
    for start in range(0, len(scores_NK[0]), num_rows):
        yield tuple(scores[start : start + num_rows].astype(np.float64) for scores in scores_NK)


def scale_of(scores_NK: NDArray[Any]) -> Scale:
    """Recognised by the numbers: the probabilities of every image add up to 1."""
    import numpy as np

    possible = {Scale.PROBABILITIES, Scale.LOG_PROBABILITIES}
    for (block_nK,) in in_blocks(scores_NK):
        if not np.isfinite(block_nK).all():
            return Scale.LOGITS
        if (block_nK < 0).any() or (np.abs(block_nK.sum(axis=1) - 1) >= _TOLERANCE).any():
            possible.discard(Scale.PROBABILITIES)
        if (block_nK > 0).any() or (np.abs(np.exp(block_nK).sum(axis=1) - 1) >= _TOLERANCE).any():
            possible.discard(Scale.LOG_PROBABILITIES)
        if not possible:
            return Scale.LOGITS
    return Scale.PROBABILITIES if Scale.PROBABILITIES in possible else Scale.LOG_PROBABILITIES


def as_logits(scores_NK: NDArray[Any]) -> NDArray[Any]:
    """Scores of any scale as logits, up to a constant per image: log p keeps every margin of the logits behind it."""
    import numpy as np

    if scale_of(scores_NK) is Scale.PROBABILITIES:
        logits_NK: NDArray[Any] = np.log(np.maximum(scores_NK, np.asarray(_SMALLEST, scores_NK.dtype)))
        return logits_NK
    return scores_NK


def on_scale(scores_NK: NDArray[Any], scale: Scale) -> NDArray[Any]:
    """Scores of any scale as those of `scale`; where they are on it already, themselves."""
    import numpy as np

    if scale_of(scores_NK) is scale:
        return scores_NK
    logits_NK = as_logits(scores_NK)
    if scale is Scale.LOGITS:
        return logits_NK
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    log_NK: NDArray[Any] = shifted_NK - np.log(np.exp(shifted_NK).sum(axis=1, keepdims=True))
    return log_NK if scale is Scale.LOG_PROBABILITIES else np.exp(log_NK)
