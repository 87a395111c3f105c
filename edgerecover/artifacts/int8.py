"""What int8 means where: number formats, and which tensors of a network are integers.

Weights are symmetric everywhere, so that a pruned zero is the integer 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgerecover.errors import BadInputError

SchemeName = Literal["u8s8", "u8s7", "s8s8", "tensorrt", "qnn"]


@dataclass(frozen=True)
class Int8Scheme:
    """How a runtime wants its Q/DQ."""

    name: SchemeName
    description: str
    """For people."""
    signed_activations: bool
    """int8; else uint8."""
    symmetric_activations: bool
    """Zero point 0; else what uses the range best."""
    reduced_weights: bool
    """Weights in [-64, 64]: where the processor adds pairs of products in 16 bits, which overflow with all eight."""
    integer_bias: bool
    """Biases as int32 with a DequantizeLinear; else they stay float."""
    outputs: bool
    """Whether layers' outputs, sums and pooled tensors are integers too; else only what layers read."""
    float_ends: bool
    """The network's outputs leave in float as they are computed; else through Q/DQ like all others."""


SCHEMES: dict[str, Int8Scheme] = {
    scheme.name: scheme
    for scheme in (
        Int8Scheme("u8s8", "activations uint8", False, False, False, True, True, True),
        Int8Scheme("u8s7", "activations uint8, weights of 7 bits", False, False, True, True, True, True),
        Int8Scheme("s8s8", "activations int8", True, False, False, True, True, True),
        Int8Scheme("tensorrt", "symmetric, layers' inputs only", True, True, False, False, False, True),
        Int8Scheme("qnn", "activations uint8, all tensors", False, False, False, True, True, False),
    )
}
"""By the names that targets use."""


def scheme_named(name: str) -> Int8Scheme:
    """The scheme of that name.

    Raises:
        BadInputError: there is none.
    """
    if name not in SCHEMES:
        raise BadInputError(f"int8 scheme {name!r} is not known", hint=f"known are {', '.join(SCHEMES)}")
    return SCHEMES[name]
