"""Preparing a float32 ONNX file: constants and batch norm folded, every node named, every shape known.

The result is standard ONNX, so this is graph optimisation done ahead of time for every runtime. onnxscript's optimizer
does the folding (docs/adr/0020 says why).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import Exported, sha256_of
from edgerecover.errors import OUR_FAULT_HINT, UNWRITABLE_HINT, BadInputError, StageError
from edgerecover.files import replace_file
from edgerecover.models.onnx.tensors import graphs_of
from edgerecover.models.onnx.weights import weights_of
from edgerecover.runtime.machine.silence import silence

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input may be a weight."""
_OPERATORS_OF_TRANSFORMERS = frozenset({"LayerNormalization", "RMSNormalization", "Attention", "MultiHeadAttention"})


@dataclass(frozen=True)
class Graph:
    """A prepared model, and which nodes make and read each tensor. `model` is never changed, only copies."""

    model: onnx.ModelProto

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """Nodes of the outermost graph, in order."""
        return list(self.model.graph.node)

    @cached_property
    def initializers(self) -> Mapping[str, onnx.TensorProto]:
        """Stored tensors by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def producers(self) -> Mapping[str, onnx.NodeProto]:
        """Node that makes each tensor."""
        return {name: node for node in self.model.graph.node for name in node.output if name}

    @cached_property
    def consumers(self) -> Mapping[str, list[onnx.NodeProto]]:
        """Nodes that read each tensor."""
        found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return found

    @cached_property
    def element_types(self) -> Mapping[str, int]:
        """ONNX element type of each tensor, as far as shape inference finds it."""
        graph = self.model.graph
        known = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
        return known | {tensor.name: tensor.data_type for tensor in graph.initializer}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that are fed."""
        return tuple(value.name for value in self.model.graph.input if value.name not in self.initializers)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(value.name for value in self.model.graph.output)

    def weight_of(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """The stored float weight of a Conv, ConvTranspose, Gemm or MatMul; None if it is computed."""
        if node.op_type not in WEIGHTED or len(node.input) < 2:
            return None
        return self.initializers.get(node.input[1])

    @cached_property
    def layers(self) -> tuple[onnx.NodeProto, ...]:
        """Nodes with a stored weight, in order."""
        return tuple(node for node in self.model.graph.node if self.weight_of(node) is not None)

    @cached_property
    def is_transformer(self) -> bool:
        """Whether activations are normalised over features or weighted by softmax inside, as in ViT and ConvNeXt.

        The residual streams of such networks have outlier channels that eight bits per tensor cannot represent.
        """
        for node in self.model.graph.node:
            if node.op_type in _OPERATORS_OF_TRANSFORMERS:
                return True
            # A softmax or erf (of GELU) between layers, not one that turns the logits into probabilities.
            if node.op_type in ("Softmax", "Erf", "Gelu") and self._reaches_layer(node):
                return True
        return False

    def _reaches_layer(self, node: onnx.NodeProto) -> bool:
        seen: set[str] = set()
        waiting = list(node.output)
        while waiting:
            for reader in self.consumers.get(waiting.pop(), ()):
                if reader.op_type in WEIGHTED:
                    return True
                if reader.output[0] not in seen:
                    seen.add(reader.output[0])
                    waiting += reader.output
        return False


def prepare(path: Path) -> Graph:
    """Read a float32 ONNX file, fold what can be folded, and name all nodes.

    Raises:
        BadInputError: the file cannot be prepared, or it is quantised already.
    """
    import onnx
    from onnxscript import optimizer

    try:
        model = onnx.load(path)
        with silence():
            # The optimizer may write into what it is given.
            model = optimizer.optimize(model)
            _constants_to_initializers(model)
            model = onnx.shape_inference.infer_shapes(_without_shapes(model), strict_mode=False, data_prop=True)
    except Exception as error:  # protobuf, the optimizer and shape inference share no base of errors
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BadInputError(
            f"{path}: cannot be prepared for lower precisions: {first_line[:200]}",
            hint="use fp32; a file that onnx.checker accepts and onnxruntime runs can be prepared",
        ) from error
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise BadInputError(
            f"{path}: is quantised already", hint="give the float32 export, from which lower precisions are made"
        )
    _name_nodes(model)
    return Graph(model)


def write(model: onnx.ModelProto, path: Path, float32: Exported) -> Exported:
    """Check a variant and write it to `path`; its other facts are those of the float32 file.

    Raises:
        StageError: onnx.checker refuses it, or it cannot be written.
    """
    import onnx

    for part in (model, model.graph, *model.graph.node):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and shape inference's errors share no base
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StageError(
            f"{path.name}: onnx.checker refuses the variant: {first_line[:200]}",
            hint=OUR_FAULT_HINT,
        ) from error
    try:
        replace_file(path, model.SerializeToString(deterministic=True))
    except OSError as error:
        raise StageError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint=UNWRITABLE_HINT,
        ) from error
    weights = list(weights_of(model))
    num_weights = sum(weight.is_zero.size for weight in weights)
    return replace(
        float32,
        path=str(path),
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        num_weights=num_weights,
        num_nonzero=num_weights - sum(int(weight.is_zero.sum()) for weight in weights),
    )


def _without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop stated shapes, which may be wrong or stale, so that all are inferred."""
    del model.graph.value_info[:]
    return model


def _constants_to_initializers(model: onnx.ModelProto) -> None:
    """Turn `Constant` nodes that hold a tensor into initializers, as other exporters write them."""
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and not node.domain and value is not None:
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name every node uniquely, and layers after their weights, so that people recognise them."""
    stored = {tensor.name for tensor in model.graph.initializer}
    taken: Counter[str] = Counter()
    for number, node in enumerate(_all_nodes(model)):
        weight = node.input[1] if node.op_type in WEIGHTED and len(node.input) > 1 else ""
        name = re.sub(r"\.weight$", "", weight) if weight in stored and weight.endswith(".weight") else node.name
        name = name or f"{node.op_type}_{number}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}:{taken[name]}"


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs_of(model.graph):
        yield from graph.node
