"""Reading and checking an ONNX file from elsewhere, without running it.

Before onnxruntime sees the file, this checks that it is ONNX, that the files with its weights are beside it, and that
every tensor's content fits its shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from edgerecover.artifacts import Activation, Exported, ModelFacts, Sparsity, sha256_of
from edgerecover.errors import UNREADABLE_HINT, BadInputError
from edgerecover.files import compressed_bytes
from edgerecover.models.network.sparsity import measure_layers
from edgerecover.models.onnx.tensors import Tensors, external_fields, graphs_of
from edgerecover.models.onnx.weights import OnnxWeight, UnknownWeight, layers_of, weights_of

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

SUFFIX = ".onnx"
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x05")
"""First bytes of a zip and of pickles."""
MAX_FILE_BYTES = 2**31 - 1
"""Size limit of a protobuf; larger weights are in files beside it."""
_STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc", "ai.onnx.preview.training")
_INTEGER_LAYERS = (
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention", "MatMulNBits",
)  # fmt: skip


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was read and checked. `weights` are read one at a time: they may be larger than memory."""

    path: Path
    external: tuple[str, ...]
    """Names of the files beside it that hold its weights, relative to its folder."""
    facts: ModelFacts
    opset: int
    producer: str
    """"pytorch 2.15.0"; "unknown" where the file does not say."""
    is_quantized: bool
    is_half: bool
    """Whether some of its weights are float16 or bfloat16."""
    model: onnx.ModelProto
    """The parsed model, without the content of external files."""

    @property
    def sparsity(self) -> Sparsity:
        """The zeros of its Conv, Gemm and MatMul weights, by the file's own names."""
        return self.facts.sparsity

    def weights(self) -> Iterator[OnnxWeight]:
        """Its Conv, Gemm and MatMul weights in node order."""
        return weights_of(self.model, self.path.parent)

    def exported(self, batch: int | None) -> Exported:
        """Facts about the file for the report."""
        return Exported(
            path=self.path.name,
            sha256=self.facts.sha256,
            size_bytes=self.facts.size_bytes,
            opset=self.opset,
            exporter=self.producer,
            batch=batch,
            num_weights=self.sparsity.num_weights,
            num_nonzero=self.sparsity.num_weights - self.sparsity.num_zeros,
            compressed_bytes=None if self.external else compressed_bytes(self.path),
        )


def is_onnx(path: Path) -> bool:
    """Whether a file is ONNX, by its name: the format has no magic bytes."""
    return path.suffix.lower() == SUFFIX


def read_onnx(path: Path) -> OnnxFile:
    """Read and check an ONNX file without running it.

    Raises:
        BadInputError: the file is missing, not ONNX or larger than 2 GB, a weight file is missing or outside its
            folder, or a tensor's content does not fit its shape.
    """
    import onnx

    model = _parse(path)
    external = _check_external(path, model)
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not model.graph.node or not opsets:
        raise BadInputError(f"{path}: is not an ONNX model: it holds no graph", hint="name an .onnx file")
    try:
        found = list(_measurable(layers_of(model, path.parent)))
        gains = list(_gains(model, path.parent))
    except (ValueError, TypeError, KeyError, OSError, MemoryError) as error:  # numpy and onnx on damaged tensors
        raise BadInputError(
            f"{path}: a weight cannot be read: {str(error)[:200] or type(error).__name__}", hint="the file is damaged"
        ) from error
    layers = [layer for layer in found if not isinstance(layer, UnknownWeight)]
    unknown = [layer for layer in found if isinstance(layer, UnknownWeight)]
    return OnnxFile(
        path=path,
        external=external,
        facts=_facts(path, model, external, measure_layers(layers, gains), unknown, int(opsets[0])),
        opset=int(opsets[0]),
        producer=_producer(model),
        is_quantized=any(node.op_type in _INTEGER_LAYERS for graph in graphs_of(model.graph) for node in graph.node),
        is_half=any(
            tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
            for graph in graphs_of(model.graph)
            for tensor in graph.initializer
        ),
        model=model,
    )


def own_operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """Operators that are neither standard nor defined in the file: onnxruntime may not have them."""
    defined = {(function.domain, function.name) for function in model.functions}
    nodes = (node for graph in graphs_of(model.graph) for node in graph.node)
    foreign = {
        f"{node.domain}.{node.op_type}"
        for node in nodes
        if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type) not in defined
    }
    return tuple(sorted(foreign))


def last_activation(model: onnx.ModelProto, output: str | None = None, *, of_last_part: bool = False) -> Activation:
    """What an output's numbers went through last, apart from operators that only move or store them.

    Args:
        model: of a file.
        output: name of it; None for the first.
        of_last_part: where several parts are put together, as boxes and scores are, ask about the last.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output or model.graph.output[0].name)
    passed = _ONLY_MOVE | {"Concat"} if of_last_part else _ONLY_MOVE
    for _ in model.graph.node:  # a hostile graph may go round
        if node is None or node.op_type not in passed or not node.input:
            break
        node = makers.get(node.input[-1] if node.op_type == "Concat" else node.input[0])
    return _ACTIVATIONS.get(node.op_type, Activation.NONE) if node is not None else Activation.NONE


def is_made_of(model: onnx.ModelProto, output: str, others: Iterable[str]) -> bool:
    """Whether an output is the softmax or sigmoid of what one of the others is."""
    makers = {name: node for node in model.graph.node for name in node.output}

    def origin(name: str) -> str:
        for _ in model.graph.node:  # a hostile graph may go round
            node = makers.get(name)
            if node is None or node.op_type not in _ONLY_MOVE or not node.input:
                break
            name = node.input[0]
        return name

    node = makers.get(origin(output))
    if node is None or node.op_type not in _ACTIVATIONS or not node.input:
        return False
    return origin(node.input[0]) in {origin(other) for other in others if other != output}


_ACTIVATIONS = {"Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}
_ONLY_MOVE = frozenset(
    [
        "Identity",
        "Cast",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)


def _parse(path: Path) -> onnx.ModelProto:
    import onnx

    if not path.exists():
        raise BadInputError(f"{path}: no such file", hint="name an .onnx file")
    if not path.is_file():
        raise BadInputError(f"{path}: is not a file", hint="name an .onnx file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadInputError(f"{path}: is larger than the 2 GB that an ONNX file can be", hint="is it an ONNX file?")
    try:
        # By content alone: onnx.load would take model.json for text.
        model: onnx.ModelProto = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except Exception as error:  # protobuf's own errors share no base with the others it lets through
        with path.open("rb") as file:
            is_of_torch = file.read(4).startswith(_TORCH_MAGIC)
        hint = "it begins as a PyTorch checkpoint does: rename it to .pt" if is_of_torch else "name an .onnx file"
        raise BadInputError(f"{path}: is not an ONNX file, or a damaged one", hint=hint) from error
    return model


# --- files beside it ----------------------------------------------------------------------------------------


def _check_external(path: Path, model: onnx.ModelProto) -> tuple[str, ...]:
    """External files with tensors of this one, once each is found in its folder and large enough.

    Raises:
        BadInputError: a file is missing, too short, or outside the folder: an absolute path, "..", a link.
    """
    found: dict[str, None] = {}
    for tensor in _all_tensors(model):
        where = external_fields(tensor)
        if where and tensor.data_location == tensor.EXTERNAL:
            location = where.get("location", "")
            _check_location(path, location)
            _check_extent(path, tensor, location, where.get("offset", "0"), where.get("length"))
            found[location] = None
    return tuple(found)


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in a file: in its graphs, in node attributes, in its functions."""
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _tensors_of_nodes(graph.node)
    for training in model.training_info:
        for part in (training.initialization, training.algorithm):
            yield from (tensor for graph in graphs_of(part) for tensor in graph.initializer)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                           *attribute.sparse_tensors):  # fmt: skip
                yield from (sparse.values, sparse.indices)
            # Graphs inside a function's nodes; those of the model's own graph are walked by graphs_of.
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graph.initializer
                yield from _tensors_of_nodes(graph.node)


def _check_location(path: Path, location: str) -> None:
    steps_out = ".." in PurePosixPath(location.replace("\\", "/")).parts
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or "\0" in location or steps_out or absolute or not location.isprintable():
        raise BadInputError(
            f"{path}: says its weights lie in {location!r}, which is not a file in its own folder",
            hint="a valid ONNX file names weight files beside it; do not use this one unless you know who made it",
        )
    file, folder = path.parent / location, path.parent.resolve()
    if not file.resolve().is_relative_to(folder):
        raise BadInputError(
            f"{path}: its weight file {location} is a link that leads out of the folder",
            hint="put the file itself there, not a link to it",
        )
    if not file.is_file():
        raise BadInputError(
            f"{path}: its weights are in {location}, which is missing",
            hint=f"put {location} beside it, under its original name",
        )


def _check_extent(path: Path, tensor: onnx.TensorProto, location: str, offset: str, length: str | None) -> None:
    size_bytes = (path.parent / location).stat().st_size
    try:
        start, needed = int(offset), _num_bytes(tensor)
        stated = needed if length is None else int(length)
    except ValueError:
        start, needed, stated = -1, 0, 0
    if start < 0 or stated != needed or start + needed > size_bytes:
        raise BadInputError(
            f"{path}: tensor {tensor.name!r:.80} of shape {list(tensor.dims)} does not fit bytes {offset} on "
            f"({length or 'to the end'}) of {location}, which has {size_bytes:,}",
            hint="one of the two files is damaged, or they do not belong together",
        )


def _num_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's content. Raises ValueError for an impossible type or shape."""
    from onnx import TensorProto, helper

    if tensor.data_type == TensorProto.STRING or any(side < 0 for side in tensor.dims):
        raise ValueError(tensor.name)
    num_elements: int = math.prod(tensor.dims)
    if TensorProto.DataType.Name(tensor.data_type) in ("INT4", "UINT4", "FLOAT4E2M1"):
        return (num_elements + 1) // 2
    if TensorProto.DataType.Name(tensor.data_type) in ("INT2", "UINT2"):
        return (num_elements + 3) // 4
    try:
        return int(num_elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError as error:
        raise ValueError(tensor.name) from error


# --- facts --------------------------------------------------------------------------------------------------


def _measurable(
    layers: Iterable[OnnxWeight | UnknownWeight],
) -> Iterator[tuple[str, Tensor, int] | UnknownWeight]:
    """A weight in the form that `measure_layers` takes: ones where it is not zero, which need less memory."""
    import torch

    for layer in layers:
        if isinstance(layer, UnknownWeight):
            yield layer
        else:
            axis = 1 if layer.input_axis is None else layer.input_axis
            yield layer.name, torch.from_numpy(~layer.is_zero), axis


def _gains(model: onnx.ModelProto, folder: Path) -> Iterator[Tensor]:
    """γ of each batch norm that was not folded into a layer, as ones where it is not zero."""
    import torch

    tensors = Tensors(model, folder)
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.op_type == "BatchNormalization" and (gain := tensors.read_stored(node.input[1])) is not None:
                yield torch.from_numpy(gain != 0)


def _facts(
    path: Path,
    model: onnx.ModelProto,
    external: tuple[str, ...],
    sparsity: Sparsity,
    unknown: Iterable[UnknownWeight],
    opset: int,
) -> ModelFacts:
    graphs = list(graphs_of(model.graph))
    size_bytes = path.stat().st_size + sum((path.parent / location).stat().st_size for location in external)
    return ModelFacts(
        path=str(path),
        sha256=sha256_of(path),
        size_bytes=size_bytes,
        format=f"ONNX, opset {opset}, IR version {model.ir_version}, by {_producer(model)}"
        + (f", weights in {', '.join(external)}" if external else ""),
        architecture=f"ONNX graph of {sum(len(graph.node) for graph in graphs):,} nodes",
        architecture_source="the file itself",
        num_parameters=sum(
            math.prod(tensor.dims) for graph in graphs for tensor in (*graph.initializer, *graph.sparse_initializer)
        ),
        num_batch_norms=sum(node.op_type == "BatchNormalization" for graph in graphs for node in graph.node),
        num_classes=None,
        has_masks=False,
        teacher_inside=False,
        sparsity=sparsity,
        input=None,
        input_source="unknown",
        uncounted=tuple(f"{layer.layer}: {layer.reason}" for layer in unknown),
    )


def _producer(model: onnx.ModelProto) -> str:
    said = f"{model.producer_name} {model.producer_version}".strip()
    return "".join(character for character in said if character.isprintable())[:60] or "unknown"
