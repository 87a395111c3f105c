"""How often two models decide alike. Shapes: N images, K classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Proportion

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


def agreement(logits_a_NK: NDArray[Any], logits_b_NK: NDArray[Any]) -> Proportion:
    """Top-1 agreement; images for which either model gives a NaN count as disagreement.

    Raises:
        ValueError: the shapes differ or are not (N, K).
    """
    agree_N = agrees(logits_a_NK, logits_b_NK)
    return Proportion(hits=int(agree_N.sum()), total=len(agree_N))


def agrees(logits_a_NK: NDArray[Any], logits_b_NK: NDArray[Any]) -> NDArray[numpy.bool_]:
    """Per image, whether both decide alike; a NaN never does.

    Raises:
        ValueError: the shapes differ or are not (N, K).
    """
    require_same_shape(logits_a_NK, logits_b_NK)
    agree_N: NDArray[numpy.bool_] = logits_a_NK.argmax(1) == logits_b_NK.argmax(1)
    return agree_N & _readable(logits_a_NK) & _readable(logits_b_NK)


def correct(logits_NK: NDArray[Any], labels_N: NDArray[numpy.int64]) -> NDArray[numpy.bool_]:
    """Per image, whether the top-1 class is the label; a NaN is never right.

    Raises:
        ValueError: not one label per row of logits.
    """
    if logits_NK.ndim != 2 or labels_N.shape != (len(logits_NK),):
        raise ValueError(f"logits (N, K) and labels (N,) were expected, found {logits_NK.shape}, {labels_N.shape}")
    hits_N: NDArray[numpy.bool_] = (logits_NK.argmax(1) == labels_N) & _readable(logits_NK)
    return hits_N


def require_same_shape(logits_a_NK: NDArray[Any], logits_b_NK: NDArray[Any]) -> None:
    """Check that both are (N, K) with the same N and K.

    Raises:
        ValueError: they are not.
    """
    if logits_a_NK.ndim != 2 or logits_a_NK.shape != logits_b_NK.shape:
        raise ValueError(f"two logits (N, K) were expected, found {logits_a_NK.shape} and {logits_b_NK.shape}")


def _readable(logits_NK: NDArray[Any]) -> NDArray[numpy.bool_]:
    import numpy as np

    readable_N: NDArray[numpy.bool_] = ~np.isnan(logits_NK).any(axis=1)
    return readable_N
