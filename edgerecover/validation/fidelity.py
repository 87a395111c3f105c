"""How far two models answer alike. Shapes: N images, D outputs for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Proportion
from edgerecover.tasks.measure import Measure

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


def agreement(outputs_ND: NDArray[Any], reference_ND: NDArray[Any], measure: Measure) -> Proportion:
    """Agreement with a reference; images for which either gives no number count as disagreement.

    Raises:
        ValueError: the shapes differ or are not (N, D).
    """
    return proportion(shares(outputs_ND, reference_ND, measure))


def shares(outputs_ND: NDArray[Any], reference_ND: NDArray[Any], measure: Measure) -> NDArray[numpy.float64]:
    """For each image, how far both answer alike, 0 to 1.

    Raises:
        ValueError: the shapes differ or are not (N, D).
    """
    require_same_shape(outputs_ND, reference_ND)
    return measure.share(measure.read(outputs_ND), measure.read(reference_ND))


def shares_of_truth(outputs_ND: NDArray[Any], truth: NDArray[Any], measure: Measure) -> NDArray[numpy.float64]:
    """For each image, how right its answer is, 0 to 1.

    Raises:
        ValueError: not one truth for each row of outputs.
    """
    if len(outputs_ND) != len(truth):
        raise ValueError(f"one truth for each image was expected, found {len(truth)} for {len(outputs_ND)}")
    return measure.share_of_truth(measure.read(outputs_ND), truth)


def proportion(shares_N: NDArray[Any]) -> Proportion:
    """Their sum of their number; whole where every image counts 0 or 1."""
    return Proportion(amount(shares_N.sum()), len(shares_N))


def amount(total: float) -> float:
    """A sum of shares, as an integer where it is one: rounded to what no image is worth."""
    rounded = round(float(total), 6)
    return int(rounded) if rounded == int(rounded) else rounded


def only_first(first_N: NDArray[Any], second_N: NDArray[Any]) -> float:
    """How much more the first has right than the second, over the images on which it does."""
    return amount((first_N - second_N).clip(min=0).sum())


def require_same_shape(a_ND: NDArray[Any], b_ND: NDArray[Any]) -> None:
    """Check that both are (N, D) with the same N and D.

    Raises:
        ValueError: they are not.
    """
    if a_ND.ndim != 2 or a_ND.shape != b_ND.shape:
        raise ValueError(f"two outputs (N, D) were expected, found {a_ND.shape} and {b_ND.shape}")
