"""Whether 2:4 still holds in the exported file: its weights are read back, as the device will read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import TwoFour

if TYPE_CHECKING:
    import numpy
    import onnx

_PASSED_ON = ("Identity", "Transpose", "Cast")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def check_two_four(path: Path) -> TwoFour:
    """Count the groups of four input channels that hold more than two non-zero weights.

    Conv, ConvTranspose, Gemm and MatMul weights are looked at, each tensor once, where their input channels (per
    group) are a multiple of four.
    """
    import onnx

    counts = [_num_dense_groups(weight, axis) for weight, axis in _weights(onnx.load(path).graph)]
    eligible = [count for count in counts if count is not None]
    return TwoFour(num_layers=len(eligible), num_dense_groups=sum(eligible))


def _num_dense_groups(weight: numpy.ndarray[Any, Any], axis: int) -> int | None:
    """None where the layer cannot be 2:4."""
    import numpy as np

    if weight.shape[axis] % 4:
        return None
    groups_G4 = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    return int((np.count_nonzero(groups_G4, axis=1) > 2).sum())


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[numpy.ndarray[Any, Any], int]]:
    """Each weight with the axis of its input channels."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type in _PASSED_ON}
    seen: set[str] = set()
    for node in graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        name, is_transposed = node.input[1], False
        while name in makers:
            is_transposed ^= makers[name].op_type == "Transpose"
            name = makers[name].input[0]
        if name in tensors and name not in seen:
            seen.add(name)
            axis = _input_axis(node)
            yield numpy_helper.to_array(tensors[name]), 1 - axis if is_transposed else axis


def _input_axis(node: onnx.NodeProto) -> int:
    """Of the weight as the node takes it: (O, I, …) of Conv, (I, O, …) of ConvTranspose and MatMul, Gemm says."""
    if node.op_type == "Gemm":
        return 1 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 0
    return 1 if node.op_type == "Conv" else 0
