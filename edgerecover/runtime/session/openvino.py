"""An ONNX file opened in OpenVINO, and what really ran it.

Two of OpenVINO's habits are undone here. Importing it reports the import to its makers: the module that does so is
kept out. And where the processor multiplies in bf16 it computes float32 files in bf16 unless told otherwise: it is told
what the file says, and the notes say what it would have done.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import NumValues
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)
from edgerecover.runtime.machine.silence import silence
from edgerecover.runtime.session.onnxruntime import first_line
from edgerecover.runtime.session.opened import Classifier, FoundInput, InputLayout, only_input
from edgerecover.runtime.session.providers import CPU
from edgerecover.runtime.session.wire import stored_as_int32

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEVICE_CPU = "CPU"
_DEVICES = {CPU: DEVICE_CPU, "OpenVINOExecutionProvider": DEVICE_CPU}
"""onnxruntime's names, which targets use, as OpenVINO's devices."""
_DTYPES = {"f32": "float32", "f16": "float16", "f64": "float64"}
_CALLS_HOME = "openvino.tools.ovc"
_MULTIPLY = frozenset({"Convolution", "FullyConnected", "MatMul", "GroupConvolution"})
"""Layer types whose arithmetic is worth naming."""
_EXACT_INT8 = {"LP_TRANSFORMS_MODE": "OFF"}
"""On x86 processors without VNNI the CPU plugin's int8 kernels add pairs of 8-bit products in 16 bits, where they
saturate. Without its low precision transformations it computes what the file's Q/DQ nodes say, in float32. The property
is not documented (src/plugins/intel_cpu/src/internal_properties.hpp of OpenVINO)."""
_MISREAD_IN_INT32 = frozenset({16, 17, 18, 19, 20})
"""BFLOAT16 and FLOAT8* of TensorProto.DataType (findings/openvino-float8-in-int32-data.sh). float16 is read well."""
_FOREIGN_LOCATION = "EXECUTION_DEVICES"


def import_openvino() -> Any:
    """The openvino module, without the part of it that sends a usage event when imported.

    Raises:
        MissingError: it is not installed, or does not load here.
    """
    if sys.modules.get("openvino") is not None:
        return sys.modules["openvino"]
    # `None` makes an import fail, which openvino allows for: it then has no model converter, which is not needed.
    hidden = _CALLS_HOME not in sys.modules
    if hidden:
        sys.modules[_CALLS_HOME] = None  # type: ignore[assignment]
    try:
        with silence():
            import openvino
    except ImportError as error:
        raise MissingError(
            f"OpenVINO cannot be imported: {error}", hint=pip_line("install 'edgerecover[openvino]'")
        ) from error
    finally:
        if hidden:
            del sys.modules[_CALLS_HOME]
    return openvino


class OpenVINOSession(Classifier):
    """One ONNX file, compiled for one device. Made by `open_openvino`."""

    runtime = "openvino"
    cuda_graph = False

    def __init__(
        self,
        path: Path,
        devices: Sequence[str],
        num_threads: int | None,
        shape_CHW: tuple[int, int, int] | None,
        num_values: NumValues | None,
        batch: int | None,
        exact_int8: bool = False,
    ) -> None:
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        self.version: str = str(self._openvino.__version__).split("-")[0]
        self._device, missing = _first_present(devices, self._core.available_devices)
        started_ns = time.perf_counter_ns()
        model = _read(self._core, path)
        _refuse_misread(path, self.version)
        layout = only_input(path, [_find_input(one) for one in model.inputs], shape_CHW)
        self._shape, layout = _fix_layout(model, layout, batch)
        super().__init__(path, layout, num_values)
        self._hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        self._precision = _stated_precision(model, self._core, self._device)
        self._hints["INFERENCE_PRECISION_HINT"] = self._precision
        if exact_int8 and self._device == DEVICE_CPU:
            self._hints |= _EXACT_INT8
        if num_threads is not None and self._device == DEVICE_CPU:
            self._hints["INFERENCE_NUM_THREADS"] = num_threads
        self._compiled = _compile(self._core, model, path, self._device, self._hints)
        self._request = self._compiled.create_infer_request()
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        self.providers: tuple[str, ...] = tuple(self._compiled.get_property(_FOREIGN_LOCATION))
        self.num_threads: int = self._threads() or num_threads or 1
        self._missing = missing
        self._outputs = tuple(one.any_name for one in model.outputs)

    def _threads(self) -> int | None:
        if self._device != DEVICE_CPU:
            return None
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

    def insist(self) -> None:
        """The first device that was asked for must be the one that runs.

        Raises:
            MissingError: it is not here.
        """
        if self._missing:
            raise MissingError(
                f"OpenVINO was asked for {self._missing[0]} and would run {self.path.name} on {self._device}: "
                "no driver for it was found",
                hint="install the driver of the device, or name another (CPU is always here)",
            )

    @property
    def copies(self) -> bool:
        """A discrete GPU has a memory of its own; CPU, integrated GPU and NPU share the host's."""
        if not self._device.startswith("GPU"):
            return False
        return "DISCRETE" in str(self._core.get_property(self._device, "DEVICE_TYPE")).upper()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""
        return self._outputs

    @property
    def notes(self) -> tuple[str, ...]:
        """In which arithmetic it computes, what it would have chosen itself, and what was not there."""
        own = _name(self._core.get_property(self._device, "INFERENCE_PRECISION_HINT"))
        said = f"floating point in {self._precision}, as the file says"
        if own not in (self._precision, "dynamic", "undefined"):
            said += f"; OpenVINO's own choice on this machine is {own}"
        kinds = ", ".join(f"{number} in {kind}" for kind, number in self.layers_by_arithmetic.items())
        notes = [said, f"convolutions and matrix products: {kinds or 'none'}"]
        if self._missing:
            notes.append(f"{', '.join(self._missing)} not here: run on {self._device}")
        return tuple(notes)

    @cached_property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes really ran, by device, from one profiled run of a second compilation."""
        model = _read(self._core, self.path)
        if self._shape is not None:
            model.reshape(self._shape)
        compiled = _compile(self._core, model, self.path, self._device, {**self._hints, "PERF_COUNT": True})
        request = compiled.create_infer_request()
        request.infer({0: _zero_feed(self.layout)})
        ran = sum(str(one.status).endswith("EXECUTED") for one in request.get_profiling_info())
        return {self._device: ran}

    @cached_property
    def layers_by_arithmetic(self) -> dict[str, int]:
        """Convolutions and matrix products by the type they are computed in, as compiled: {"i8": 20, "f32": 1}."""
        counts: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = node.get_rt_info()
            if "layerType" in facts and facts["layerType"].astype(str) in _MULTIPLY:
                counts[facts["runtimePrecision"].astype(str) if "runtimePrecision" in facts else "unknown"] += 1
        return dict(counts.most_common())

    def run_batch(self, feed: NDArray[Any]) -> list[Any]:
        """One call of the runtime on what `feed` gave: all outputs; N is the file's batch size when that is static.

        Raises:
            BadInputError: the runtime fails on it.
        """
        try:
            # Shared inputs spare a copy of the images; the scores are copied, or the next call would overwrite them.
            return list(self._request.infer({0: feed}, share_inputs=True, share_outputs=False).to_tuple())
        except Exception as error:  # its errors share no base but Exception
            raise BadInputError(
                f"{self.path}: OpenVINO opens it, but cannot run it: {first_line(error)}",
                hint="the file may be damaged, or made for another runtime",
            ) from error


def open_openvino(
    path: Path,
    providers: Sequence[str],
    *,
    num_threads: int | None = None,
    strict: bool = False,
    shape_CHW: tuple[int, int, int] | None = None,
    num_values: NumValues | None = None,
    batch: int | None = None,
    exact_int8: bool = False,
) -> OpenVINOSession:
    """Open an ONNX classifier in OpenVINO on the first of `providers` that is here.

    Args:
        path: a file with one input, (N, C, H, W) or (N, H, W, C), N static or open, float32, float16 or float64.
        providers: OpenVINO devices ("CPU", "GPU", "NPU"), best first; onnxruntime's name of its CPU means the CPU.
        num_threads: on the CPU; None leaves it to OpenVINO.
        strict: refuse to go on when the first device asked for is not here.
        shape_CHW: of the images it will be given: settles sides that the file leaves open, and which axis is which.
        num_values: numbers for each image, which tell the scores from other outputs.
        batch: size to fix an open batch at; None leaves it open.
        exact_int8: compute what the file's Q/DQ nodes say, exactly, on the CPU: its int8 kernels saturate without VNNI.

    Raises:
        BadInputError: the file is missing, broken, or not such a classifier.
        MissingError: OpenVINO is not installed, or `strict` and the first device is not here.
    """
    session = OpenVINOSession(path, providers, num_threads, shape_CHW, num_values, batch, exact_int8)
    if strict:
        session.insist()
    return session


def _first_present(asked: Sequence[str], present: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """The first device asked for that is here, else the CPU; and those before it that are not."""
    names = {name.split(".")[0] for name in present} | set(present)
    missing: list[str] = []
    for name in asked:
        device = _DEVICES.get(name, name)
        if device in names:
            return device, tuple(missing)
        missing.append(device)
    return DEVICE_CPU, tuple(missing)


def _read(core: Any, path: Path) -> Any:
    if not path.is_file():
        raise BadInputError(f"{path}: no such file", hint="check the path")
    try:
        with silence():
            return core.read_model(str(path))
    except Exception as error:  # its errors share no base but Exception
        raise BadInputError(
            f"{path}: OpenVINO cannot open it: {first_line(error)}",
            hint="the file may be damaged, or use an operator or opset that OpenVINO does not have",
        ) from error


def _refuse_misread(path: Path, version: str) -> None:
    """OpenVINO 2026.4.1 takes the bytes of such tensors for something else and says nothing."""
    if names := stored_as_int32(path, _MISREAD_IN_INT32):
        raise BadInputError(
            f"{path}: OpenVINO {version} misreads it: {names[0]!r:.80}"
            + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            + " of bfloat16 or float8 lie in int32_data, as onnx.helper.make_tensor writes them",
            hint="run it in onnxruntime, or save these tensors with onnx.numpy_helper.from_array, which OpenVINO reads",
        )


def _compile(core: Any, model: Any, path: Path, device: str, hints: dict[str, Any]) -> Any:
    try:
        with silence():
            return core.compile_model(model, device, hints)
    except Exception as error:  # its errors share no base but Exception
        raise BadInputError(
            f"{path}: OpenVINO cannot compile it for {device}: {first_line(error)}",
            hint="the file may be damaged, or use an operator that the device does not have",
        ) from error


def _find_input(one: Any) -> FoundInput:
    kind = one.element_type.get_type_name()
    shape = one.partial_shape
    if shape.rank.is_dynamic:
        return FoundInput(one.any_name, _DTYPES.get(kind), (), f"{one.any_name} {kind} of any rank")
    sides = tuple(side.get_length() if side.is_static else None for side in shape)
    told = ", ".join("?" if side is None else str(side) for side in sides)
    return FoundInput(one.any_name, _DTYPES.get(kind), sides, f"{one.any_name} {kind} ({told})")


def _fix_layout(model: Any, layout: InputLayout, batch: int | None) -> tuple[list[int] | None, InputLayout]:
    """Fix what the file leaves open and the caller knows: static shapes compile to faster code."""
    channels, height, width = layout.shape
    sides = [height, width, channels] if layout.channels_last else [channels, height, width]
    size = layout.batch or batch
    is_open = model.inputs[0].partial_shape.is_dynamic
    shape = [size or -1, *sides] if is_open else None
    if shape is None:
        return None, layout
    model.reshape(shape)
    return shape, InputLayout(layout.name, layout.dtype, size, layout.shape, layout.channels_last)


def _stated_precision(model: Any, core: Any, device: str) -> str:
    """f16 for a file whose weights or images are mostly float16, where the device computes in it; else f32."""
    kinds = Counter(
        node.get_output_element_type(0).get_type_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Constant", "Parameter") and node.get_output_size()
    )
    is_half = kinds["f16"] > kinds["f32"]
    return "f16" if is_half and "FP16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES") else "f32"


_SHORT = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def _name(kind: Any) -> str:
    name = kind.get_type_name() if hasattr(kind, "get_type_name") else str(kind)
    return _SHORT.get(name, name)


def _zero_feed(layout: InputLayout) -> NDArray[Any]:
    import numpy as np

    channels, height, width = layout.shape
    sides = (height, width, channels) if layout.channels_last else layout.shape
    return np.zeros((layout.batch or 1, *sides), layout.dtype)
