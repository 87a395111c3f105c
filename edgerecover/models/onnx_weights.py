"""The weights of an ONNX file as its layers use them: float, half, or integers with a zero point.

A weight reaches its layer through nodes that keep its zeros (Transpose, Reshape, Cast, DequantizeLinear …): these are
followed back to the tensor that the file stores.

Shapes: (out, in / groups, *kernel) for Conv, (in, out / groups, *kernel) for ConvTranspose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    import onnx
    from numpy.typing import NDArray

MAX_ELEMENTS = 2**31 - 1
"""Of one tensor: a file of a few bytes can claim any shape for a sparse one."""
_KEEP_ZEROS = ("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "QuantizeLinear")


@dataclass(frozen=True)
class OnnxWeight:
    """One stored tensor that is the weight of a layer."""

    name: str
    stored: NDArray[Any]
    zero_point: NDArray[Any] | None
    """Of an integer weight: what stands for zero, one for all or one per slice along `zero_axis`."""
    zero_axis: int
    input_axis: int | None
    """Of its input channels; None where a Reshape hides it."""

    @cached_property
    def is_zero(self) -> NDArray[numpy.bool_]:
        """Where the weight is zero, in the shape of the stored tensor."""
        import numpy as np

        zero: Any = 0
        if self.zero_point is not None:
            zero = self.zero_point
            if zero.ndim == 1 and zero.size > 1:
                shape = [1] * self.stored.ndim
                shape[self.zero_axis] = zero.size
                zero = zero.reshape(shape)
        return np.asarray(self.stored == zero)


def weights_of(model: onnx.ModelProto, folder: Path | None = None) -> Iterator[OnnxWeight]:
    """Weights of Conv, ConvTranspose, Gemm and MatMul, and of their integer kinds, each tensor once, in node order.

    Nested graphs are looked into; functions that the file defines are not.

    Args:
        model: parsed, its external data not loaded.
        folder: where external data lies, checked beforehand; None: there is none.

    Raises:
        ValueError: a tensor's content does not fit its shape.
    """
    tensors = _Tensors(model, folder)
    seen: set[str] = set()
    for graph in graphs_of(model.graph):
        for node in graph.node:
            for name, zero_name, axis in _weight_inputs(node):
                found = tensors.trace(name, axis, zero_name)
                if found is not None and found.name not in seen and found.stored.ndim >= 2:
                    seen.add(found.name)
                    yield found


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those nested in its nodes (the branches of If, the bodies of Loop)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            nested = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for inner in nested:
                yield from graphs_of(inner)


def _weight_inputs(node: onnx.NodeProto) -> Iterator[tuple[str, str, int]]:
    """Name of each input that may be a weight, name of its zero point or "", axis of its input channels."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    places: dict[str, tuple[tuple[int, int, int], ...]] = {
        "Conv": ((1, -1, 1),),
        "ConvTranspose": ((1, -1, 0),),
        "Gemm": ((0, -1, 0 if flags.get("transA") else 1), (1, -1, 1 if flags.get("transB") else 0)),
        "MatMul": ((0, -1, -1), (1, -1, -2)),
        "ConvInteger": ((1, 3, 1),),
        "MatMulInteger": ((0, 2, -1), (1, 3, -2)),
        "QLinearConv": ((3, 5, 1),),
        "QLinearMatMul": ((0, 2, -1), (3, 5, -2)),
    }
    for place, zero_place, axis in places.get(node.op_type, ()):
        if place < len(node.input) and node.input[place]:
            zero_name = node.input[zero_place] if 0 <= zero_place < len(node.input) else ""
            yield node.input[place], zero_name, axis


class _Tensors:
    """What a file stores under which name, and the nodes through which it is passed on."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None) -> None:
        self._folder = folder
        self._dense: dict[str, onnx.TensorProto] = {}
        self._sparse: dict[str, onnx.SparseTensorProto] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        for graph in graphs_of(model.graph):
            self._dense |= {tensor.name: tensor for tensor in graph.initializer}
            self._sparse |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
            for node in graph.node:
                if node.op_type == "Constant" and node.output:
                    self._constant(node)
                elif node.op_type in (*_KEEP_ZEROS, "DequantizeLinear") and node.input and node.output:
                    self._makers[node.output[0]] = node

    def _constant(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                self._dense[node.output[0]] = attribute.t
            elif attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                self._sparse[node.output[0]] = attribute.sparse_tensor

    def trace(self, name: str, axis: int, zero_name: str) -> OnnxWeight | None:
        """The stored tensor behind `name`; None when it is computed from an input."""
        input_axis: int | None = axis
        zero_axis, passed = 0, 0
        while name in self._makers:
            node = self._makers[name]
            passed += 1
            if passed > len(self._makers):  # a damaged file can go in circles
                return None
            if node.op_type == "DequantizeLinear":
                zero_name = node.input[2] if len(node.input) > 2 else ""
                zero_axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            elif node.op_type == "Transpose":
                input_axis = _before_transpose(node, input_axis)
            elif node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
                input_axis = None
            name = node.input[0]
        stored = self._array(name)
        if stored is None:
            return None
        zero = self._array(zero_name) if zero_name else None
        return OnnxWeight(name, stored, zero, zero_axis, _counted_from_front(input_axis, stored.ndim))

    def _array(self, name: str) -> NDArray[Any] | None:
        if name in self._dense:
            return array_of(self._dense[name], self._folder)
        if name in self._sparse:
            return _densified(self._sparse[name], self._folder)
        return None


def _before_transpose(node: onnx.NodeProto, axis: int | None) -> int | None:
    """Which axis of a Transpose's input becomes `axis` of its output."""
    perm: list[int] = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
    if axis is None:
        return None
    if not perm:  # reversed: counted from the other end
        return -1 - axis
    axis = _counted_from_front(axis, len(perm))
    return perm[axis] if axis is not None and axis < len(perm) else None


def _counted_from_front(axis: int | None, num_axes: int) -> int | None:
    if axis is None or not -num_axes <= axis < num_axes:
        return None
    return axis % num_axes


# --- content of tensors -------------------------------------------------------------------------------------


def array_of(tensor: onnx.TensorProto, folder: Path | None) -> NDArray[Any]:
    """A stored tensor's content, external or inside.

    Raises:
        ValueError: the content does not fit the shape, or lies outside although `folder` is None.
    """
    import onnx
    from onnx import numpy_helper

    if any(side < 0 for side in tensor.dims):  # numpy would take -1 for "whatever fits"
        raise ValueError(f"{tensor.name}: its shape is {list(tensor.dims)}")
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    if folder is None:
        raise ValueError(f"{tensor.name}: its content lies outside the file")
    where = external_fields(tensor)
    inside = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    with (folder / where["location"]).open("rb") as file:
        file.seek(int(where.get("offset", "0")))
        inside.raw_data = file.read(int(where["length"])) if "length" in where else file.read()
    return numpy_helper.to_array(inside)


def external_fields(tensor: onnx.TensorProto) -> Mapping[str, str]:
    """`location`, `offset`, `length` … as the file states them."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _densified(sparse: onnx.SparseTensorProto, folder: Path | None) -> NDArray[Any]:
    import math

    import numpy as np

    dims = tuple(sparse.dims)
    if any(side < 0 for side in dims) or math.prod(dims) > MAX_ELEMENTS:
        raise ValueError(f"{sparse.values.name}: a sparse tensor of shape {dims} is not possible")
    values, indices = array_of(sparse.values, folder), array_of(sparse.indices, folder)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
    dense = np.zeros(math.prod(dims), values.dtype)
    if flat.size and (flat.min() < 0 or flat.max() >= dense.size):
        raise ValueError(f"{sparse.values.name}: an index lies outside its shape {dims}")
    dense[flat] = values
    return dense.reshape(dims)
