"""Checking the 2:4 pattern in the exported file, whose weights are read back as the device will read them."""

from __future__ import annotations

from pathlib import Path

from edgerecover.artifacts import TwoFour
from edgerecover.models.onnx.weights import OnnxWeight, weights_of


def check_two_four(path: Path) -> TwoFour:
    """Count the groups of four input channels that hold more than two non-zero weights.

    Checked are Conv, ConvTranspose, Gemm and MatMul weights, each tensor once, whose input channels (per group) are a
    multiple of four.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    counts = [_num_dense_groups(weight) for weight in weights_of(model, path.parent)]
    eligible = [count for count in counts if count is not None]
    return TwoFour(num_layers=len(eligible), num_dense_groups=sum(eligible))


def _num_dense_groups(weight: OnnxWeight) -> int | None:
    """Number of groups of one weight that are not 2:4; None if the layer cannot be 2:4."""
    import numpy as np

    axis = weight.input_axis
    if axis is None or weight.is_zero.shape[axis] % 4:
        return None
    groups_G4 = np.moveaxis(weight.is_zero, axis, -1).reshape(-1, 4)
    return int((np.count_nonzero(groups_G4, axis=1) < 2).sum())
