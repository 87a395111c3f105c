"""The exported file, and its variants of lower precision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Exported:
    """The ONNX file that everything after it judges."""

    path: str
    sha256: str
    size_bytes: int
    opset: int
    exporter: str
    """"dynamo", or "torchscript (dynamo failed: REASON)"."""
    batch: int | None
    """Static batch size; None when the batch is dynamic."""
    num_weights: int
    num_nonzero: int
    """Conv, Gemm and MatMul weights in the file, and how many of them are not zero."""
    compressed_bytes: int | None = None
    """By gzip, as it travels: zeros compress; None in reports that were written before it was looked at."""


class Precision(str, Enum):
    """What the weights and activations of a file are computed in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Int8Sums(str, Enum):
    """How products of 8-bit numbers were added up where an int8 file was judged. What is timed is timed as it runs."""

    EXACT = "exact"
    """As the file says, whatever processor judged it."""
    HOST = "host"
    """As the processor that judged it adds up, which is the target's: some saturate."""


@dataclass(frozen=True)
class PrecisionTry:
    """One way to make a variant, and what it cost on the calibration images."""

    name: str
    """For people: "ranges by extremes", "biases corrected", "3 layers kept in float32"."""
    points_lost: float
    """Agreement with the teacher below that of the float32 file, in percentage points; negative where some was won."""
    kl: float
    """Mean KL(float32 file || variant) in nats: breaks ties."""
    seconds: float
    chosen: bool = False


@dataclass(frozen=True)
class Variant:
    """One precision of the exported network: an ONNX file that states every type itself, so that any runtime builds
    the same."""

    precision: Precision
    file: Exported
    scheme: str
    """For people: "int8 QDQ, per channel, activations uint8, calibrated on 128 dreams"."""
    kept_higher: tuple[str, ...]
    """Names of the nodes left in a higher precision."""
    reason: str
    """Why nodes were left in a higher precision; "" when none were."""
    tries: tuple[PrecisionTry, ...] = ()
    """In the order made; exactly one is `chosen`. None at all for float32."""


@dataclass(frozen=True)
class RefusedVariant:
    """A precision that was asked for and cannot be had of this network."""

    precision: Precision
    reason: str
    """For people."""
    tries: tuple[PrecisionTry, ...] = ()


@dataclass(frozen=True)
class TwoFour:
    """The 2:4 pattern, read back from the exported file."""

    num_layers: int
    """Number of Conv, Gemm and MatMul weights whose input channels are a multiple of four."""
    num_dense_groups: int
    """Groups of four consecutive input channels of these weights with more than two non-zero ones."""
