"""PyTorch → ONNX: one self-contained file, byte for byte reproducible, without traces of this machine."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Exported, InputSpec, sha256_of
from edgerecover.errors import UNWRITABLE_HINT, BadInputError, StageError
from edgerecover.files import compressed_bytes, replace_file
from edgerecover.models.onnx.tensors import graphs_of
from edgerecover.models.onnx.weights import weights_of
from edgerecover.runtime.machine.silence import silence

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

MAX_FILE_BYTES = 2**31 - 1
"""Size limit of a protobuf, and so of a single-file ONNX model."""
INPUT_NAME = "input"


def export(
    student: nn.Module,
    input: InputSpec,
    path: Path,
    *,
    opset: int,
    batch: int | None = 1,
    ir_version: int | None = None,
    outputs: Sequence[str] = ("logits",),
) -> Exported:
    """Write `student` (any device, not changed) as float32 ONNX: `input` (N, C, H, W) → `logits` (N, K), or `outputs`.

    The dynamo exporter is tried first. If it fails, or cannot reach `opset`, the TorchScript exporter writes the file
    and `Exported.exporter` gives the reason. `batch=None` leaves N open. `ir_version` is the highest that the file may
    state, for old readers; None leaves the exporter's.

    Raises:
        BadInputError: neither exporter can express the network at this opset, it does not turn one image
            tensor into as many tensors as have names, or the file would pass 2 GB.
        StageError: the file cannot be written.
    """
    from edgerecover.models.network.outputs import as_it_is

    network = as_it_is(copy.deepcopy(student)).cpu().float().eval()
    # Traced with two images when N is open: torch.export would take a 1 for a constant.
    images_NCHW = _zeros(2 if batch is None else batch, input)
    with silence():
        model, exporter = _convert(network, images_NCHW, opset, outputs, dynamic_batch=batch is None)
    if ir_version is not None:
        model = _with_ir_version(model, ir_version)
    _strip(model)
    _write(_check(model, outputs), path)
    num_weights, num_nonzero = count_weights(model)
    return Exported(
        path=str(path),
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        opset=_opset_of(model),
        exporter=exporter,
        batch=batch,
        num_weights=num_weights,
        num_nonzero=num_nonzero,
        compressed_bytes=compressed_bytes(path),
    )


def frozen_values(exported: Exported) -> tuple[str, ...]:
    """A warning about values that the forward takes out of tensors, which a traced file holds as constants."""
    if "data-dependent" not in exported.exporter:
        return ()
    return (
        "the forward takes values out of tensors (`if` on a tensor, float(), .item()), and the exported file holds "
        "what they were for one black image: where another image gives others, the file decides otherwise than the "
        "network. torch.where and torch.cond can be exported",
    )


def check_size(network: nn.Module) -> None:
    """Check early that the network's weights fit into one ONNX file.

    Raises:
        BadInputError: they are larger than one ONNX file can be.
    """
    size_bytes = 4 * sum(parameter.numel() for parameter in network.parameters())
    if size_bytes > MAX_FILE_BYTES:
        raise _too_large(f"the network's weights take {size_bytes / 1e9:.1f} GB in float32")


def _too_large(what: str) -> BadInputError:
    return BadInputError(
        f"{what}; one ONNX file holds at most 2 GB",
        hint="a network of this size does not fit this tool's single-file bundles",
    )


def _zeros(batch: int, input: InputSpec) -> Tensor:
    import torch

    return torch.zeros(batch, *input.shape)


# --- conversion ---------------------------------------------------------------------------------------------


def _convert(
    network: nn.Module, images_NCHW: Tensor, opset: int, outputs: Sequence[str], *, dynamic_batch: bool
) -> tuple[onnx.ModelProto, str]:
    exporters: tuple[tuple[str, Callable[..., onnx.ModelProto]], ...] = (
        ("dynamo", _by_dynamo),
        ("torchscript", _by_torchscript),
    )
    failures: list[str] = []
    for name, convert in exporters:
        try:
            model = convert(network, images_NCHW, opset, outputs, dynamic_batch)
        except Exception as error:  # exporters let through whatever their many layers raise
            failures.append(f"{name} failed: {_reason(error)}")
            continue
        if _opset_of(model) != opset:
            failures.append(f"{name} failed: wrote opset {_opset_of(model)}, {opset} was asked")
        elif newer := _newer_operator(model, opset):
            failures.append(f"{name} failed: {newer}")
        elif fault := _fault_of(model):
            failures.append(f"{name} failed: {fault}")
        else:
            return model, f"{name} ({failures[0]})" if failures else name
    raise BadInputError(
        f"the network cannot be exported to ONNX opset {opset}: {'; '.join(failures)}",
        hint=_other_opset(failures)
        or "write that part of the network with operators that ONNX has: the reasons name it",
    )


def _fault_of(model: onnx.ModelProto) -> str:
    """Why onnx.checker refuses the file (say, a bfloat16 convolution before opset 22); empty if it accepts it."""
    import onnx

    if model.ByteSize() > MAX_FILE_BYTES:  # said where the file is written
        return ""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"onnx.checker refuses the file: {_reason(error)}"
    return ""


def _newer_operator(model: onnx.ModelProto, opset: int) -> str:
    """Operators in the file that `opset` does not have yet, in words; empty if there are none."""
    import onnx

    nodes = [node for graph in graphs_of(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    names = dict.fromkeys(node.op_type for node in nodes if node.domain in ("", "ai.onnx"))
    first_versions: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in names:
            known = first_versions.get(schema.name, schema.since_version)
            first_versions[schema.name] = min(known, schema.since_version)
    newer = next((name for name in names if first_versions.get(name, 0) > opset), None)
    return f"{newer} was added in version {first_versions[newer]}" if newer else ""


def _other_opset(failures: list[str]) -> str:
    """What to do if another opset would help, according to the exporters; else empty."""
    told = " ".join(failures)
    if (since := re.search(r"added in version (\d+)", told)) is not None:
        return f"opset {since[1]} or later in the target has what the network needs"
    if "bfloat16" in told:
        return "let the forward compute in float32: torch.autocast belongs around the call of a network, not inside it"
    if "wrote opset" in told:
        return "another opset in the target: 18 is native to the exporter"
    return ""


def _by_dynamo(
    network: nn.Module, images_NCHW: Tensor, opset: int, outputs: Sequence[str], dynamic_batch: bool
) -> onnx.ModelProto:
    import torch

    program = torch.onnx.export(
        network,
        (images_NCHW,),
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[*outputs],
        dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
    )
    assert program is not None, "torch.onnx.export(dynamo=True) always returns a program"
    return program.model_proto


def _by_torchscript(
    network: nn.Module, images_NCHW: Tensor, opset: int, outputs: Sequence[str], dynamic_batch: bool
) -> onnx.ModelProto:
    import onnx
    import torch

    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (images_NCHW,),
        # The annotation names paths only; this exporter documents and accepts a buffer.
        buffer,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[*outputs],
        dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *outputs)} if dynamic_batch else None,
    )
    return onnx.load_model_from_string(buffer.getvalue())


def _reason(error: BaseException) -> str:
    """First line of the error at the root of the chain; its wrappers only say which step failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    # Of what follows nothing is about the network: links, and requests for support.
    return f"{type(error).__name__}: {lines[0].partition('. Please')[0][:200]}" if lines else type(error).__name__


# --- the file -----------------------------------------------------------------------------------------------


def _opset_of(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _with_ir_version(model: onnx.ModelProto, highest: int) -> onnx.ModelProto:
    """State an IR version of at most `highest`, which is 7 or above.

    Later versions brought functions (8), 8-bit and 4-bit floats (9 to 11) and metadata (10; github.com/onnx/onnx,
    onnx.proto). Of these, a float32 network has functions, which are inlined, and metadata, which is stripped.
    """
    import onnx.inliner

    if model.ir_version <= highest:
        return model
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model.ir_version = highest
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove doc strings and metadata: they hold source paths and stack traces of this machine."""
    parts: list[Any] = [model]
    for graph in graphs_of(model.graph):
        parts += [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in model.functions:
        parts += [function, *function.node, *function.value_info]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def _check(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    size_bytes = model.ByteSize()
    if size_bytes > MAX_FILE_BYTES:
        raise _too_large(f"the exported file would take {size_bytes / 1e9:.1f} GB")
    inputs, outputs = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    if inputs != [INPUT_NAME] or outputs != [*names]:
        raise BadInputError(
            f"the exported graph takes {len(inputs)} inputs and gives {len(outputs)} outputs",
            hint="a classifier takes one image tensor and returns one tensor of logits in eval mode",
        )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _write(content: bytes, path: Path) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise StageError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint=UNWRITABLE_HINT,
        ) from error


# --- weights ------------------------------------------------------------------------------------------------


def count_weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Number of weights of Conv, ConvTranspose, Gemm and MatMul, each tensor once, and of those that are not zero."""
    weights = list(weights_of(model))
    num_weights = sum(weight.is_zero.size for weight in weights)
    return num_weights, num_weights - sum(int(weight.is_zero.sum()) for weight in weights)
