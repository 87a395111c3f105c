"""float16 inside the file; nodes that would overflow or underflow stay float32, and so do inputs and outputs.

Tensors between two float32 nodes stay float32, so a value that float16 cannot represent never passes through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgerecover.export.precision.graph import Graph
from edgerecover.export.precision.ranges import Ranges, Seen
from edgerecover.models.onnx.tensors import graphs_of
from edgerecover.runtime.machine.silence import silence

if TYPE_CHECKING:
    import onnx

LARGEST_HALF = 65504.0
HEADROOM = 4.0
"""How many times larger values on the device may be than on calibration images."""
_WORST_ERROR = 0.01
"""Largest relative root mean square error of rounding a tensor; normal numbers have 3e-4, subnormals more."""
_SUMMING = ("ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool")
_SQUARING = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceL2", "LpNormalization")
_ROUGH = ("ReduceSumSquare", "Softmax", "LogSoftmax", "Pow", "Exp", "Sqrt", "Div", "Reciprocal")
SENSITIVE = (*_SUMMING, *_SQUARING, *_ROUGH)
"""Operators that lose most in float16; they are kept in float32 if the file would otherwise lose too much."""


def nodes_that_overflow(graph: Graph, ranges: Ranges) -> dict[str, str]:
    """Names of nodes that float16 cannot compute, and why: because of what they read, write or sum up inside."""
    from onnx import TensorProto

    # A bias that underflows is negligible beside what it is added to.
    biases = {node.input[2] for node in graph.layers if len(node.input) > 2}
    stored = {
        tensor.name: _of_stored(tensor)
        for tensor in graph.model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    unfit = {
        name: reason
        for name, seen in {**stored, **ranges.tensors}.items()
        if (reason := _why_unfit(seen, is_stored=name in stored, is_bias=name in biases))
    }
    found = {}
    for node in graph.nodes:
        touched = [name for name in (*node.output, *node.input) if name in unfit]
        reason = unfit[touched[0]] if touched else _why_unfit_inside(node, graph, ranges)
        if reason:
            found[node.name] = reason
    return found


def nodes_of_types(graph: Graph, types: Iterable[str]) -> set[str]:
    """Names of the nodes with these operators."""
    wanted = set(types)
    return {node.name for node in graph.nodes if node.op_type in wanted}


def to_half(graph: Graph, kept: Iterable[str]) -> onnx.ModelProto:
    """A copy in float16, except the nodes named in `kept`, the inputs and the outputs."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    _Halving(model, graph, set(kept)).run()
    with silence():
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _of_stored(tensor: onnx.TensorProto) -> Seen:
    import numpy as np
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor).astype(np.float64)
    if not values.size:
        return Seen(0.0, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = values.astype(np.float16).astype(np.float64) - values
        half_squares = float(np.square(errors).sum())
    finite = bool(np.isfinite(values).all())
    return Seen(float(values.min()), float(values.max()), float(np.square(values).sum()), half_squares, finite)


def _why_unfit(seen: Seen, *, is_stored: bool, is_bias: bool) -> str:
    """Why float16 cannot represent the tensor, in words; "" if it can."""
    if not seen.is_finite:
        return "values are not finite in float32 already"
    headroom = 1.0 if is_stored else HEADROOM
    if not seen.largest * headroom <= LARGEST_HALF:
        return f"values reach {seen.largest:.3g}; float16 ends at 65504"
    if seen.half_error > _WORST_ERROR and not is_bias:
        return f"values of at most {seen.largest:.1g} underflow in float16"
    return ""


def _why_unfit_inside(node: onnx.NodeProto, graph: Graph, ranges: Ranges) -> str:
    """Why the sums and squares inside a node overflow if its kernel accumulates in float16; "" if they do not."""
    seen = ranges.get(node.input[0]) if node.input else None
    made = ranges.get(node.output[0]) if node.output else None
    if seen is None or made is None:
        return ""
    if node.op_type in _SUMMING and made.shape:
        summed = made.largest * max(1.0, math.prod(seen.shape) / max(1, math.prod(made.shape)))
        if node.op_type != "ReduceSum" and summed * HEADROOM > LARGEST_HALF:
            return f"its sums reach {summed:.3g}; float16 ends at 65504"
    if node.op_type in _SQUARING and seen.largest**2 * HEADROOM > LARGEST_HALF:
        return f"its squares reach {seen.largest**2:.3g}; float16 ends at 65504"
    return ""


class _Halving:
    """One pass over the nodes; each tensor has the type its maker gives it, with casts where readers need another."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, kept: set[str]) -> None:
        from onnx import TensorProto

        self._model, self._graph = model, graph
        self._float, self._half = TensorProto.FLOAT, TensorProto.FLOAT16
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._captured = _captured_names(model)
        self._kept = kept
        self._type_of: dict[str, int] = dict.fromkeys(graph.inputs, self._float)
        self._type_of |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self._versions: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for node in self._model.graph.node:
            self._convert(node)
        self._restore_outputs()
        del self._model.graph.node[:]
        self._model.graph.node.extend(self._nodes)
        del self._model.graph.value_info[:]
        self._drop_unused()

    def _convert(self, node: onnx.NodeProto) -> None:
        schema = _schema_of(node, self._opset)
        halves = schema is not None and node.name not in self._kept and self._can_be_half(node, schema)
        for index, name in enumerate(node.input):
            if name and self._type_of.get(name) in (self._float, self._half):
                wanted = self._half if halves and _takes_half(schema, index) else self._float
                node.input[index] = self._version(name, wanted)
        for name in node.output:
            if name and self._graph.element_types.get(name) == self._float:
                self._type_of[name] = self._half if halves else self._float
        if halves and node.op_type == "Cast":
            next(a for a in node.attribute if a.name == "to").i = self._half
        self._nodes.append(node)

    def _can_be_half(self, node: onnx.NodeProto, schema: Any) -> bool:
        """Whether every float output of a node has the type of a float input, and may be float16."""
        floats = [i for i, name in enumerate(node.output) if self._graph.element_types.get(name) == self._float]
        if not floats or any(name in self._captured for name in node.output) or _has_graphs(node):
            return False
        if node.op_type == "Cast":
            return True
        types_read = {
            _formal(schema.inputs, index).type_str
            for index, name in enumerate(node.input)
            if self._type_of.get(name) in (self._float, self._half)
        }
        return all(
            formal.type_str in types_read and _allows_half(formal)
            for formal in (_formal(schema.outputs, index) for index in floats)
        )

    def _version(self, name: str, wanted: int) -> str:
        """The tensor in the wanted type: itself, a converted initializer, or the output of a cast."""
        import onnx

        if self._type_of[name] == wanted:
            return name
        if (name, wanted) not in self._versions:
            suffix = "fp16" if wanted == self._half else "fp32"
            converted = self._free_name(f"{name}_{suffix}")
            self._versions[name, wanted] = converted
            if name in self._graph.initializers:
                self._model.graph.initializer.append(_as_half(self._graph.initializers[name], converted))
            else:
                cast = onnx.helper.make_node("Cast", [name], [converted], f"{converted}_cast", to=wanted)
                self._nodes.append(cast)
        return self._versions[name, wanted]

    def _free_name(self, name: str) -> str:
        while name in self._type_of or name in self._graph.element_types:
            name += "_"
        return name

    def _restore_outputs(self) -> None:
        """Rename outputs that became float16, and cast them back to their declared type and name."""
        import onnx

        for output in self._graph.outputs:
            if self._type_of.get(output) != self._half:
                continue
            inner = self._free_name(f"{output}_fp16")
            for node in self._nodes:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        if name == output:
                            names[index] = inner
            self._nodes.append(onnx.helper.make_node("Cast", [inner], [output], f"{output}_cast", to=self._float))

    def _drop_unused(self) -> None:
        read = {name for graph in graphs_of(self._model.graph) for node in graph.node for name in node.input}
        read |= set(self._graph.outputs)
        kept = [tensor for tensor in self._model.graph.initializer if tensor.name in read]
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(kept)


def _as_half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import numpy as np
    from onnx import numpy_helper

    with np.errstate(over="ignore"):
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _schema_of(node: onnx.NodeProto, opset: int) -> Any:
    """The operator's schema; None for an operator that standard ONNX does not define."""
    import onnx

    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
        return None
    return onnx.defs.get_schema(node.op_type, opset, "")


def _formal(parameters: Any, index: int) -> Any:
    """The formal parameter for the argument at an index; the last one may be variadic."""
    return parameters[min(index, len(parameters) - 1)]


def _takes_half(schema: Any, index: int) -> bool:
    return _allows_half(_formal(schema.inputs, index))


def _allows_half(parameter: Any) -> bool:
    return "tensor(float16)" in parameter.types


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _captured_names(model: onnx.ModelProto) -> set[str]:
    """Names that nested graphs read, among them tensors of the outermost graph."""
    nested: Iterator[Any] = (graph for graph in graphs_of(model.graph) if graph is not model.graph)
    return {name for graph in nested for node in graph.node for name in node.input} | {
        output.name for graph in graphs_of(model.graph) if graph is not model.graph for output in graph.output
    }


def describe(reasons: Mapping[str, str]) -> str:
    """Why nodes stay in float32, as one sentence that names the first of them."""
    if not reasons:
        return ""
    name, reason = next(iter(reasons.items()))
    others = f"; {len(reasons) - 1} more for similar reasons" if len(reasons) > 1 else ""
    return f"{name}: {reason}{others}"
