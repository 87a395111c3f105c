"""Try one library for real, in a process that may die of it: `main` runs in a fresh interpreter.

A list of what is installed says little: a torchvision built for another torch imports, until its first operator is
called; onnxruntime lists providers that do not start; a wheel for another CUDA loads, until a device is asked for.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import tempfile
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgerecover.artifacts.engines import TENSORRT, TENSORRT_RTX
from edgerecover.errors import EdgeRecoverError
from edgerecover.runtime.machine.silence import silence
from edgerecover.runtime.machine.tensorrt_module import import_tensorrt, version_of

TINY_ONNX = b64decode(
    "CAc6yAEKEwoFaW5wdXQKAXcSAWMiBENvbnYKGQoBYxIBbSIRR2xvYmFsQXZlcmFnZVBvb2wKFAoBbRIGbG9naXRzIgdGbGF0dGVu"
    "EgR0aW55Kj8IBAgDCAEIARABQgF3SjAAAAAAAACAPQAAAD4AAEA+AACAPgAAoD4AAMA+AADgPgAAAD8AABA/AAAgPwAAMD9aHwoF"
    "aW5wdXQSFgoUCAESEAoCCAEKAggDCgIICAoCCAhiGAoGbG9naXRzEg4KDAgBEggKAggBCgIIBEIECgAQDQ=="
)
"""A convolution, its mean and the shape of class scores: float32 (1, 3, 8, 8) → (1, 4), opset 13, IR version 7."""


def main(arguments: Sequence[str]) -> int:
    """Run the probe that the first argument names on the others; print what it found, or its error, as JSON."""
    name, *rest = arguments
    answer: dict[str, Any]
    try:
        with silence():
            answer = {"found": PROBES[name](*rest)}
    except EdgeRecoverError as error:
        answer = {"error": error.message}
    except Exception as error:  # whatever a broken library raises when it is imported is the answer
        answer = {"error": f"{type(error).__name__}: {_first_line(error)}"}
    sys.stdout.write(json.dumps(answer))
    return 0


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]


# --- one function per library -------------------------------------------------------------------------------


def probe_torch() -> dict[str, Any]:
    """PyTorch computes, and which CUDA it is built for and finds."""
    import torch

    if float(torch.ones(2).sum()) != 2:
        raise RuntimeError("adding two ones gives something else")
    has_cuda = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "built_for_cuda": torch.version.cuda or "",
        "gpu": torch.cuda.get_device_name(0) if has_cuda else "",
    }


def probe_torchvision() -> dict[str, Any]:
    """What `probe_torch` finds, and that torchvision's compiled operators fit it: one of them is called."""
    found = probe_torch()
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    return {**found, "torchvision": torchvision.__version__}


def probe_onnxruntime(*asked: str) -> dict[str, Any]:
    """Version, listed providers, and what happens when a file is run on each of `asked`, or of those that are listed.

    `failures` holds the providers that ran nothing, with the reason.
    """
    from edgerecover.runtime.session.onnxruntime import import_onnxruntime, open_session

    runtime = import_onnxruntime()
    listed: list[str] = runtime.get_available_providers()
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        path = Path(folder) / "tiny.onnx"
        path.write_bytes(TINY_ONNX)
        for provider in asked or [name for name in listed if name != "AzureExecutionProvider"]:
            try:
                open_session(path, [provider], strict=True)
            except EdgeRecoverError as error:
                failures[provider] = error.message
    return {"version": runtime.__version__, "listed": listed, "failures": failures}


def probe_openvino() -> dict[str, Any]:
    """Version and devices."""
    from edgerecover.runtime.session.openvino import import_openvino

    openvino = import_openvino()
    return {"version": openvino.__version__.partition("-")[0], "devices": list(openvino.Core().available_devices)}


def probe_mnn() -> dict[str, Any]:
    """Version; the converter loads too."""
    from edgerecover.runtime.machine.mnn_module import import_converter, import_mnn

    import_converter()
    return {"version": str(import_mnn().version())}


def probe_tensorrt() -> dict[str, Any]:
    """Version, and how many deep learning accelerators its builder sees, which needs a driver and a GPU."""
    tensorrt = import_tensorrt(TENSORRT)
    builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    return {"version": version_of(tensorrt), "dla_cores": int(builder.num_DLA_cores)}


def probe_tensorrt_rtx() -> dict[str, Any]:
    """Version; its builder and parser start, for which it needs no GPU."""
    rtx = import_tensorrt(TENSORRT_RTX)
    logger = rtx.Logger(rtx.Logger.ERROR)
    rtx.OnnxParser(rtx.Builder(logger).create_network(0), logger)
    return {"version": version_of(rtx)}


def probe_cuda_driver() -> dict[str, Any]:
    """The newest CUDA that the installed driver runs, as "12.4"."""
    library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        raise RuntimeError("cuDriverGetVersion fails")
    return {"version": f"{version.value // 1000}.{version.value % 1000 // 10}"}


def probe_module(name: str) -> dict[str, Any]:
    """Any other module: imports, and its version where it tells."""
    return {"version": str(getattr(importlib.import_module(name), "__version__", ""))}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "torch": probe_torch,
    "torchvision": probe_torchvision,
    "onnxruntime": probe_onnxruntime,
    "openvino": probe_openvino,
    "MNN": probe_mnn,
    "tensorrt": probe_tensorrt,
    "tensorrt_rtx": probe_tensorrt_rtx,
    "cuda_driver": probe_cuda_driver,
    "module": probe_module,
}
