"""The exported file against PyTorch, and lower precision against float32, on the same images.

Shapes: N images, D outputs for each, n images at a time.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Difference, Parity, PrecisionLoss
from edgerecover.tasks.measure import Answers, Measure
from edgerecover.validation.fidelity import agreement, amount, only_first, require_same_shape
from edgerecover.validation.scores import in_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compare(torch_ND: NDArray[Any], onnx_ND: NDArray[Any], measure: Measure) -> Parity:
    """Largest and mean difference of the outputs, and how far both answer alike; of several outputs, of the worst.

    A difference that is not finite (a NaN or an overflow on one side) counts as the largest float32, which no
    gate lets pass and which, unlike infinity, JSON can hold.

    Raises:
        ValueError: the shapes differ, are not (N, D), or N is 0.
    """

    require_same_shape(torch_ND, onnx_ND)
    if len(measure.parts) > 1:
        return _worst({name: compare(torch_ND[:, part], onnx_ND[:, part], one) for name, part, one in measure.parts})
    if not len(torch_ND):
        raise ValueError("parity needs at least one image")
    difference, mean_abs = _difference(torch_ND, onnx_ND)
    ours, theirs = (measure.quantities(outputs_ND) for outputs_ND in (torch_ND, onnx_ND))
    return Parity(
        num_images=len(torch_ND),
        max_abs=difference.max_abs,
        mean_abs=mean_abs,
        logit_scale=difference.deviation,
        top1_agreement=agreement(torch_ND, onnx_ND, measure).value,
        by_quantity={name: _difference(values, theirs[name])[0] for name, values in ours.items()},
    )


def _difference(torch_ND: NDArray[Any], onnx_ND: NDArray[Any]) -> tuple[Difference, float]:
    """The largest one with its scale, and the mean; any number of axes after that of the images."""
    import numpy as np

    not_finite = float(np.finfo(np.float32).max)
    max_abs = sum_abs = total = squares = 0.0
    num_finite = 0
    for reference_nD, onnx_nD in in_blocks(torch_ND, onnx_ND):
        with np.errstate(invalid="ignore"):  # inf - inf
            difference_nD = np.abs(reference_nD - onnx_nD)
        difference_nD = np.nan_to_num(difference_nD, nan=not_finite, posinf=not_finite)
        max_abs, sum_abs = max(max_abs, float(difference_nD.max())), sum_abs + float(difference_nD.sum())
        finite = reference_nD[np.isfinite(reference_nD)]
        num_finite, total = num_finite + finite.size, total + float(finite.sum())
    mean = total / max(1, num_finite)
    for (reference_nD,) in in_blocks(torch_ND):
        squares += float(((reference_nD[np.isfinite(reference_nD)] - mean) ** 2).sum())
    return Difference(max_abs, math.sqrt(squares / max(1, num_finite))), sum_abs / torch_ND.size


def _worst(by_output: dict[str, Parity]) -> Parity:
    """What a gate asks of every output: the largest difference in deviations, and the lowest agreement."""
    worst = max(by_output.values(), key=lambda parity: parity.relative)
    return replace(worst, top1_agreement=min(one.top1_agreement for one in by_output.values()), by_output=by_output)


def precision_loss(teacher: Answers, float32: Answers, variant: Answers, measure: Measure) -> PrecisionLoss:
    """What a variant of lower precision answers differently from the float32 file, judged by the teacher.

    Raises:
        ValueError: there are no images.
    """
    if not len(teacher):
        raise ValueError("the loss of precision needs at least one image")
    float32_N, variant_N = (measure.share(answers, teacher) for answers in (float32, variant))
    return PrecisionLoss(
        num_images=len(teacher),
        float32_only=only_first(float32_N, variant_N),
        variant_only=only_first(variant_N, float32_N),
        changed=amount((1 - measure.share(variant, float32)).sum()),
    )
