"""What a TensorRT engine is built by, and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgerecover.artifacts.exported import Precision

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt-rtx"
ENGINE_RUNTIMES = (TENSORRT, TENSORRT_RTX)
"""Runtimes that run an engine file instead of an ONNX file."""


class HardwareCompatibility(str, Enum):
    """Which other GPUs a TensorRT engine must run on; every level but NONE can make it slower."""

    NONE = "none"
    """Only the model of GPU that it is built on."""
    AMPERE_PLUS = "ampere+"
    """Every GPU of compute capability 8.0 and later."""
    SAME_COMPUTE_CAPABILITY = "same compute capability"
    """TensorRT 10.9 and later."""


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes of an optimisation profile: the engine takes `min` to `max` and is tuned for `opt`."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class EngineRecipe:
    """What to build from an ONNX file. The precision is the file's own: it states every type itself."""

    runtime: str = TENSORRT
    """"tensorrt" or "tensorrt-rtx"."""
    precision: Precision = Precision.FP32
    """The file's. Only where TensorRT cannot be told to keep to the file's types (8.x; DLA before 11) is it asked for
    by builder flags."""
    batch: BatchRange | None = None
    """None for a file with a static batch."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT-RTX alone: GPUs to build for, as "8.6"; none means every one from Ampere on. TensorRT builds for the GPU
    that it builds on."""
    workspace_mb: int | None = None
    """Most device memory that a layer may use for itself, in 10^6 bytes; None leaves all of it."""
    sparse_weights: bool = False
    """Try kernels that skip 2:4 zeros where the weights have them."""
    tf32: bool = True
    """float32 convolutions may round their inputs to 10 bits of mantissa, as is TensorRT's default."""
    version_compatible: bool = False
    """The engine runs on later versions of TensorRT too. It then holds code that the loader runs."""
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    dla_core: int | None = None
    """Build for this deep learning accelerator; layers that it cannot run go to the GPU."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from and for. Where any of it differs, the engine is built again."""

    runtime: str
    version: str
    """Of the runtime, in full: "10.3.0"."""
    compute_capabilities: tuple[str, ...]
    """Of the GPU it was built on, or those it was built for ahead of time; none then means every one from Ampere on."""
    gpu: str
    """Name of the GPU; "" when it was built ahead of time."""
    onnx_sha256: str
    """Of the ONNX file, and of what lies beside it as its external data."""


@dataclass(frozen=True)
class SparseLayers:
    """What TensorRT did with 2:4 weights."""

    eligible: int
    """Layers whose weights have the 2:4 pattern."""
    picked: int
    """Layers for which a kernel that skips the zeros was the fastest."""


@dataclass(frozen=True)
class EngineFacts:
    """An engine file and how it was built; written beside it as `FILE.json`."""

    file: str
    """Its name, in the folder that this is written to."""
    sha256: str
    size_bytes: int
    key: EngineKey
    recipe: EngineRecipe
    build_s: float
    num_layers: int
    """That compute, after fusion; 0 when neither the inspector nor the log told."""
    layers_by_type: dict[str, int]
    """By the type of each layer's first input, most first: {"Int8": 21, "Float": 18}."""
    layers_source: str
    """"engine inspector", "build log" or ""; the layers themselves are in `FILE.layers.json`."""
    sparse: SparseLayers | None
    """None when no sparse kernels were asked for, or the runtime does not say which it took."""
    dla_fallbacks: tuple[str, ...]
    """Layers that the deep learning accelerator left to the GPU."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Acceptance:
    """Whether TensorRT's ONNX parser takes a file."""

    accepted: bool
    by: str
    """The parser that was asked: "TensorRT-RTX 1.7.1.116"."""
    stand_in: bool
    """It is not the runtime that the question was about: its answer is likely, not certain."""
    num_layers: int
    problems: tuple[str, ...]
    """Each names a node and its operator."""
    warnings: tuple[str, ...] = ()
    """Of the parser, about a file that it accepts."""
