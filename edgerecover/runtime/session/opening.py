"""One way to open a model file in any runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgerecover.artifacts import NumValues
from edgerecover.artifacts.engines import ENGINE_RUNTIMES
from edgerecover.errors import BadInputError
from edgerecover.runtime.session.opened import Opened

RUNTIMES = ("onnxruntime", "openvino", "mnn", "tensorrt", "tensorrt-rtx")
"""Their names, in flags, targets and reports alike."""


def open_model(
    path: Path,
    runtime: str,
    providers: Sequence[str],
    *,
    num_threads: int | None = None,
    strict: bool = False,
    shape_CHW: tuple[int, int, int] | None = None,
    num_values: NumValues | None = None,
    batch: int | None = None,
    exact_int8: bool = False,
) -> Opened:
    """Open a classifier in one of `RUNTIMES`.

    Args:
        path: an ONNX file; for "mnn" that or a .mnn file; for "tensorrt" and "tensorrt-rtx" a built engine.
        runtime: its name.
        providers: execution providers or devices of that runtime, best first.
        num_threads: of one call, where the runtime computes on the CPU; None leaves it to the runtime.
        strict: refuse to go on when the first of `providers` runs nothing.
        shape_CHW: of the images it will be given.
        num_values: numbers for each image, which tell the scores from other outputs.
        batch: images per call where the file leaves that open: runtimes that can, compile for it.
        exact_int8: add up 8-bit products exactly, as the file says, on processors whose fast kernels saturate, too. An
            engine adds up in 32 bits anyway.

    Raises:
        BadInputError: the file is missing, broken or no such classifier; or no runtime has that name.
        MissingError: the runtime is not installed; or `strict`, and the first provider is not there or ran nothing.
    """
    if runtime in ENGINE_RUNTIMES:
        from edgerecover.runtime.session.tensorrt import open_engine

        return open_engine(path, runtime, shape_CHW=shape_CHW, num_values=num_values, batch=batch)
    return _opener_of(runtime)(
        path,
        providers,
        num_threads=num_threads,
        strict=strict,
        shape_CHW=shape_CHW,
        num_values=num_values,
        batch=batch,
        exact_int8=exact_int8,
    )


def _opener_of(runtime: str) -> Callable[..., Opened]:
    """What opens an ONNX file; imported here, because one of them alone may be installed."""
    if runtime == "onnxruntime":
        from edgerecover.runtime.session.onnxruntime import open_session

        return open_session
    if runtime == "openvino":
        from edgerecover.runtime.session.openvino import open_openvino

        return open_openvino
    if runtime == "mnn":
        from edgerecover.runtime.session.mnn import open_mnn

        return open_mnn
    raise BadInputError(f"unknown runtime {runtime!r}", hint=f"one of {', '.join(RUNTIMES)}")
