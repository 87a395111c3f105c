"""int8 inside the file: QuantizeLinear and DequantizeLinear around what a runtime computes in integers.

onnxruntime's quantizer writes the nodes. Which nodes are quantised, the ranges of activations and the scales of weights
are decided here, because its defaults get some cases wrong: all-zero channels, weights that two layers share, sums of
residual streams, the logits.
"""

# Shapes: O output channels of a layer.

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from edgerecover.artifacts.int8 import Int8Scheme
from edgerecover.errors import StageError
from edgerecover.export.precision.graph import WEIGHTED, Graph
from edgerecover.export.precision.ranges import NUM_BINS, Ranges, Seen
from edgerecover.runtime.machine.silence import silence

if TYPE_CHECKING:
    import numpy
    import onnx
    from numpy.typing import NDArray

Clip = Literal["extremes", "least squares"]
"""How the range of an activation is chosen: all values seen, or the range whose rounding and clipping together make the
least squared error. (Percentiles lose more than either: docs/adr/0020.)"""
CLIPS: tuple[Clip, ...] = ("extremes", "least squares")
_SMALLEST_RANGE = 1e-4
"""Smallest range of an activation: a constant zero needs a scale, too."""
_COMPUTING = ("Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
_MOVING = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split")
"""Operators that pass values on. Not Pad: onnxruntime runs it in float, OpenVINO refuses it with a zero point."""
_GATING = ("Mul", "Sigmoid")


def layers_of(graph: Graph) -> tuple[str, ...]:
    """Names of the layers that can be int8: Conv, ConvTranspose, Gemm and MatMul with a stored float32 weight."""
    return tuple(node.name for node in graph.layers if _can_be_integer(graph, node))


def quantize(
    graph: Graph,
    ranges: Ranges,
    scheme: Int8Scheme,
    *,
    kept: Collection[str] = (),
    only: str | None = None,
    clip: Clip = "extremes",
) -> onnx.ModelProto:
    """A copy with QuantizeLinear and DequantizeLinear nodes.

    Args:
        graph: the prepared float32 model.
        ranges: ranges of all its tensors, with histograms if `clip` is not "extremes".
        scheme: what is quantised, and how.
        kept: names of layers that stay float32.
        only: name of the single layer to quantise, with its inputs and outputs; None for all.
        clip: how ranges of activations are chosen.

    Raises:
        StageError: onnxruntime's quantizer fails.
    """
    import onnx

    chosen = [name for name in layers_of(graph) if name not in set(kept)] if only is None else [only]
    others = _others(graph, scheme) if only is None else []
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    if not chosen:
        return model
    _separate_weights(model, graph, set(chosen))
    try:
        with silence():
            quantizer = _quantizer(model, graph, scheme, chosen, others, _tensor_ranges(ranges, clip, scheme))
            if not scheme.outputs and only is None:
                for name in _shortcuts(graph, set(chosen)):
                    quantizer.quantize_activation_tensor(name)
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            quantized: onnx.ModelProto = quantizer.model.model
            if scheme.float_ends:
                _free_outputs(quantized)
            if scheme.float_ends and graph.is_transformer:
                _free_readers(quantized, set(chosen))
            del quantized.graph.value_info[:]
            quantized = onnx.shape_inference.infer_shapes(quantized, data_prop=True)
    except Exception as error:  # a quantizer of many parts raises anything
        raise StageError(
            f"onnxruntime's quantizer fails on this network: {type(error).__name__}: {str(error)[:200]}",
            hint="use fp32 or fp16",
        ) from error
    quantized.producer_name, quantized.producer_version = graph.model.producer_name, graph.model.producer_version
    quantized.ir_version = graph.model.ir_version
    return quantized


def integer_weight(graph: Graph, node: onnx.NodeProto, scheme: Int8Scheme) -> tuple[NDArray[Any], NDArray[Any], int]:
    """A layer's weight as integers, its scales, and the axis of the scales.

    A channel of zeros gets the layer's largest scale, so that its bias, in integers of that scale, stays precise.
    """
    import numpy as np
    from onnx import numpy_helper

    tensor = graph.weight_of(node)
    assert tensor is not None
    values = numpy_helper.to_array(tensor)
    axis = _channel_axis(node, values.ndim)
    largest_O = np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis)).astype(np.float64)
    levels = 64 if scheme.reduced_weights else 127
    top = float(largest_O.max(initial=0.0))
    scale_O = np.where(largest_O > 1e-9 * top, largest_O, top if top > 0 else levels) / levels
    scale_O = np.maximum(scale_O, float(np.finfo(np.float32).tiny)).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    integers = np.clip(np.rint(values / scale_O.reshape(shape)), -levels, levels)
    return integers, scale_O, axis


# --- which nodes ---------------------------------------------------------------------------------------------


def _can_be_integer(graph: Graph, node: onnx.NodeProto) -> bool:
    from onnx import TensorProto, numpy_helper

    tensor = graph.weight_of(node)
    if tensor is None or tensor.data_type != TensorProto.FLOAT or node.input[0] in graph.initializers:
        return False
    if node.op_type in ("Gemm", "MatMul") and len(tensor.dims) != 2:
        return False
    flags = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Gemm" and ("transA" in flags and flags["transA"].i):
        return False
    if node.op_type == "ConvTranspose" and "group" in flags and flags["group"].i != 1:
        return False
    values = numpy_helper.to_array(tensor)
    return bool(values.size) and bool((abs(values) < float("inf")).all())


def _channel_axis(node: onnx.NodeProto, num_axes: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return num_axes - 1


def _others(graph: Graph, scheme: Int8Scheme) -> list[str]:
    """Names of nodes between layers that are also quantised; none in a transformer."""
    if not scheme.outputs or graph.is_transformer:
        return []
    types = {*_COMPUTING, *_MOVING, *(_GATING if scheme.name == "qnn" else ())}
    found = []
    for node in graph.nodes:
        is_sum = node.op_type == "Add" and not any(name in graph.initializers for name in node.input)
        if is_sum or (node.op_type in types and _keeps_its_bounds(graph, node)):
            found.append(node.name)
    return found


def _keeps_its_bounds(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Clip survives the quantizer, which replaces it by its output's range: this always holds zero."""
    from onnx import numpy_helper

    if node.op_type != "Clip":
        return True
    bounds = [graph.initializers.get(name) if name else None for name in node.input[1:3]]
    if any(name and bound is None for name, bound in zip(node.input[1:3], bounds, strict=True)):
        return False
    low, high = (float(numpy_helper.to_array(bound)) if bound is not None else None for bound in (*bounds, None)[:2])
    return (low is None or low <= 0) and (high is None or high >= 0)


def _shortcuts(graph: Graph, chosen: Collection[str]) -> list[str]:
    """One input of each sum of two layers' outputs, so that a kernel that fuses convolution and sum reads integers.

    If a layer also reads an input of the sum, that input is quantised already.
    """
    if graph.is_transformer:
        return []
    found = []
    for node in graph.nodes:
        if node.op_type != "Add" or any(name in graph.initializers for name in node.input):
            continue
        made_by = [graph.producers.get(name) for name in node.input]
        if all(maker is not None and maker.name in chosen for maker in made_by):
            # The deeper branch is the one to fuse with; the shortcut is the shorter.
            depths = [_depth_since_fork(graph, name) for name in node.input]
            found.append(node.input[depths.index(min(depths))])
    return found


def _depth_since_fork(graph: Graph, name: str) -> int:
    """Number of nodes upstream, up to a tensor that several nodes read."""
    depth = 0
    while (maker := graph.producers.get(name)) is not None and depth < len(graph.nodes):
        depth += 1
        name = maker.input[0] if maker.input else ""
        if len(graph.consumers.get(name, ())) > 1:
            break
    return depth


# --- onnxruntime's quantizer ---------------------------------------------------------------------------------


def _quantizer(
    model: onnx.ModelProto, graph: Graph, scheme: Int8Scheme, chosen: list[str], others: list[str], tensor_ranges: Any
) -> Any:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    nodes = [*chosen, *others]
    by_name = {node.name: node for node in model.graph.node}
    _mark_as_inferred(model)
    return QDQQuantizer(
        model,
        True,  # per channel
        False,  # reduced ranges are in the scales
        QuantType.QInt8,
        QuantType.QInt8 if scheme.signed_activations else QuantType.QUInt8,
        tensor_ranges,
        nodes,
        [],
        sorted({by_name[name].op_type for name in nodes}),
        {
            "ActivationSymmetric": scheme.symmetric_activations,
            "WeightSymmetric": True,
            "QuantizeBias": scheme.integer_bias,
            "MinimumRealRange": _SMALLEST_RANGE,
            "TensorQuantOverrides": _weight_overrides(model, graph, scheme, set(chosen)),
            "OpTypesToExcludeOutputQuantization": _types_with_float_outputs(graph, scheme),
        },
    )


def _types_with_float_outputs(graph: Graph, scheme: Int8Scheme) -> list[str]:
    """Types of layers whose outputs stay float, as a transformer's do before sums, norms and attention."""
    if not scheme.outputs:
        return list(WEIGHTED)
    return ["Gemm", "MatMul"] if graph.is_transformer and scheme.float_ends else []


def _mark_as_inferred(model: onnx.ModelProto) -> None:
    """Tell the quantizer that shapes are inferred; otherwise it infers them again, through a file."""
    entry = model.metadata_props.add()
    entry.key, entry.value = "onnx.infer", "onnxruntime.quant"


def _separate_weights(model: onnx.ModelProto, graph: Graph, chosen: set[str]) -> None:
    """Copy a stored tensor that several nodes read, so that each int8 layer has its own."""
    import onnx

    for node in model.graph.node:
        if node.name not in chosen:
            continue
        for index in range(1, min(3, len(node.input))):
            name = node.input[index]
            tensor = graph.initializers.get(name)
            if tensor is None or len(graph.consumers[name]) < 2:
                continue
            copied = onnx.TensorProto()
            copied.CopyFrom(tensor)
            copied.name = f"{name}_of_{node.name}"
            model.graph.initializer.append(copied)
            node.input[index] = copied.name


def _weight_overrides(
    model: onnx.ModelProto, graph: Graph, scheme: Int8Scheme, chosen: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    import numpy as np

    own_input = {node.name: node.input[1] for node in model.graph.node if node.name in chosen}
    found = {}
    for node in graph.layers:
        if node.name in chosen:
            _, scale_O, axis = integer_weight(graph, node, scheme)
            zero = np.array(0, np.int8)
            found[own_input[node.name]] = [{"axis": axis, "scale": scale, "zero_point": zero} for scale in scale_O]
    return found


def _free_outputs(model: onnx.ModelProto) -> None:
    """Remove the Q/DQ pair before each output: eight bits are few for logits, and nothing reads the integers."""
    makers = {name: node for node in model.graph.node for name in node.output}
    removed = set()
    for output in model.graph.output:
        dequantize = makers.get(output.name)
        quantize = makers.get(dequantize.input[0]) if dequantize and dequantize.op_type == "DequantizeLinear" else None
        if quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        maker = makers.get(quantize.input[0])
        readers = [node for node in model.graph.node for name in node.input if name in (output.name, *quantize.output)]
        if maker is None or len(readers) > 1:
            continue
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == quantize.input[0] and node is not quantize:
                        names[index] = output.name
        removed |= {quantize.name, dequantize.name}  # type: ignore[union-attr]  # quantize was found through it
    kept_nodes = [node for node in model.graph.node if node.name not in removed]
    del model.graph.node[:]
    model.graph.node.extend(kept_nodes)
    read = {name for node in kept_nodes for name in node.input} | {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _free_readers(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Let nodes that are not layers read the float tensor instead of the rounded one: residual streams stay exact."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name in chosen or node.op_type == "QuantizeLinear":
            continue
        for index, name in enumerate(node.input):
            dequantize = makers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = makers.get(dequantize.input[0])
            # What a convolution makes is integers already.
            maker = makers.get(quantize.input[0]) if quantize is not None else None
            if quantize is not None and (maker is None or maker.op_type not in ("Conv", "ConvTranspose")):
                node.input[index] = quantize.input[0]


# --- ranges of activations -----------------------------------------------------------------------------------


def _tensor_ranges(ranges: Ranges, clip: Clip, scheme: Int8Scheme) -> Any:
    import numpy as np
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    chosen: Mapping[str, tuple[float, float]] = {
        name: _range_of(seen, clip, scheme) for name, seen in ranges.tensors.items() if seen.is_finite
    }
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in chosen.items()}
    return TensorsData(CalibrationMethod.MinMax, data)


def _range_of(seen: Seen, clip: Clip, scheme: Int8Scheme) -> tuple[float, float]:
    if clip == "extremes" or seen.histogram is None:
        return seen.low, seen.high
    return _least_squares(seen, seen.histogram, scheme)


def _least_squares(seen: Seen, counts: NDArray[numpy.int64], scheme: Int8Scheme) -> tuple[float, float]:
    """The range, with both ends reduced by the same factor, whose rounding and clipping cost least."""
    import numpy as np

    edges = np.linspace(seen.low, seen.high, NUM_BINS + 1)
    values = (edges[:-1] + edges[1:]) / 2
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if scheme.symmetric_activations:
        low, high = -max(-low, high), max(-low, high)
    best, least = (low, high), float("inf")
    for fraction in np.linspace(1.0, 0.3, 36):
        step = fraction * (high - low) / (254 if scheme.symmetric_activations else 255)
        inside = np.clip(values, fraction * low, fraction * high)
        rounded = np.rint(inside / step) * step
        error = float((counts * np.square(rounded - values)).sum())
        if error < least:
            best, least = (float(fraction * low), float(fraction * high)), error
    return best
