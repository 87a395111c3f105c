"""From a target and an ONNX file to the recipe of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerecover.artifacts import ENGINE_RUNTIMES, TENSORRT_RTX, BatchRange, EngineRecipe, Precision
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.config import Target
    from edgerecover.models.onnx.file import OnnxFile


def recipe_for(
    target: Target,
    precision: Precision,
    *,
    batch: BatchRange | None = None,
    sparse_weights: bool | None = None,
) -> EngineRecipe:
    """The recipe of the engine to build for a target.

    Args:
        target: a target whose runtime is TensorRT or TensorRT-RTX.
        precision: the file's precision.
        batch: None for a file with a static batch.
        sparse_weights: None allows sparse kernels if the target has them: weights without the 2:4 pattern do not use
            them.

    Raises:
        BadInputError: the target runs no engines.
    """
    runtime = str(target.runtime.value)
    if runtime not in ENGINE_RUNTIMES:
        raise BadInputError(
            f"target {target.name} runs ONNX files in {runtime}, not engines",
            hint="`edgerecover targets list` shows those for TensorRT: jetson-… and rtx-…",
        )
    capability = target.compute_capability.value if target.compute_capability is not None else None
    return EngineRecipe(
        runtime=runtime,
        precision=precision,
        batch=batch,
        compute_capabilities=(capability,) if runtime == TENSORRT_RTX and capability is not None else (),
        workspace_mb=target.workspace_mb.value if target.workspace_mb is not None else None,
        sparse_weights=target.sparse.value == "2:4" if sparse_weights is None else sparse_weights,
    )


def precision_of(onnx: OnnxFile) -> Precision:
    """The lowest precision of any tensor in a file."""
    if onnx.is_quantized:
        return Precision.INT8
    return Precision.FP16 if onnx.is_half else Precision.FP32
