"""What people write in TOML: targets, profiles and the `model.toml` beside a checkpoint.

Each class is the schema of one kind of file (`extra="forbid"`); a wrong file is reported with file, key and line.
"""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

import difflib
import operator
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgerecover.artifacts import InputSpec, Precision, Stated, TargetMachine
from edgerecover.artifacts.machine import ISA
from edgerecover.errors import UNREADABLE_HINT, BadInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
M = TypeVar("M", bound="Settings")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- targets -------------------------------------------------------------------------------------------------


def _known_isa(name: str) -> str:
    if name not in ISA:
        raise ValueError(f"{name!r} is none of the instruction sets {', '.join(ISA)}")
    return name


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is not a version specifier such as '>=10.3,<11'") from error
    return text


class Fact(Settings, Generic[T]):
    """A value and where it is known from: a document, a measurement, or the choice of whoever wrote the file."""

    value: T
    source: str = Field(min_length=8)


Isa = Annotated[str, AfterValidator(_known_isa)]
Version = Annotated[str, AfterValidator(_specifier)]


class Package(Settings):
    """One thing to install for a target, and the one command that installs it."""

    name: str
    """As its installer calls it: `tensorrt-rtx-cu13-bindings`, `python3-libnvinfer`."""
    module: str
    """What Python imports."""
    version: Version = ""
    """Versions of the module that will do, such as ">=10.3,<11"; empty: any."""
    on: Literal["host", "device"]
    needed: bool = True
    """False: it adds something, and nothing fails without it."""
    install: str
    source: str = Field(min_length=8)


class Target(Settings):
    """A device: what runs there, what it can do, and the limits a model must keep on it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    family: str = ""
    """Heading under which it is listed: "Jetson Orin"."""

    # What tells the device from other machines: see `artifacts.TargetMachine`.
    machine: Fact[Literal["aarch64", "x86_64", "any"]]
    """`platform.machine()` of the device; "any" makes every host the target."""
    system: Fact[Literal["Linux", "Darwin", "Windows", "Android"]] | None = None
    board: Fact[str] | None = None
    """Text that /proc/device-tree/model contains on this device; it tells the device from its neighbours."""
    l4t: Fact[Annotated[str, Field(pattern=r"^[0-9]+$")]] | None = None
    """First number of the Jetson Linux release, which tells one JetPack from the next: "36" is JetPack 6."""
    isa: Fact[tuple[Isa, ...]] | None = None
    """Instruction sets that the processor has, as /proc/cpuinfo spells them."""
    without_isa: Fact[tuple[Isa, ...]] | None = None
    """Instruction sets that it has not: a machine with them is faster than this target."""
    compute_capability: Fact[Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")]] | None = None
    """CUDA's. Without a `board`, it tells the device: one of its GPUs has it."""
    gpu: Fact[str] | None = None
    """Text in the name of its GPU."""

    # What runs there.
    runtime: Fact[Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]]
    also_runtimes: Fact[tuple[Literal["onnxruntime", "openvino"], ...]] | None = None
    """Raced beside it where they are installed."""
    providers: Fact[Annotated[tuple[str, ...], Field(min_length=1)]]
    """onnxruntime execution providers, or OpenVINO devices, to ask for on the device, best first."""
    on_host: Fact[Literal["measure", "build", "parse", "judge"]] | None = None
    """What a machine that is not the device can do beyond judging the file with onnxruntime; see `host_part`."""
    runner: Fact[bool] | None = None
    """False: the bundle's runner cannot run there."""
    python: Fact[Version] | None = None
    """Of the device's system, as a version specifier."""
    stack: Fact[str] | None = None
    """System software, for people: "JetPack 6.x: CUDA 12.6, TensorRT 10.3, Python 3.10"."""
    packages: tuple[Package, ...] = ()

    # What file it takes.
    opset: Fact[Annotated[int, Field(ge=13, le=25)]]
    """ONNX operator set of the exported file."""
    ir_version: Fact[Annotated[int, Field(ge=7, le=13)]] | None = None
    """Highest ONNX IR version that the device reads; None: what the exporter writes."""
    static_batch: Fact[bool] | None = None
    """True: the file must name its batch size."""
    precisions: Fact[Annotated[tuple[Precision, ...], Field(min_length=1)]]
    """Of the files worth making for it."""
    int8_scheme: Fact[Literal["u8s8", "u8s7", "s8s8", "tensorrt", "qnn"]] | None = None
    """How int8 files are quantised; there is one where `precisions` names int8."""
    sparse: Fact[Literal["none", "2:4"]]
    """The zero pattern that the device's kernels can skip."""
    channel_multiple: Fact[Literal[4, 8, 16, 32]] | None = None
    """Of channels that its kernels take at a time, which `--pattern channel` keeps widths to; None: 8."""

    # What it has.
    memory_gib: Fact[Positive] | None = None
    dla_cores: Fact[Annotated[int, Field(ge=0)]] | None = None
    """Deep learning accelerators, of the smallest module that this target covers."""
    power_modes: Fact[tuple[str, ...]] | None = None
    """As nvpmodel names them."""
    workspace_mb: Fact[Count] | None = None
    """Most memory that one layer of an engine may use for itself, in 10^6 bytes."""

    # What it asks of a model.
    max_p99_ms: Fact[Positive] | None = None
    """Gate: 99th percentile of single-stream latency on the device."""
    max_file_mb: Fact[Positive] | None = None
    """Gate: size of the exported file, in 10^6 bytes."""
    max_memory_mb: Fact[Positive] | None = None
    """Gate: peak memory that loading and running the model adds, in 10^6 bytes, on the device."""

    @model_validator(mode="after")
    def _int8_has_a_scheme(self) -> Target:
        if Precision.INT8 in self.precisions.value and self.int8_scheme is None:
            raise ValueError("precisions names int8, so int8_scheme must say how: u8s8, u8s7, s8s8, tensorrt or qnn")
        return self

    @property
    def needs(self) -> TargetMachine:
        """What a machine must be to be this target. A board tells its GPU too, which Tegra's tools do not."""
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
    def host_part(self) -> Literal["measure", "build", "parse", "judge"]:
        """What a machine that is not the device can do for it, beside judging the file with onnxruntime.

        `measure`: run the same runtime, for host latency. `build`: build the engine ahead of time. `parse`: ask
        TensorRT-RTX's parser whether TensorRT will take the file. `judge`: no more.
        """
        usual: dict[str, Literal["measure", "build", "parse"]] = {"tensorrt": "parse", "tensorrt-rtx": "build"}
        return self.on_host.value if self.on_host else usual.get(self.runtime.value, "measure")


# --- profiles ------------------------------------------------------------------------------------------------


class Synthesis(Settings):
    """How images are dreamt from the teacher: DeepInversion (Yin et al. 2020, arXiv 1912.08795).

    loss = class_weight · class term + bn_weight · BN term + record_weight · record's distance
         + pixel_weight · pixel term + tv_weight · TV + l2_weight · mean square.
    """

    num_train: Count
    num_calibration: Count
    num_held_back: Count
    batch_size: Count
    source: Literal["dream", "shapes", "fractal", "noise"] = "dream"
    """`shapes`, `fractal` and `noise` are made from formulas, without the teacher; of what stands below they use
    `clamp`."""
    images_at_once: Count | Literal["auto"] = "auto"
    """Of a batch, how many go through the teacher at once; the statistics are of all of them. `auto`: as many as fit
    into 600 MB or half of the free memory, whichever is less; on a GPU, into half of its free memory."""
    num_steps: Count
    """Adam steps per batch of images."""
    coarse_fraction: Fraction = 0.0
    """Share of the steps, the first ones, in which the teacher sees the images at half their size, for a quarter of the
    time. Left out for images under 64 pixels, and where the teacher takes one size only or a record is matched."""
    lr: Positive
    schedule: Literal["cosine", "constant"]
    betas: tuple[Fraction, Fraction]
    class_term: Literal["target", "entropy"]
    """`target`: cross entropy to balanced class targets; `entropy`: low entropy of the teacher's output, no target."""
    class_weight: NonNegative
    class_temperature: Positive = 1.0
    """T of T · cross entropy(logits / T): above 1, it goes on asking for wider margins when the class is decided. Real
    images have wide ones."""
    bn_weight: NonNegative
    bn_distance: Literal["relative", "l2"]
    """`l2`: the sum over layers of ‖μ-μ̂‖₂ + ‖σ²-σ̂²‖₂ over channels, as published. `relative`: the mean over layers,
    each norm divided by that of the stored σ̂, or σ̂²: the weight means the same for networks of any scale and depth."""
    patch_weight: NonNegative = 0.0
    """Of the entropy of patch similarities (Li et al. 2022, arXiv 2203.02250), for transformers without batch norm."""
    record_weight: NonNegative = 10.0
    """Of an activation record's distance; used only with `--record`."""
    pixel_weight: NonNegative = 0.0
    """Of the pixels' mean and variance, compared with mean and std of the input as BN statistics are. Left out where
    mean and std are not those of any images (0 and 1, 0.5 and 0.5)."""
    tv_weight: NonNegative
    tv_reduction: Literal["mean", "sum"] = "mean"
    """`mean` over batch and pixels keeps the weight's meaning at every batch size and resolution."""
    l2_weight: NonNegative = 0.0
    jitter_fraction: Fraction
    """Largest random roll per step as a fraction of the image's side."""
    flip: bool | Literal["auto"]
    """Mirror half of the steps horizontally: wrong for digits and text. `auto`: where the teacher decides alike on
    mirrored images."""
    start: Literal["auto", "shapes", "fractal", "low-frequency", "noise"]
    """What is there before the first step. Fractals differ in brightness and contrast as photographs do, and the steps
    leave that difference standing; from noise, all dreams come out alike in both. Shapes (blobs, lines,
    fractals) have the pixels' mean and variance from the beginning, as far as mean and std of the input tell them.
    `auto`: fractals where batch norm or a record tells what real images do, shapes where nothing does."""
    clamp: Literal["pixel-range"] | Positive
    """`pixel-range`: stay inside what a real pixel can be; a number c: stay inside [-c, c] after mean and std."""

    def at_once(self, num_images: int) -> int:
        """How many of so many images go through a network at once; all, where that was not found out."""
        return num_images if self.images_at_once == "auto" else min(num_images, self.images_at_once)


class Refresh(Settings):
    """New images while distilling, on which the student of the moment and the teacher disagree.

    Adaptive DeepInversion (Yin et al. 2020, equation 6), started from views of dreams instead of noise: few steps do.
    """

    every_steps: Count
    """Distillation steps between two refreshes; there is none in the first and last eighth of them."""
    num_images: Count
    """Made at each refresh; half of every batch comes from all that were made so far."""
    num_steps: Count
    """Adam steps per image."""
    lr: Positive
    weight: NonNegative
    """Of the disagreement, beside the terms of synthesis."""


class Recovery(Settings):
    """How the student is brought back under its mask: statistics repair, layer-wise least squares, distillation."""

    fine_tuned: Literal["keep", "recover"] = "keep"
    """A student that was trained since it was pruned, as its weights show: `keep` hands it back as it came, because
    what it has learnt from real data would be lost without a trace on dreams; `recover` treats it like any other."""
    repair_statistics: bool
    layerwise: bool = False
    """Fit each layer's kept weights to the teacher's outputs by least squares before distilling."""
    num_steps: Annotated[int, Field(ge=0)]
    """Distillation steps; 0 leaves distillation out."""
    batch_size: Count
    optimizer: Literal["adam", "sgd"]
    lr: Positive
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.0
    schedule: Literal["cosine", "constant"]
    temperature: Positive
    scale_by_temperature_squared: bool
    """Multiply the KL term by T² (Hinton et al. 2015, arXiv 1503.02531), so that T does not change the rate."""
    kd_weight: NonNegative = 1.0
    feature_weight: NonNegative
    """Weight of the block outputs' squared error relative to the teacher's mean square."""
    bn: Literal["adapt", "frozen"]
    """`adapt`: BN normalises with batch statistics while distilling, to the mean and variance that the teacher makes of
    the batch; `frozen`: with the stored ones."""
    flip: bool | Literal["auto"]
    """Mirror half of the images horizontally; `auto` as in the synthesis."""
    crop_fraction: Fraction
    """Random shift, as a fraction of the image's side."""
    crop_border: Literal["auto", "edge", "zero"] = "zero"
    """What a shift uncovers: `edge` repeats the image's outermost pixels; `zero` is a zero of the network's input, the
    mean colour after mean and std, but black where pixels go in as bytes; `auto` is the one that the teacher's batch
    norm statistics speak for."""
    zoom_fraction: Fraction = 0.0
    """Smallest area of a random crop, stretched to the whole image; 0 leaves it out."""
    cutmix_share: Fraction = 0.0
    """Share of batches in which a random rectangle of each image comes from another one (Yun et al. 2019)."""
    refresh: Refresh | None = None


R = TypeVar("R", Synthesis, Recovery)


def in_batches_of(settings: R, batch_size: int) -> R:
    """The same with another batch size."""
    return settings.model_copy(update={"batch_size": batch_size})


class ProfileGates(Settings):
    """The least that a recovered, exported model must show."""

    min_agreement: Fraction
    """Exported file against the teacher on held-back synthetic images, top-1."""
    min_parity_top1: Fraction
    """Exported file against PyTorch, same decision, on the same images."""
    max_parity_relative: Positive
    """Largest logit difference between them, as a fraction of the logits' standard deviation."""
    max_accuracy_drop_points: NonNegative
    """With --eval-data only: exported below teacher, in percentage points."""
    max_precision_loss_points: NonNegative = 1.0
    """Agreement with the teacher that fp16 or int8 may cost against float32, on the same held-back images."""

    # What `edgerecover gate` lets a release lose against its baseline.
    max_agreement_loss_points: NonNegative = 5.0
    """Of agreement with the teacher, in percentage points: what a few hundred held-back images can tell."""
    max_accuracy_loss_points: NonNegative = 3.0
    """Of accuracy on real images, where both were judged on the same ones; in percentage points."""
    max_latency_regression: NonNegative = 0.05
    """How much longer a typical query may take, as a fraction of the baseline's."""
    max_size_regression: NonNegative = 0.05
    """How much larger the file may be, likewise;"""
    max_memory_regression: NonNegative = 0.1
    """and how much more memory loading and running it may add."""


class LimitsFile(Settings):
    """What `edgerecover gate --limits FILE` asks, in the place of a bundle's own limits; None: as they are."""

    min_agreement: Fraction | None = None
    min_parity_top1: Fraction | None = None
    max_parity_relative: Positive | None = None
    max_accuracy_drop_points: NonNegative | None = None
    max_precision_loss_points: NonNegative | None = None
    max_agreement_loss_points: NonNegative | None = None
    max_accuracy_loss_points: NonNegative | None = None
    max_latency_regression: NonNegative | None = None
    max_size_regression: NonNegative | None = None
    max_memory_regression: NonNegative | None = None
    max_p99_ms: Positive | None = None
    max_file_mb: Positive | None = None
    max_memory_mb: Positive | None = None


class LatencySettings(Settings):
    """How latency is measured: until both minima are met (as MLPerf loadgen does), warm-up kept apart."""

    num_warmup: Count
    min_queries: Annotated[int, Field(ge=1, le=10_000)]
    min_duration_s: NonNegative


class WithoutNorms(Settings):
    """The recipe for a teacher without any normalisation layer; an activation record is matched beside it.

    In a file, only what differs from `[synthesis]` and `[recovery]` is written.
    """

    synthesis: Synthesis
    recovery: Recovery


class Profile(Settings):
    """A recipe and its gates, named by intent."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    synthesis: Synthesis
    recovery: Recovery
    without_norms: WithoutNorms | None = None
    """Left out: no difference is made."""
    gates: ProfileGates
    latency: LatencySettings


# --- model.toml ----------------------------------------------------------------------------------------------


class ModelFileInput(Settings):
    """`[input]` of model.toml."""

    shape: tuple[Count, Count, Count]
    """C, H, W."""
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest pixel before mean and std; [0, 255] for networks that take raw bytes."""

    @field_validator("range")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"range must ascend, found {list(value)}")
        return value

    @model_validator(mode="after")
    def _one_per_channel(self) -> ModelFileInput:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.shape[0]:
                raise ValueError(f"{name} has {len(values)} values for {self.shape[0]} channels")
        return self

    def to_spec(self) -> InputSpec:
        """The value that stages use; no mean means 0, no std means 1."""
        channels = self.shape[0]
        return InputSpec(self.shape, self.mean or (0.0,) * channels, self.std or (1.0,) * channels, self.range)


Line = Annotated[str, Field(max_length=2000)]
Lines = Annotated[tuple[Line, ...], Field(max_length=100)]


class CardFile(Settings):
    """`[card]` of model.toml: passed on in the bundle's manifest, model card and bill of materials."""

    name: Line = ""
    version: Line = ""
    description: Line = ""
    authors: Lines = ()
    intended_uses: Lines = ()
    limitations: Lines = ()


class ModelFile(Settings):
    """`model.toml` beside a checkpoint: what would otherwise be flags."""

    architecture: str | None = None
    """`file.py:factory`, `package.module:factory`, `torchvision:NAME` or `timm:NAME`."""
    teacher: str | None = None
    """Path of the dense checkpoint, relative to this file."""
    teacher_architecture: str | None = None
    """Its architecture where that is not the student's, spelled as `architecture`."""
    classes: tuple[str, ...] | None = None
    input: ModelFileInput | None = None
    licence: Line = ""
    """SPDX expression, or the name of another licence."""
    card: CardFile = CardFile()

    def stated(self) -> Stated:
        """The value that bundles pass on."""
        return Stated(self.licence, **self.card.model_dump())


# --- reading -------------------------------------------------------------------------------------------------


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        BadInputError: it cannot be read or is not TOML; the message gives the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: is not UTF-8 text, so it is not TOML", hint="save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(
            f"{path}: is not valid TOML: {error}", hint="correct that line; https://toml.io describes the format"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{path}: nests too deeply, or holds a number too long, to be read",
            hint="simplify it; no file of edgerecover needs that",
        ) from error


def parse(kind: type[M], data: dict[str, Any], path: Path) -> M:
    """Check `data`, read from `path`, against a schema.

    Raises:
        BadInputError: names file, line, key, what was found, and for an unknown key the nearest known one.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_describe(kind, problem, path) for problem in error.errors()]
        raise BadInputError(
            "\n".join(lines),
            hint=f"the keys of this file are described in docs/reference/{_reference(kind)}.md",
        ) from error


def _reference(kind: type[Settings]) -> str:
    pages = {"Target": "targets", "Profile": "profiles", "ModelFile": "model-toml", "LimitsFile": "gate"}
    return pages[kind.__name__]


def _describe(kind: type[Settings], problem: Any, path: Path) -> str:
    keys = [key for key in problem["loc"] if isinstance(key, str)]
    line = _line_of(path, keys)
    where = f"{path}:{line}" if line else str(path)
    dotted = ".".join(str(key) for key in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, 1)
        advice = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
        return f"{where}: unknown key {dotted!r}{advice}"
    if problem["type"] == "missing":
        return f"{where}: key {dotted!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {dotted or 'file'}: {message} (found {problem['input']!r})"[:400]


def _known_keys(kind: Any, keys: list[str]) -> list[str]:
    for key in keys:
        field = kind.model_fields.get(key)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        kind = next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), None)
        if kind is None:
            return []
    return sorted(kind.model_fields)


def _line_of(path: Path, keys: list[str]) -> int | None:
    """Line of a dotted key in a TOML file: tables are followed, inline tables count as their own line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    table: list[str] = []
    best, best_depth = None, 0
    for number, line in enumerate(lines, start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            found = table
        elif entry := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            found = table + [part.strip("\"'") for part in entry[1].split(".")]
        else:
            continue
        if keys[: len(found)] == found and len(found) > best_depth:
            best, best_depth = number, len(found)
    return best


# --- finding targets and profiles ----------------------------------------------------------------------------


def shipped_folder(kind: Literal["targets", "profiles"]) -> Path:
    """Folder of the files that come with edgerecover: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def shipped_names(kind: Literal["targets", "profiles"]) -> list[str]:
    """Names of all shipped targets or profiles, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.toml"))


def load_target(name_or_path: str) -> Target:
    """Read a shipped target by name, or anyone's by path (it ends in .toml); `extends = "NAME"` is followed.

    Raises:
        BadInputError: no such target (names the nearest), a wrong file, or targets that extend each other.
    """
    path = _find("targets", name_or_path)
    # A fact is replaced whole: what is known of one device from a source is not known of another from the same one.
    return parse(Target, _extended("targets", path, (), join=operator.or_), path)


def load_limits(path: Path) -> LimitsFile:
    """Read limits that take the place of a bundle's.

    Raises:
        BadInputError: the file cannot be read, or holds something else.
    """
    return parse(LimitsFile, read_toml(path), path)


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by name, or anyone's by path (it ends in .toml); `extends = "NAME"` is followed.

    Raises:
        BadInputError: no such profile (names the nearest), a wrong file, or profiles that extend each other.
    """
    path = _find("profiles", name_or_path)
    return parse(Profile, _completed(_extended("profiles", path, (), join=_merged)), path)


def _completed(data: dict[str, Any]) -> dict[str, Any]:
    """The tables of `[without_norms]` with what they leave to `[synthesis]` and `[recovery]`."""
    changes = data.get("without_norms")
    tables = {name: data.get(name) for name in WithoutNorms.model_fields}
    if not (isinstance(changes, dict) and all(isinstance(table, dict) for table in tables.values())):
        return data  # one of them is wrong, which parsing reports
    return {**data, "without_norms": _merged(tables, changes)}


def _extended(
    kind: Literal["targets", "profiles"],
    path: Path,
    seen: tuple[Path, ...],
    *,
    join: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    if path in seen:
        raise BadInputError(
            f"{path}: {kind} extend each other in a circle: {' → '.join(p.stem for p in seen)}",
            hint="remove one of the `extends` lines",
        )
    data = read_toml(path)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        word = kind.removesuffix("s")
        raise BadInputError(
            f"{path}:{_line_of(path, ['extends'])}: extends: a {word}'s name was expected",
            hint='for example extends = "balanced"',
        )
    return join(_extended(kind, _find(kind, parent, beside=path.parent), (*seen, path), join=join), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both_tables else value
    return result


def _find(kind: Literal["targets", "profiles"], name_or_path: str, beside: Path | None = None) -> Path:
    word = kind.removesuffix("s")
    if name_or_path.endswith(".toml"):
        path = (beside or Path()) / name_or_path
        if not path.is_file():
            raise BadInputError(f"{word} file {path} does not exist", hint="check the path")
        return path
    names = shipped_names(kind)
    if name_or_path in names:
        return shipped_folder(kind) / f"{name_or_path}.toml"
    near = difflib.get_close_matches(name_or_path, names, 1, cutoff=0.4)
    raise BadInputError(
        f"unknown {word} {name_or_path!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint=f"`edgerecover {kind} list` shows all; a path ending in .toml names your own file",
    )
