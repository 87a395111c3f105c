"""Bias correction: what rounding the weights adds to a layer's mean output is subtracted from its bias.

A layer's mean output shifts by (W̃ - W) E[x]; E[x] per input channel is known from the calibration images (Nagel et
al. 2019, arXiv 1906.04721, equation 16, with measured means instead of batch norm's). Borders, where padding
contributes, are treated like the interior.
"""

# Shapes: O output channels, I input channels of a group, G groups, C all input channels.

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts.int8 import Int8Scheme
from edgerecover.export.precision.graph import Graph
from edgerecover.export.precision.integers import integer_weight, layers_of
from edgerecover.export.precision.ranges import Ranges

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def correct_biases(graph: Graph, ranges: Ranges, scheme: Int8Scheme, *, kept: Collection[str] = ()) -> Graph:
    """A copy whose Conv and Gemm layers, once quantised by `scheme`, have the float network's mean outputs."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    chosen = set(layers_of(graph)) - set(kept)
    for node in model.graph.node:
        if node.name not in chosen or node.op_type not in ("Conv", "Gemm"):
            continue
        shift_O = _mean_shift(graph, node, ranges, scheme)
        bias = graph.initializers.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        is_computed = len(node.input) > 2 and node.input[2] and bias is None
        if shift_O is None or is_computed:
            continue
        before_O = numpy_helper.to_array(bias).astype(np.float64) if bias is not None else np.zeros(len(shift_O))
        if before_O.shape != shift_O.shape:
            continue
        name = f"{node.name}.corrected_bias"
        model.graph.initializer.append(numpy_helper.from_array((before_O - shift_O).astype(np.float32), name))
        del node.input[2:]
        node.input.append(name)
    return Graph(model)


def _mean_shift(graph: Graph, node: onnx.NodeProto, ranges: Ranges, scheme: Int8Scheme) -> NDArray[Any] | None:
    """Shift per output channel; None if the inputs' means are unknown, or the product has factors (Gemm's alpha)."""
    import numpy as np
    from onnx import numpy_helper

    seen, tensor = ranges.get(node.input[0]), graph.weight_of(node)
    if seen is None or seen.channel_means is None or tensor is None:
        return None
    flags = {a.name: a for a in node.attribute}
    if any(name in flags and flags[name].f != 1.0 for name in ("alpha", "beta")):
        return None
    integers, scale_O, axis = integer_weight(graph, node, scheme)
    shape = [1] * integers.ndim
    shape[axis] = -1
    error = integers * scale_O.reshape(shape) - numpy_helper.to_array(tensor).astype(np.float64)
    if node.op_type == "Gemm":
        error_OI = error if axis == 0 else error.T
        num_groups = 1
    else:
        error_OI = error.reshape(*error.shape[:2], -1).sum(-1)
        num_groups = int(flags["group"].i) if "group" in flags else 1
    if len(seen.channel_means) != num_groups * error_OI.shape[1]:
        return None
    means_GI = seen.channel_means.reshape(num_groups, -1)
    shift_O: NDArray[Any] = np.einsum("goi,gi->go", error_OI.reshape(num_groups, -1, error_OI.shape[1]), means_GI)
    return shift_O.reshape(-1)
