"""The weights of an ONNX file as its layers use them: float, half, or integers with a zero point.

A weight reaches its layer through nodes that keep its zeros (Transpose, Reshape, Cast, DequantizeLinear …): these are
followed back to the tensor that the file stores. A weight computed from stored tensors alone, such as
`Mul(weight, mask)` or the normalised weight of weight_norm, is computed here. What depends on an input is not a weight;
layers whose weight cannot be determined are named.

Shapes: (out, in / groups, *kernel) for Conv, (in, out / groups, *kernel) for ConvTranspose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgerecover.models.onnx.tensors import NotComputedError, Tensors, graphs_of

if TYPE_CHECKING:
    import numpy
    import onnx
    from numpy.typing import NDArray

_KEEP_ZEROS = ("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "QuantizeLinear",
               "DequantizeLinear", "Split", "Slice")  # fmt: skip
_HIDE_AXES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice")
_MIX = (*_KEEP_ZEROS, "Add", "Concat", "Einsum", "Expand", "Gather", "Gemm", "MatMul", "Mul", "ReduceMean", "ReduceSum",
        "Sum")  # fmt: skip
"""Operators that mix stored kernels into one that depends on the input."""
_STANDARD_DOMAINS = ("", "ai.onnx")
_NO_LAYERS = (
    "BiasAdd", "BiasGelu", "BiasSplitGelu", "EmbedLayerNormalization", "GatedRelativePositionBias",
    "GatherBlockQuantized", "QEmbedLayerNormalization", "QLinearAdd", "QLinearConcat", "QLinearMul", "QLinearWhere",
    "RelativePositionBias", "RotaryEmbedding", "SkipLayerNormalization",
)  # fmt: skip
"""onnxruntime's own operators whose inputs are no weights: they look up tables, or work element by element."""


@dataclass(frozen=True)
class OnnxWeight:
    """One tensor that is the weight of a layer."""

    name: str
    """Name of the stored tensor; for a computed weight, of the stored tensor that has its shape."""
    stored: NDArray[Any]
    """The stored or computed content."""
    zero_point: NDArray[Any] | None
    """Zero point of an integer weight: one for all, one per slice along `zero_axis`, or one per block."""
    zero_axis: int
    input_axis: int | None
    """Axis of the input channels; None if a Reshape hides it."""

    @cached_property
    def is_zero(self) -> NDArray[numpy.bool_]:
        """Where the weight is zero, in the shape of `stored`."""
        import numpy as np

        zero: Any = 0
        if self.zero_point is not None:
            zero = self.zero_point
            if zero.ndim == 1 and zero.size > 1:
                shape = [1] * self.stored.ndim
                shape[self.zero_axis] = zero.size
                zero = zero.reshape(shape)
            elif zero.ndim == self.stored.ndim and zero.size > 1:  # by block
                axis, sides = self.zero_axis, (self.stored.shape[self.zero_axis], zero.shape[self.zero_axis])
                zero = np.repeat(zero, -(-sides[0] // sides[1]), axis).take(range(sides[0]), axis)
        return np.asarray(self.stored == zero)


@dataclass(frozen=True)
class UnknownWeight:
    """A layer whose weight cannot be determined."""

    layer: str
    """Its node's name and kind, for people: "QMoE /block/moe"."""
    reason: str


def weights_of(model: onnx.ModelProto, folder: Path | None = None) -> Iterator[OnnxWeight]:
    """The weights of all layers, each tensor once, in node order; `layers_of` also names those that are unknown.

    Raises:
        ValueError: a tensor's content does not fit its shape.
    """
    return (layer for layer in layers_of(model, folder) if isinstance(layer, OnnxWeight))


def layers_of(model: onnx.ModelProto, folder: Path | None = None) -> Iterator[OnnxWeight | UnknownWeight]:
    """Weights of Conv, Gemm, MatMul, Einsum, recurrent layers, and of the operators that onnxruntime fuses them into.

    Each tensor comes once, in node order, including those in nested graphs and in functions that the file defines.

    Args:
        model: parsed, its external data not loaded.
        folder: folder of the external data, checked beforehand; None if there is none.

    Raises:
        ValueError: a tensor's content does not fit its shape.
    """
    model = _inline(model)
    tensors = Tensors(model, folder)
    seen: set[str] = set()
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if all(tensors.is_constant(name) for name in node.input if name):
                continue  # no layer, but a part of what computes a weight
            for place in _places(node, tensors):
                for found in _trace(tensors, node, place):
                    key = found.name if isinstance(found, OnnxWeight) else found.layer
                    if key not in seen:
                        seen.add(key)
                        yield found


def _inline(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # what its C++ raises shares no base
        raise ValueError(f"its functions cannot be put in their places: {str(error)[:100]}") from error


# --- where layers have their weights ------------------------------------------------------------------------


class _Place(NamedTuple):
    """Where a node takes a weight, if that does not depend on the model's input."""

    input: int
    axis: int | None
    """Axis of its input channels."""
    zero_index: int = -1
    """Index of the input with its zero point; -1 if there is none."""
    is_certain: bool = False
    """Whether it is the layer's weight whatever it depends on."""


def _places(node: onnx.NodeProto, tensors: Tensors) -> Iterator[_Place]:
    if node.op_type == "Einsum":
        yield from (_Place(index, None) for index in range(len(node.input)))
        return
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    a, b = (-2 if flags.get("transA") else -1), (-1 if flags.get("transB") else -2)
    known: dict[str, tuple[_Place, ...]] = {
        "Conv": (_Place(1, 1, is_certain=True),),
        "ConvTranspose": (_Place(1, 0, is_certain=True),),
        "DeformConv": (_Place(1, 1, is_certain=True),),
        "Gemm": (_Place(0, a), _Place(1, b)),
        "MatMul": (_Place(0, -1), _Place(1, -2)),
        "ConvInteger": (_Place(1, 1, 3, is_certain=True),),
        "MatMulInteger": (_Place(0, -1, 2), _Place(1, -2, 3)),
        "QLinearConv": (_Place(3, 1, 5, is_certain=True),),
        "QLinearMatMul": (_Place(0, -1, 2), _Place(3, -2, 5)),
        "LSTM": (_Place(1, 2), _Place(2, 2)),
        "GRU": (_Place(1, 2), _Place(2, 2)),
        "RNN": (_Place(1, 2), _Place(2, 2)),
    }
    # docs/ContribOperators.md of github.com/microsoft/onnxruntime, whose fusions and quantizers write these.
    known_to_onnxruntime: dict[str, tuple[_Place, ...]] = {
        "FusedConv": known["Conv"],
        "NhwcFusedConv": known["Conv"],
        "FusedGemm": known["Gemm"],
        "FusedMatMul": (_Place(0, a), _Place(1, b)),
        "FusedMatMulActivation": (_Place(0, a), _Place(1, b)),
        "GemmFastGelu": known["MatMul"],
        "TransposeMatMul": (_Place(0, a), _Place(1, b)),
        "QGemm": (_Place(0, a, 2), _Place(3, b, 5)),
        "QLinearConv": known["QLinearConv"],
        "DynamicQuantizeMatMul": (_Place(1, -2, 3),),
        "MatMulIntegerToFloat": (_Place(0, -1, 4), _Place(1, -2, 5)),
        "MatMulInteger16": known["MatMul"],
        "DynamicQuantizeLSTM": (_Place(1, 1, 9), _Place(2, 1, 11)),
        "Attention": (_Place(1, 0),),
        "QAttention": (_Place(1, 0, 7),),
    }
    if node.domain in _STANDARD_DOMAINS:
        yield from known.get(node.op_type, ())
    elif node.op_type in known_to_onnxruntime:
        yield from known_to_onnxruntime[node.op_type]
    elif node.op_type == "MatMulNBits":
        yield _Place(1, 1, 3)
    elif node.op_type in known:  # ai.onnx kinds in a domain of their own, as onnxruntime lays them out for a processor
        yield from known[node.op_type]
    elif node.op_type not in _NO_LAYERS:
        yield from (_Place(index, None) for index, name in enumerate(node.input) if _is_matrix(tensors, name))


def _is_matrix(tensors: Tensors, name: str) -> bool:
    return tensors.is_stored(name) and sum(side > 1 for side in tensors.shape_of(name)) >= 2


# --- back to what is stored ---------------------------------------------------------------------------------


def _trace(tensors: Tensors, node: onnx.NodeProto, place: _Place) -> Iterator[OnnxWeight | UnknownWeight]:
    """Follow a layer's weight back to stored tensors; nothing if it is missing, too small or depends on the input.

    Yields several where the input decides how they are mixed (CondConv, dynamic convolution).
    """
    name = node.input[place.input] if place.input < len(node.input) else ""
    if not name:
        return
    layer = f"{node.op_type} {node.name or (node.output[0] if node.output else '')}".strip()
    zero_name = node.input[place.zero_index] if 0 <= place.zero_index < len(node.input) else ""
    if node.domain not in _STANDARD_DOMAINS and place.axis is None:
        yield UnknownWeight(layer, f"{node.domain}.{node.op_type} is not an operator whose weights are known here")
        return
    if node.op_type == "MatMulNBits":
        yield _of_few_bits(tensors, node, layer)
        return
    input_axis, zero_axis, passed = place.axis, 0, 0
    while not tensors.is_stored(name):
        maker = tensors.makers.get(name)
        passed += 1
        if maker is None or maker.op_type not in _KEEP_ZEROS or not maker.input or passed > len(tensors.makers):
            break  # a damaged file can go in circles
        if maker.op_type == "DequantizeLinear":
            zero_name = maker.input[2] if len(maker.input) > 2 else ""
            zero_axis = next((a.i for a in maker.attribute if a.name == "axis"), 1)
        elif maker.op_type == "QuantizeLinear":
            zero_name = ""  # what is behind is not yet quantised
        elif maker.op_type == "Transpose":
            input_axis = _before_transpose(maker, input_axis)
        elif maker.op_type in _HIDE_AXES:
            input_axis = None
        name = maker.input[0]
    try:
        stored, label = _content(tensors, name)
        zero = _content(tensors, zero_name)[0] if zero_name else None
        mixed = list(_trace_mixture(tensors, name)) if stored is None and place.is_certain else []
    except NotComputedError as error:
        yield UnknownWeight(layer, str(error))
        return
    if stored is not None and stored.ndim >= 2:
        yield OnnxWeight(label, stored, zero, zero_axis, _count_from_front(input_axis, stored.ndim))
    elif stored is None and place.is_certain and not mixed:
        yield UnknownWeight(layer, "its weight is computed from the input")
    yield from mixed


def _trace_mixture(tensors: Tensors, name: str) -> Iterator[OnnxWeight]:
    """Stored kernels that are mixed in shares that depend on the input: where all are zero, so is the mixture."""
    left, seen = [name], {""}
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if tensors.is_constant(name):
            content, label = _content(tensors, name)
            if content is not None and sum(side > 1 for side in content.shape) >= 2:
                yield OnnxWeight(label, content, None, 0, None)
        elif (maker := tensors.makers.get(name)) is not None and maker.op_type in _MIX:
            left += maker.input


def _content(tensors: Tensors, name: str) -> tuple[NDArray[Any] | None, str]:
    """A tensor's content and the name to report; None if it depends on an input."""
    if (stored := tensors.read_stored(name)) is not None:
        return stored, name
    if not tensors.is_constant(name):
        return None, name
    computed = tensors.compute(name)
    alike = sorted(source for source in tensors.sources(name) if tensors.shape_of(source) == computed.shape)
    # A mask has the weight's shape as well; its name says what it is.
    return computed, next((source for source in alike if "mask" not in source.lower()), name)


def _of_few_bits(tensors: Tensors, node: onnx.NodeProto, layer: str) -> OnnxWeight | UnknownWeight:
    """The weight (N, K) of a MatMulNBits, which keeps it in blocks along K: (N, blocks, bytes)."""
    import numpy as np

    flags = {attribute.name: attribute.i for attribute in node.attribute}
    bits, size, num_inputs = flags.get("bits", 4), flags.get("block_size", 0), flags.get("K", 0)
    packed = tensors.read_stored(node.input[1])
    if packed is None or bits not in (2, 4, 8) or packed.ndim != 3 or packed.dtype != np.uint8:
        return UnknownWeight(layer, "its packed weight cannot be read")
    if packed.shape[2] * 8 != size * bits or not 0 < num_inputs <= packed.shape[1] * size:
        return UnknownWeight(layer, "its packed weight does not fit its attributes")
    values = _unpack(packed, bits).astype(np.int16)  # (N, blocks, size)
    zero: Any = np.int16(1 << (bits - 1))
    if len(node.input) > 3 and node.input[3]:
        stored = tensors.read_stored(node.input[3])
        if stored is None:
            return UnknownWeight(layer, "its zero points cannot be read")
        zero = _unpack(stored.reshape(len(packed), -1), bits) if stored.dtype == np.uint8 else stored
        zero = zero.reshape(len(packed), -1)[:, : packed.shape[1], None]
    shifted = (values - zero).reshape(len(packed), -1)[:, :num_inputs]
    return OnnxWeight(node.input[1], shifted, None, 0, 1)


def _unpack(packed: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unpack numbers of a few bits each along the last axis, lowest bits of each byte first."""
    import numpy as np

    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[..., None] >> shifts) & ((1 << bits) - 1)).reshape(*packed.shape[:-1], -1)


def _before_transpose(node: onnx.NodeProto, axis: int | None) -> int | None:
    """The axis of a Transpose's input that becomes `axis` of its output."""
    perm: list[int] = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
    if axis is None:
        return None
    if not perm:  # reversed: counted from the other end
        return -1 - axis
    axis = _count_from_front(axis, len(perm))
    return perm[axis] if axis is not None and axis < len(perm) else None


def _count_from_front(axis: int | None, num_axes: int) -> int | None:
    if axis is None or not -num_axes <= axis < num_axes:
        return None
    return axis % num_axes
