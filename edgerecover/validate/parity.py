"""The exported file against PyTorch on the same images. Shapes: N images, K classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Parity
from edgerecover.validate.fidelity import agreement, require_same_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compare(torch_logits_NK: NDArray[Any], onnx_logits_NK: NDArray[Any]) -> Parity:
    """Largest and mean difference of the logits, and how often both decide alike.

    A difference that is not finite (a NaN or an overflow on one side) counts as the largest float32, which no
    gate lets pass and which, unlike infinity, JSON can hold.

    Raises:
        ValueError: the shapes differ, are not (N, K), or N is 0.
    """
    import numpy as np

    require_same_shape(torch_logits_NK, onnx_logits_NK)
    if not len(torch_logits_NK):
        raise ValueError("parity needs at least one image")
    largest = float(np.finfo(np.float32).max)
    reference_NK = torch_logits_NK.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        difference_NK = np.abs(reference_NK - onnx_logits_NK.astype(np.float64))
    difference_NK = np.nan_to_num(difference_NK, nan=largest, posinf=largest)
    finite = reference_NK[np.isfinite(reference_NK)]
    return Parity(
        num_images=len(reference_NK),
        max_abs=float(difference_NK.max()),
        mean_abs=float(difference_NK.mean()),
        logit_scale=float(finite.std()) if finite.size else 0.0,
        top1_agreement=agreement(torch_logits_NK, onnx_logits_NK).value,
    )
