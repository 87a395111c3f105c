"""onnxruntime's execution providers: which package brings one, and what it has to be told. Stdlib only."""

from __future__ import annotations

from edgerecover.errors import pip_line

CPU = "CPUExecutionProvider"
QNN = "QNNExecutionProvider"
PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu, beside TensorRT",
    "NvTensorRTRTXExecutionProvider": "onnxruntime-trt-rtx",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    QNN: "onnxruntime-qnn",
    "CoreMLExecutionProvider": "onnxruntime on macOS",
    "DmlExecutionProvider": "onnxruntime-directml",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
}
"""What to install for a provider."""
_BESIDE = frozenset({QNN})
"""Packages that are installed beside onnxruntime. The others are builds of it under one import name: only one of them
can be installed at a time."""
COPYING = frozenset(
    {
        "CUDAExecutionProvider",
        "TensorrtExecutionProvider",
        "NvTensorRTRTXExecutionProvider",
        "MIGraphXExecutionProvider",
        "DmlExecutionProvider",
    }
)
"""Providers with their own memory: each call copies images there and scores back."""
COMPILING = frozenset(
    {
        QNN,
        "CoreMLExecutionProvider",
        "NvTensorRTRTXExecutionProvider",
        "OpenVINOExecutionProvider",
        "TensorrtExecutionProvider",
    }
)
"""Providers that run a whole network as one node: how many nodes the CPU runs beside it says nothing."""
STATIC_ONLY = frozenset({QNN, "CoreMLExecutionProvider"})
"""They take only networks whose sizes are all fixed; the rest would stay on the CPU."""


def options_of(provider: str, num_threads: int | None) -> dict[str, str]:
    """What a provider is opened with, beside its own defaults (onnxruntime.ai, Execution Providers)."""
    if provider == QNN:
        return {"backend_type": "htp"}  # the default is the CPU reference, which nobody means
    if provider == "CoreMLExecutionProvider":
        return {"ModelFormat": "MLProgram"}  # the older format has no float16
    if provider == "OpenVINOExecutionProvider" and num_threads is not None:
        return {"num_of_threads": str(num_threads)}
    return {}


def how_to_get(provider: str) -> str:
    """A hint for whoever asked for a provider that this onnxruntime does not have."""
    package = PACKAGES.get(provider)
    if package is None:
        return "install the onnxruntime build that has it and the driver it needs, or name another"
    name = package.partition(",")[0].partition(" on ")[0]
    where = "beside" if provider in _BESIDE else "instead of"
    return f"{pip_line(f'install {name}')} {where} onnxruntime" + (f" ({package})" if " " in package else "")
