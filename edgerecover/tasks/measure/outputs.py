"""What a network or file gives for many images: all answers, and no more scores than fit in memory.

Shapes: N images, n of them at a time, D numbers for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import OutputSpec

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Measure

MAX_MAP_BYTES = 128 << 20
"""Of maps of scores, which are 4 MB for an image of 224×224 pixels and 21 classes; rows of scores are all kept."""
_FEWEST_MAPS = 8
_MAX_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Outputs:
    """Of one network or file, for the same images as those of the others that it is compared with."""

    answers: Any
    """As its measure reads them, of all images."""
    is_finite: NDArray[numpy.bool_]
    """Whether all of an image's scores are, (N,)."""
    scores: NDArray[Any]
    """(m, D), of the first m images: of all, but of maps and candidates of boxes `MAX_MAP_BYTES` are kept."""

    def __len__(self) -> int:
        return len(self.is_finite)


def collect(batches: Iterable[NDArray[Any]], num_images: int, measure: Measure) -> Outputs:
    """Collect outputs (n, D) that come batch by batch.

    Raises:
        ValueError: they are not of so many images, or have another shape.
    """
    import numpy as np

    answers: list[Any] = []
    finite: list[NDArray[Any]] = []
    kept_MD: NDArray[Any] | None = None
    start = 0
    for outputs_nD in batches:
        answers.append(measure.read(outputs_nD))
        finite.append(np.isfinite(outputs_nD).all(axis=1))
        if kept_MD is None:  # not collected and joined: that takes twice the memory
            kept_MD = np.empty((num_kept(num_images, measure.output), outputs_nD.shape[1]), outputs_nD.dtype)
        of_kept = outputs_nD[: max(0, len(kept_MD) - start)]
        kept_MD[start : start + len(of_kept)] = of_kept
        start += len(outputs_nD)
    if kept_MD is None or start != num_images:
        raise ValueError(f"outputs of {num_images} images were expected, found {start}")
    return Outputs(np.concatenate(answers), np.concatenate(finite), kept_MD)


def num_kept(num_images: int, output: OutputSpec) -> int:
    """Images whose scores are kept: all, but of maps and candidates of boxes what `MAX_MAP_BYTES` hold, at least 8."""
    if not output.has_maps:
        return num_images
    return min(num_images, max(_FEWEST_MAPS, MAX_MAP_BYTES // (4 * output.num_values)))


def at_once(output: OutputSpec, most: int) -> int:
    """Images in a batch: `most`, or fewer where their outputs are large."""
    return max(1, min(most, _MAX_BATCH_BYTES // (4 * output.num_values)))
