"""Which machine a target describes, and what the runtimes' kernels ask of a processor. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass

ISA = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8"),
    *("amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Instruction sets that inference kernels are written for, as /proc/cpuinfo spells them (`asimddp`: dot products)."""


@dataclass(frozen=True)
class Gpu:
    """One graphics processor of a machine."""

    name: str
    compute_capability: str = ""
    """CUDA's, such as "8.9"; empty where it is not NVIDIA's."""
    driver: str = ""
    """Version of its driver, where it tells."""


@dataclass(frozen=True)
class TargetMachine:
    """What a machine must be, and have, to be the target. Empty or None: it does not matter."""

    machine: str = "any"
    """`platform.machine()`; "any" fits all."""
    board: str | None = None
    """Text that /proc/device-tree/model contains."""
    isa: tuple[str, ...] = ()
    """Names of `ISA` that the processor has."""
    without_isa: tuple[str, ...] = ()
    """Names of `ISA` that it has not: with them it would be faster than the target."""
    compute_capability: str | None = None
    """Of one of its GPUs."""
    gpu: str | None = None
    """Text that the name of one of its GPUs contains."""
    system: str | None = None
    """`Linux`, `Darwin`, `Windows` or `Android`."""
    l4t: str | None = None
    """First number of the Jetson Linux release: "36" is JetPack 6. A machine that does not tell its own may be it."""


@dataclass(frozen=True)
class Deployment:
    """Where a model is to run: on which machine, and what runs it there."""

    machine: TargetMachine
    runtime: str
    """"onnxruntime", "openvino", "mnn", "tensorrt" or "tensorrt-rtx"."""
    providers: tuple[str, ...]
    """Execution providers of onnxruntime, or devices of OpenVINO, best first."""
    also_runtimes: tuple[str, ...] = ()
    """Runtimes raced beside it on the CPU, where they are installed."""


ANY_MACHINE = TargetMachine()
