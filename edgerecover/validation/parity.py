"""The exported file against PyTorch, and lower precision against float32, on the same images.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Parity, PrecisionLoss
from edgerecover.validation.fidelity import agreement, agrees, require_same_shape
from edgerecover.validation.scores import in_blocks

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
    not_finite = float(np.finfo(np.float32).max)
    max_abs = sum_abs = total = squares = 0.0
    num_finite = 0
    for reference_nK, onnx_nK in in_blocks(torch_logits_NK, onnx_logits_NK):
        with np.errstate(invalid="ignore"):  # inf - inf
            difference_nK = np.abs(reference_nK - onnx_nK)
        difference_nK = np.nan_to_num(difference_nK, nan=not_finite, posinf=not_finite)
        max_abs, sum_abs = max(max_abs, float(difference_nK.max())), sum_abs + float(difference_nK.sum())
        finite = reference_nK[np.isfinite(reference_nK)]
        num_finite, total = num_finite + finite.size, total + float(finite.sum())
    mean = total / max(1, num_finite)
    for (reference_nK,) in in_blocks(torch_logits_NK):
        squares += float(((reference_nK[np.isfinite(reference_nK)] - mean) ** 2).sum())
    return Parity(
        num_images=len(torch_logits_NK),
        max_abs=max_abs,
        mean_abs=sum_abs / torch_logits_NK.size,
        logit_scale=math.sqrt(squares / max(1, num_finite)),
        top1_agreement=agreement(torch_logits_NK, onnx_logits_NK).value,
    )


def precision_loss(
    teacher_logits_NK: NDArray[Any], float32_logits_NK: NDArray[Any], variant_logits_NK: NDArray[Any]
) -> PrecisionLoss:
    """What a variant of lower precision decides differently from the float32 file, judged by the teacher.

    Raises:
        ValueError: the shapes differ, are not (N, K), or N is 0.
    """
    if not len(teacher_logits_NK):
        raise ValueError("the loss of precision needs at least one image")
    float32_N, variant_N = agrees(float32_logits_NK, teacher_logits_NK), agrees(variant_logits_NK, teacher_logits_NK)
    return PrecisionLoss(
        num_images=len(teacher_logits_NK),
        float32_only=int((float32_N & ~variant_N).sum()),
        variant_only=int((variant_N & ~float32_N).sum()),
        changed=int((~agrees(variant_logits_NK, float32_logits_NK)).sum()),
    )
