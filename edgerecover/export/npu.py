"""The ONNX file around a network that was compiled for an NPU."""

from __future__ import annotations

from pathlib import Path

from edgerecover.errors import BadInputError

CONTEXT = "EPContext"
"""Operator that holds a compiled network."""


def tidy_context(path: Path, source: Path) -> tuple[str, ...]:
    """Give a compiled file the IR version of what it was compiled from, and no operator set that it does not use.

    onnxruntime writes its own newest ones, which the older release in an app does not open.

    Args:
        path: as onnxruntime wrote it; overwritten.
        source: ONNX file that it was compiled from.

    Returns:
        The operators that were left to the CPU.

    Raises:
        BadInputError: nothing in it is compiled.
    """
    import onnx

    model = onnx.load(path)
    model.ir_version = onnx.load(source, load_external_data=False).ir_version
    used = {"", *(node.domain for node in model.graph.node)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, path)
    if not any(node.op_type == CONTEXT for node in model.graph.node):
        raise BadInputError(
            f"{source.name}: the NPU's compiler took none of its nodes",
            hint="the NPU takes Q/DQ files of static shapes",
        )
    return tuple(node.op_type for node in model.graph.node if node.op_type != CONTEXT)
