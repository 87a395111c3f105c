"""The content of an ONNX file's tensors: stored dense, sparse or externally, or computed from stored ones alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

MAX_ELEMENTS = 2**31 - 1
"""Limit for one sparse tensor: a file of a few bytes can claim any shape."""
_MAX_COMPUTED = 2**27
"""Limit for the elements of one computed tensor: the product of a column and a row can have any number."""
_COMPUTABLE = frozenset(
    ("Abs", "Add", "And", "Cast", "CastLike", "Clip", "Concat", "DequantizeLinear", "Div", "Equal", "Exp", "Flatten",
     "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "MatMul", "Max", "Min", "Mul", "Neg",
     "Not", "Or", "Pow", "QuantizeLinear", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean",
     "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Shape", "Sigmoid", "Sign", "Slice", "Split",
     "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where", "Xor")
)  # fmt: skip
"""Operators whose output is no larger than their inputs broadcast together, or their matrix product."""


class NotComputedError(Exception):
    """A tensor depends on stored ones alone, but is not computed here."""


class Tensors:
    """The tensors of a file by name."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None) -> None:
        """Index the tensors; no content is read yet.

        Args:
            model: parsed, its external data not loaded.
            folder: folder of the external data, checked beforehand; None if there is none.
        """
        self._folder = folder
        self._opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        self._dense: dict[str, onnx.TensorProto] = {}
        self._sparse: dict[str, onnx.SparseTensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []
        self.makers: dict[str, onnx.NodeProto] = {}
        """All nodes except constants, by the names of their outputs."""
        for graph in graphs_of(model.graph):
            self._dense |= {tensor.name: tensor for tensor in graph.initializer}
            self._sparse |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
            for node in graph.node:
                if node.op_type == "Constant" and node.output:
                    self._constant(node)
                else:
                    self._nodes.append(node)
                    self.makers |= {output: node for output in node.output if output}

    def _constant(self, node: onnx.NodeProto) -> None:
        import onnx

        for attribute in node.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                self._dense[node.output[0]] = attribute.t
            elif attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                self._sparse[node.output[0]] = attribute.sparse_tensor
            elif attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
                value = onnx.helper.get_attribute_value(attribute)
                kind = onnx.TensorProto.FLOAT if "float" in attribute.name else onnx.TensorProto.INT64
                values = list(value) if attribute.name.endswith("s") else [value]
                dims = [len(values)] if attribute.name.endswith("s") else []
                self._dense[node.output[0]] = onnx.helper.make_tensor(node.output[0], kind, dims, values)

    def is_stored(self, name: str) -> bool:
        """Whether the file stores the tensor itself."""
        return name in self._dense or name in self._sparse

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a stored tensor, without reading it."""
        return tuple((self._dense[name] if name in self._dense else self._sparse[name]).dims)

    def vectors(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Stored tensors with exactly one side longer than 1, as vectors."""
        for name, tensor in self._dense.items():
            if sum(side != 1 for side in tensor.dims) == 1 and tensor.data_type != tensor.STRING:
                yield name, array_of(tensor, self._folder).reshape(-1)

    def read_stored(self, name: str) -> NDArray[Any] | None:
        """Read a stored tensor; None if the file does not store it.

        Raises:
            ValueError: the content does not fit the shape.
        """
        if name in self._dense:
            return array_of(self._dense[name], self._folder)
        if name in self._sparse:
            return _densify(self._sparse[name], self._folder)
        return None

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored, or computed from stored ones alone."""
        return self.is_stored(name) or name in self._computable

    @cached_property
    def _computable(self) -> set[str]:
        """Names of outputs of nodes that do not depend on the model's input."""
        found: set[str] = set()
        for node in self._nodes:
            is_simple = not any(True for _ in _graphs_in(node))
            if is_simple and all(not name or self.is_stored(name) or name in found for name in node.input):
                found |= {*node.output} - {""}
        return found

    def sources(self, name: str) -> set[str]:
        """Names of the stored tensors that a constant tensor is computed from."""
        found, left, seen = set(), [name], {""}
        while left:
            name = left.pop()
            if name in seen:
                continue
            seen.add(name)
            if self.is_stored(name):
                found.add(name)
            else:
                left += self.makers[name].input
        return found

    def compute(self, name: str) -> NDArray[Any]:
        """Compute the content of a constant tensor.

        Raises:
            NotComputedError: an operator on the way is not supported, or its result may not fit in memory.
        """
        known: dict[str, NDArray[Any]] = {}
        left, waiting = [name], set[str]()
        while left:
            name = left[-1]
            if name in known or not name:
                left.pop()
                continue
            if (stored := self.read_stored(name)) is not None:
                known[name] = stored
                continue
            node = self.makers[name]
            missing = [given for given in node.input if given and given not in known]
            if not missing:
                known |= zip(node.output, self._run(node, [known.get(given) for given in node.input]), strict=False)
                continue
            if name in waiting:
                raise NotComputedError("nodes that go in a circle")
            waiting.add(name)
            left += missing
        return known[name]

    def _run(self, node: onnx.NodeProto, given: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        import numpy as np
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        if node.domain not in ("", "ai.onnx") or node.op_type not in _COMPUTABLE:
            raise NotComputedError(f"{node.op_type} is not followed")
        arrays = {name: array for name, array in zip(node.input, given, strict=True) if array is not None}
        try:
            if _largest_result(node.op_type, list(arrays.values())) > _MAX_COMPUTED:
                raise NotComputedError(f"what {node.op_type} makes may be too large")
            inputs = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in arrays.items()
            ]
            outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
            graph = helper.make_graph([node], "constant", inputs, outputs)
            # onnx's reference has these two from opset 19 on, which defines them as earlier opsets do.
            opset = max(self._opset, 19) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else self._opset
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(model).run(None, arrays)
        except NotComputedError:
            raise
        except Exception as error:  # the reference raises whatever numpy does on shapes that do not fit
            raise NotComputedError(f"{node.op_type}: {str(error)[:100]}") from error
        named = dict(zip([name for name in node.output if name], results, strict=True))
        return [np.asarray(named[name]) if name else np.zeros(0) for name in node.output]


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those nested in its nodes (the branches of If, the bodies of Loop)."""
    yield graph
    for node in graph.node:
        for inner in _graphs_in(node):
            yield from graphs_of(inner)


def _graphs_in(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def _largest_result(op_type: str, arrays: Sequence[NDArray[Any]]) -> int:
    """Upper bound on the number of elements of a node's output."""
    import numpy as np

    if op_type in ("Concat", "Gather", "Reshape", "Slice", "Split"):
        return sum(array.size for array in arrays) * (arrays[1].size if op_type == "Gather" else 1)
    if op_type == "MatMul":
        return math.prod(array.size // max(1, min(array.shape[-2:], default=1)) for array in arrays)
    return math.prod(np.broadcast_shapes(*(array.shape for array in arrays))) if _stretches(op_type) else 0


def _stretches(op_type: str) -> bool:
    """Whether a node broadcasts its inputs; the outputs of other nodes are no larger than their inputs."""
    return op_type in ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
                       "Mul", "Or", "Pow", "Sub", "Where", "Xor")  # fmt: skip


# --- content ------------------------------------------------------------------------------------------------


def array_of(tensor: onnx.TensorProto, folder: Path | None) -> NDArray[Any]:
    """Read a stored tensor's content, internal or external.

    Raises:
        ValueError: the content does not fit the shape, or is external although `folder` is None.
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
    """`location`, `offset`, `length` and so on, as the file states them."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _densify(sparse: onnx.SparseTensorProto, folder: Path | None) -> NDArray[Any]:
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
