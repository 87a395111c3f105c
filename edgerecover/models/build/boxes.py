"""Whether a network's outputs are candidates of boxes as detection reads them.

Shapes: N images, A candidates, K classes, V = 4 + K numbers of a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerecover.artifacts import NUM_BOX_VALUES, Activation, InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.network.examples import example_images

if TYPE_CHECKING:
    from torch import Tensor, nn

CANDIDATES = (
    "(N, 4 + K, A) or (N, A, 4 + K) of A > 4 + K candidates: centre x, y, width and height in pixels of the input, "
    "then a score for each class"
)
NUM_IMAGES = 4
"""Of a trial of a network's outputs."""
_FAR = 2.0
"""Centres are not in pixels where none is this many pixels from the corner."""
_LEAST_INSIDE = 0.5
"""Share of the candidates whose centres are inside the image."""


def candidates_of(network: nn.Module, input: InputSpec) -> Tensor:
    """Outputs of a few images, (N, A, 4 + K)."""
    import torch

    with torch.no_grad():
        outputs: Tensor = network(example_images(input, NUM_IMAGES))
    return outputs if outputs.shape[1] > outputs.shape[2] else outputs.transpose(1, 2)


def fits_candidates(shape: tuple[int, ...]) -> bool:
    """Whether one image's output can be candidates: two axes, of which the shorter holds a box and scores."""
    return len(shape) == 2 and NUM_BOX_VALUES < min(shape) < max(shape)


def mistake_of(outputs_NAV: Tensor, input: InputSpec) -> tuple[str, str] | None:
    """What of candidates is not as detection reads them, and what to do; None if all is.

    Args:
        outputs_NAV: of a few images, finite.
        input: of the network.
    """
    _, height, width = input.shape
    boxes_NA4, scores_NAK = outputs_NAV[..., :NUM_BOX_VALUES], outputs_NAV[..., NUM_BOX_VALUES:]
    x, y, third, fourth = boxes_NA4.unbind(2)
    if bool((third < 0).any() or (fourth < 0).any()):
        return (
            f"the third and fourth number of a candidate should be a width and a height, found {float(third.min()):g} "
            f"and {float(fourth.min()):g}",
            f"return {CANDIDATES}",
        )
    if bool(((third >= x) & (fourth >= y)).all()):
        return (
            "the third and fourth number of every candidate are larger than the first and second: corners, or all "
            "boxes begin outside the image",
            "return the centre and the sides, in pixels: (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1",
        )
    furthest = max(float(x.max()), float(y.max()))
    if min(height, width) > _FAR and furthest < _FAR:
        return (
            f"the centres of boxes lie between 0 and {furthest:.2f}, which are not pixels of an input of "
            f"{height} × {width}",
            "return boxes in pixels: times the width and the height of the input",
        )
    inside = float(((x >= 0) & (x <= width) & (y >= 0) & (y <= height)).float().mean())
    if inside < _LEAST_INSIDE:
        return (
            f"{1 - inside:.0%} of the boxes have their centre outside the image of {height} × {width}",
            f"return {CANDIDATES}",
        )
    between_K = ((scores_NAK >= 0) & (scores_NAK <= 1)).flatten(0, 1).all(0)
    if bool(between_K.any()) and not bool(between_K.all()):
        return (
            f"{int(between_K.sum())} of {len(between_K)} numbers after the box are probabilities, and the others are "
            "not",
            "return the box and the scores of the classes alone, without coefficients of masks or points",
        )
    return None


def check_candidates(outputs_NAV: Tensor, input: InputSpec, what: str) -> None:
    """Check that outputs are what detection reads.

    Raises:
        BadInputError: they are not, with what was found and what to return.
    """
    mistake = mistake_of(outputs_NAV, input)
    if mistake is not None:
        raise BadInputError(f"{what}: {mistake[0]}", hint=mistake[1])


def activation_of_scores(outputs_NAV: Tensor) -> Activation:
    """Whether scores are probabilities: all are from 0 to 1."""
    scores_NAK = outputs_NAV[..., NUM_BOX_VALUES:]
    return Activation.SIGMOID if bool(((scores_NAK >= 0) & (scores_NAK <= 1)).all()) else Activation.NONE
