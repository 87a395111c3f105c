"""A target: what a device is, what runs there, and the limits a model must keep on it."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, Field, model_validator

from edgerecover.artifacts import Precision, TargetMachine
from edgerecover.artifacts.machine import ISA, Deployment
from edgerecover.config.schema import Count, Fact, Positive, Settings


def _known_isa(name: str) -> str:
    if name not in ISA:
        raise ValueError(f"{name!r} is not one of the instruction sets {', '.join(ISA)}")
    return name


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is not a version specifier such as '>=10.3,<11'") from error
    return text


Isa = Annotated[str, AfterValidator(_known_isa)]
Version = Annotated[str, AfterValidator(_specifier)]


class Package(Settings):
    """One thing to install for a target, and the one command that installs it."""

    name: str
    """Name that the installer uses: `tensorrt-rtx-cu13-bindings`, `python3-libnvinfer`."""
    module: str
    """Module that Python imports."""
    version: Version = ""
    """Accepted versions of the module, such as ">=10.3,<11"; empty: any."""
    on: Literal["host", "device"]
    needed: bool = True
    """False: the package is optional, and nothing fails without it."""
    install: str
    source: str = Field(min_length=8)


class Target(Settings):
    """A device: what runs there, what it can do, and the limits a model must keep on it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    family: str = ""
    """Heading under which the target is listed: "Jetson Orin"."""

    # What identifies the device: see `artifacts.TargetMachine`.
    machine: Fact[Literal["aarch64", "x86_64", "any"]]
    """`platform.machine()` of the device; "any" makes every host the target."""
    system: Fact[Literal["Linux", "Darwin", "Windows", "Android"]] | None = None
    board: Fact[str] | None = None
    """Text that /proc/device-tree/model contains on this device and not on similar ones."""
    l4t: Fact[Annotated[str, Field(pattern=r"^[0-9]+$")]] | None = None
    """Major version of the Jetson Linux release, which identifies the JetPack: "36" is JetPack 6."""
    isa: Fact[tuple[Isa, ...]] | None = None
    """Instruction sets that the processor has, as /proc/cpuinfo spells them."""
    without_isa: Fact[tuple[Isa, ...]] | None = None
    """Instruction sets that the processor lacks: a machine with them is faster than this target."""
    compute_capability: Fact[Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")]] | None = None
    """CUDA compute capability. Without a `board`, it identifies the device: one of its GPUs must have it."""
    gpu: Fact[str] | None = None
    """Text that the name of the GPU contains."""

    # What runs there.
    runtime: Fact[Literal["onnxruntime", "openvino", "mnn", "tensorrt", "tensorrt-rtx"]]
    also_runtimes: Fact[tuple[Literal["onnxruntime", "openvino", "mnn"], ...]] | None = None
    """Further runtimes, raced against `runtime` where they are installed."""
    providers: Fact[Annotated[tuple[str, ...], Field(min_length=1)]]
    """onnxruntime execution providers, or OpenVINO devices, to ask for on the device, best first."""
    on_host: Fact[Literal["measure", "build", "parse", "judge", "emulate"]] | None = None
    """What a machine that is not the device can do besides running the file in onnxruntime; see `host_part`."""
    runner: Fact[bool] | None = None
    """False: the bundle's runner cannot run there."""
    python: Fact[Version] | None = None
    """Python version of the device's system, as a version specifier."""
    stack: Fact[str] | None = None
    """System software, as text for people: "JetPack 6.x: CUDA 12.6, TensorRT 10.3, Python 3.10"."""
    packages: tuple[Package, ...] = ()

    # What file it takes.
    opset: Fact[Annotated[int, Field(ge=13, le=28)]]
    """ONNX operator set of the exported file."""
    ir_version: Fact[Annotated[int, Field(ge=7, le=14)]] | None = None
    """Highest ONNX IR version that the device reads; None: what the exporter writes."""
    static_batch: Fact[bool] | None = None
    """True: the file must name its batch size."""
    npu_generations: (
        Fact[Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9]{2,3}$")], ...], Field(min_length=1)]] | None
    ) = None
    """Generations of Qualcomm's NPU (its "Hexagon" or HTP architecture) that the int8 file is compiled for."""
    precisions: Fact[Annotated[tuple[Precision, ...], Field(min_length=1)]]
    """Precisions worth making files in for this target."""
    int8_scheme: Fact[Literal["u8s8", "u8s7", "s8s8", "tensorrt", "qnn"]] | None = None
    """How int8 files are quantised; required if `precisions` names int8."""
    sparse: Fact[Literal["none", "2:4"]]
    """The zero pattern that the device's kernels can skip."""
    channel_multiple: Fact[Literal[4, 8, 16, 32]] | None = None
    """Channels that the kernels process at a time; `--pattern channel` keeps widths to multiples of it. None: 8."""

    # What it has.
    memory_gib: Fact[Positive] | None = None
    dla_cores: Fact[Annotated[int, Field(ge=0)]] | None = None
    """Number of deep learning accelerators of the smallest module that this target covers."""
    power_modes: Fact[tuple[str, ...]] | None = None
    """Names of the power modes, as in nvpmodel."""
    workspace_mb: Fact[Count] | None = None
    """Maximum workspace of one layer of an engine, in 10^6 bytes."""

    # What it requires of a model.
    max_p99_ms: Fact[Positive] | None = None
    """Gate: 99th percentile of single-stream latency on the device."""
    max_file_mb: Fact[Positive] | None = None
    """Gate: size of the exported file, in 10^6 bytes."""
    max_memory_mb: Fact[Positive] | None = None
    """Gate: peak memory that loading and running the model adds, in 10^6 bytes, on the device."""

    @model_validator(mode="after")
    def _check_int8_scheme(self) -> Target:
        if Precision.INT8 in self.precisions.value and self.int8_scheme is None:
            raise ValueError("precisions names int8, so int8_scheme must say how: u8s8, u8s7, s8s8, tensorrt or qnn")
        return self

    @model_validator(mode="after")
    def _check_mnn(self) -> Target:
        if self.runtime.value == "mnn" and tuple(self.precisions.value) != (Precision.FP32,):
            raise ValueError("precisions must be fp32 alone where runtime is mnn: MNN is given float32 files")
        return self

    @property
    def needs(self) -> TargetMachine:
        """What a machine must match to be this target. A board implies its GPU, which Tegra's tools do not report."""
        return TargetMachine(
            machine=self.machine.value,
            system=self.system.value if self.system else None,
            board=self.board.value if self.board else None,
            l4t=self.l4t.value if self.l4t else None,
            isa=tuple(self.isa.value) if self.isa else (),
            without_isa=tuple(self.without_isa.value) if self.without_isa else (),
            compute_capability=self.compute_capability.value if self.compute_capability and not self.board else None,
            gpu=self.gpu.value if self.gpu else None,
        )

    @property
    def deployment(self) -> Deployment:
        """Where a model for this target is to run."""
        also = self.also_runtimes.value if self.also_runtimes else ()
        return Deployment(self.needs, self.runtime.value, self.providers.value, also)

    @property
    def host_part(self) -> Literal["measure", "build", "parse", "judge", "emulate"]:
        """What a machine that is not the device can do for it, besides running the file in onnxruntime.

        `measure`: run the same runtime, for host latency. `build`: build the engine ahead of time. `parse`: ask
        TensorRT-RTX's parser whether TensorRT will accept the file. `emulate`: compile the file for the device's NPU
        and run it in the NPU's emulation. `judge`: nothing else.
        """
        usual: dict[str, Literal["measure", "build", "parse"]] = {"tensorrt": "parse", "tensorrt-rtx": "build"}
        return self.on_host.value if self.on_host else usual.get(self.runtime.value, "measure")
