"""What an ONNX file holds, for `inspect`: nothing in it is run, and external data are not read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import ModelFacts, sha256_of
from edgerecover.errors import BadInputError
from edgerecover.models.formats import COPY_HINT
from edgerecover.models.records import printable
from edgerecover.models.sparsity import measure
from edgerecover.models.spec import UNKNOWN

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

MAX_FILE_BYTES = 2**31 - 1
"""What a protobuf can hold."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PASSING_ON = ("Identity", "Transpose", "Reshape", "Cast")
_INPUTS_SHOWN = 3


def onnx_facts(path: Path) -> ModelFacts:
    """Format, opset, inputs, parameters and the sparsity of the weights of Conv, Gemm and MatMul.

    Raises:
        BadInputError: damaged, or its tensors are not what it says of them.
    """
    try:
        model = _read(path)
        weights = _weights(model.graph)
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        stored = [tensor for tensor in model.graph.initializer if not tensor.HasField("segment")]
        return ModelFacts(
            path=str(path),
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            format=f"ONNX, opset {opset}, {_inputs(model.graph)}",
            architecture=f"a graph of {len(model.graph.node):,} nodes",
            architecture_source="in the file",
            num_parameters=sum(_num_values(tensor) for tensor in stored),
            num_batch_norms=sum(node.op_type == "BatchNormalization" for node in model.graph.node),
            num_classes=None,
            has_masks=False,
            teacher_inside=False,
            sparsity=measure(weights),
            input=None,
            input_source=UNKNOWN,
        )
    except BadInputError:
        raise
    except Exception as error:  # hostile bytes raise anything
        raise BadInputError(
            f"{path}: the ONNX file is damaged ({type(error).__name__}: {printable(str(error), 200)})", hint=COPY_HINT
        ) from error


def _read(path: Path) -> onnx.ModelProto:
    import onnx

    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadInputError(f"{path}: an ONNX file holds at most 2 GB", hint="keep the weights in a file beside it")
    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def _inputs(graph: onnx.GraphProto) -> str:
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    shown = [f"{printable(value.name, 40)} {_shape(value)}".strip() for value in inputs[:_INPUTS_SHOWN]]
    more = f" and {len(inputs) - _INPUTS_SHOWN} more" if len(inputs) > _INPUTS_SHOWN else ""
    return f"input{'s' if len(inputs) > 1 else ''} {', '.join(shown) or 'none'}{more}"


def _shape(value: onnx.ValueInfoProto) -> str:
    dims = list(value.type.tensor_type.shape.dim)[:8]
    return "×".join(str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param[:20] or "?" for dim in dims)


def _num_values(tensor: onnx.TensorProto) -> int:
    count = 1
    for side in tensor.dims:
        count *= side
    return count


def _weights(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Weights as PyTorch lays them out, (out, in, ...), by name; those in external files are left out."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    sources = {
        node.output[0]: node for node in graph.node if node.op_type in _PASSING_ON and node.output and node.input
    }
    found: dict[str, Tensor] = {}
    for node in graph.node:
        for name in node.input[:2] if node.op_type in _WEIGHTED else ():
            source, turned = _source_of(name, sources)
            if source in tensors and source not in found and not tensors[source].external_data:
                weight = _as_torch(tensors[source])
                if weight.dim() >= 2:
                    found[source] = weight.T if weight.dim() == 2 and turned == _is_out_first(node) else weight
    return found


def _source_of(name: str, sources: dict[str, onnx.NodeProto]) -> tuple[str, bool]:
    """The initializer that a value comes from, and whether a transposition lies between."""
    turned = False
    for _ in range(len(sources)):
        if name not in sources:
            break
        turned ^= sources[name].op_type == "Transpose"
        name = sources[name].input[0]
    return name, turned


def _is_out_first(node: onnx.NodeProto) -> bool:
    if node.op_type == "Gemm":
        return any(attribute.name == "transB" and attribute.i == 1 for attribute in node.attribute)
    return node.op_type == "Conv"


def _as_torch(tensor: onnx.TensorProto) -> Any:
    import torch
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(tensor).astype("float32"))
