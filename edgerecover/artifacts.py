"""The frozen values that stages hand to each other and that reports store. Stdlib only: devices import this too.

Law: `from_json(type(v), json.loads(json.dumps(to_json(v)))) == v` for every value here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import types
import typing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union

T = TypeVar("T")


class Pattern(str, Enum):
    """Where the zeros of a weight tensor stand."""

    DENSE = "dense"
    UNSTRUCTURED = "unstructured"
    TWO_FOUR = "2:4"
    CHANNEL = "channel"
    """Whole channels are gone: the layers are narrower than the dense network's."""


class GateStatus(str, Enum):
    """How a gate came out."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """The confidence interval straddles the limit."""
    NEEDS_DEVICE = "needs the device"
    """The limit is the target's, and this machine is not it."""


class Descent(str, Enum):
    """What a student's weights are to its teacher's."""

    COPIED = "copied"
    """Every kept weight is the teacher's, up to rounding and one scale per tensor; so are the batch norm statistics."""
    RECALIBRATED = "recalibrated"
    """The weights are the teacher's, the batch norm statistics are not."""
    TRAINED = "trained"
    """Weights are the student's own."""
    UNRELATED = "unrelated"
    """There are none to compare: another architecture, or channels whose origin cannot be told."""


@dataclass(frozen=True)
class InputSpec:
    """What the network expects: shape (C, H, W), and how a pixel becomes an input value: (pixel - mean) / std."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest pixel value before mean and std."""

    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest network input per channel."""
        low, high = (
            tuple((edge - mean) / std for mean, std in zip(self.mean, self.std, strict=True)) for edge in self.range
        )
        return low, high


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one Conv or Linear weight."""

    name: str
    shape: tuple[int, ...]
    num_weights: int
    num_zeros: int
    pattern: Pattern

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, 0 to 1."""
        return self.num_zeros / self.num_weights if self.num_weights else 0.0


@dataclass(frozen=True)
class Sparsity:
    """The zeros of a whole network, layer by layer (Conv and Linear weights only)."""

    layers: tuple[LayerSparsity, ...]
    pattern: Pattern

    @property
    def num_weights(self) -> int:
        """Conv and Linear weights, zeros included."""
        return sum(layer.num_weights for layer in self.layers)

    @property
    def num_zeros(self) -> int:
        """Zeros among them."""
        return sum(layer.num_zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, 0 to 1."""
        return self.num_zeros / self.num_weights if self.num_weights else 0.0


@dataclass(frozen=True)
class ModelFacts:
    """What `edgerecover inspect` found in one checkpoint."""

    path: str
    sha256: str
    size_bytes: int
    format: str
    """For people: "state_dict", "state_dict under 'model', prefix 'module.'", "safetensors"."""
    architecture: str | None
    """`file.py:factory`, `package.module:factory`, `torchvision:NAME` or `timm:NAME`; None when nothing named
    or recognised it."""
    architecture_source: str
    """Where that came from: "--arch", "model.toml", "recognised from keys and shapes" or "unknown"."""
    num_parameters: int
    num_batch_norms: int
    num_classes: int | None
    has_masks: bool
    teacher_inside: bool
    sparsity: Sparsity
    input: InputSpec | None
    input_source: str
    macs_kept: float | None = None
    """Of a channel-pruned network, its multiply-accumulates as a fraction of the dense network's; else None."""
    teacher_named: str | None = None
    """The teacher that the TOML file beside it names, with its architecture where one is named for it alone."""

    @property
    def pruned_to(self) -> str:
        """For people: "80.0 % zeros (unstructured)", "channel-pruned, 47.0 % of the dense MACs"."""
        if self.macs_kept is not None:
            return f"channel-pruned, {100 * self.macs_kept:.1f} % of the dense MACs"
        return f"{100 * self.sparsity.sparsity:.1f} % zeros ({self.sparsity.pattern.value})"


@dataclass(frozen=True)
class Rung:
    """One step of the recovery ladder and what it was worth on images that no rung trained on."""

    name: str
    agreement: float
    """Top-1 agreement with the teacher on the calibration set, 0 to 1: the number that selects."""
    kl: float
    """Mean KL(teacher || student) in nats on the same images: breaks ties."""
    seconds: float
    chosen: bool = False


@dataclass(frozen=True)
class Lineage:
    """How the weights of a student, as it came, relate to its teacher's."""

    descent: Descent
    deviation: float
    """Root mean square of what kept weights differ by, relative to the teacher's; 0 for a copy, 1 where unrelated."""
    own: tuple[str, ...]
    """Names of the parameters and statistics that are not the teacher's."""


@dataclass(frozen=True)
class SyntheticFacts:
    """What was synthesized, or found from an earlier run."""

    num_train: int
    num_calibration: int
    num_held_back: int
    teacher_agrees_with_target: float | None
    """Fraction of train images that the teacher reads as the class they were made for; None without class targets."""
    images_per_s: float
    reused: bool
    source: str = "dreams"
    """What the images are, for people: "dreams", "fractals", "real images"."""
    mirrored: bool = False
    """Whether half of the views were mirrored."""
    mirror_correlation: float | None = None
    """Of the teacher's margins on mirrored dreams with those on the dreams: what `flip = "auto"` was decided by."""


@dataclass(frozen=True)
class RecordFacts:
    """An activation record: statistics of the teacher's activations on real data, made by whoever has the data."""

    path: str
    sha256: str
    size_bytes: int
    kind: str
    num_images: int
    """It was made from."""
    noise: float
    """Added to every statistic, in standard errors of it."""


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


@dataclass(frozen=True)
class TwoFour:
    """The 2:4 pattern, read back from the exported file."""

    num_layers: int
    """Conv, Gemm and MatMul weights whose input channels are a multiple of four,"""
    num_dense_groups: int
    """and how many of their groups of four consecutive input channels hold more than two non-zero weights."""


@dataclass(frozen=True)
class Parity:
    """The exported file against the PyTorch network it was made from, on the same held-back images."""

    num_images: int
    max_abs: float
    mean_abs: float
    logit_scale: float
    """Standard deviation of the PyTorch logits: what `max_abs` is to be read against."""
    top1_agreement: float

    @property
    def relative(self) -> float:
        """Largest difference as a fraction of the logits' standard deviation."""
        return self.max_abs / self.logit_scale if self.logit_scale else math.inf


@dataclass(frozen=True)
class Proportion:
    """k of n with its 95 % Wilson interval (Wilson 1927)."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """hits / total."""
        return self.hits / self.total if self.total else 0.0

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Wilson score interval at normal quantile `z`."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Predicted:
    """The share of the teacher's accuracy that a model is expected to keep on real images; read from dreams."""

    kept: float
    """Student's accuracy / teacher's accuracy, 0 to 1."""
    low: float
    high: float
    """`kept` less and plus the mean error of such predictions, within 0 to 1."""
    num_students: int
    """That error was measured over so many students"""
    num_networks: int
    """of so many networks, none of which had a part in its own prediction."""


@dataclass(frozen=True)
class Fidelity:
    """How often a model decides as the teacher does, on held-back images. Never called accuracy."""

    pruned: Proportion | None
    """None where the network before recovery is not known;"""
    recovered: Proportion | None
    """and where the file's PyTorch network is not."""
    exported: Proportion
    predicted: Predicted | None = None
    """Of the exported file; None where the images are too weak evidence (no dreams, or those of a teacher without batch
    norm), and for a student of another architecture or that others have trained, none of which was measured."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on real labelled images, only ever from --eval-data. All on the same images; None where not known."""

    source: str
    num_images: int
    teacher: Proportion
    pruned: Proportion | None
    recovered: Proportion | None
    exported: Proportion
    teacher_only: int
    """Images that the teacher gets right and the exported file wrong;"""
    exported_only: int
    """and the other way round: the pairs that decide how certain the drop is."""


@dataclass(frozen=True)
class Host:
    """The machine a measurement was taken on."""

    machine: str
    cpu: str
    num_cores: int
    system: str
    board: str = ""
    """/proc/device-tree/model where there is one (Jetson, Raspberry Pi)."""


@dataclass(frozen=True)
class Latency:
    """Single-stream latency of the exported file, raw: statistics are derived, warm-up is kept apart."""

    scope: str
    runtime: str
    """"onnxruntime 1.31.1"."""
    provider: str
    """The execution provider that ran, read from the session, not the one asked for."""
    nodes_by_provider: dict[str, int]
    num_threads: int
    batch: int
    host: Host
    host_is_target: bool
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    load_ms: float
    memory_before_bytes: int
    memory_peak_bytes: int

    def percentile_ms(self, percent: float) -> float:
        """Nearest-rank percentile of the raw samples."""
        ordered = sorted(self.samples_ms)
        rank = max(1, math.ceil(percent * len(ordered) / 100))
        return ordered[rank - 1]

    def percentile_interval_ms(self, percent: float, z: float = 1.959964) -> tuple[float, float]:
        """95 % interval of that percentile from order statistics (David & Nagaraja, Order Statistics, 7.1)."""
        ordered = sorted(self.samples_ms)
        n, q = len(ordered), percent / 100
        half = z * math.sqrt(n * q * (1 - q))
        low = min(n, max(1, math.floor(n * q - half)))
        high = min(n, max(1, math.ceil(n * q + half) + 1))
        return ordered[low - 1], ordered[high - 1]

    @property
    def memory_model_bytes(self) -> int:
        """Peak memory that loading and running the model added to a bare process."""
        return max(0, self.memory_peak_bytes - self.memory_before_bytes)


@dataclass(frozen=True)
class Gate:
    """One judgement: what was measured, the limit, and how it came out."""

    name: str
    status: GateStatus
    measured: float
    limit: float
    direction: str
    """"at least" or "at most"."""
    unit: str
    """"%", "ms", "MB", "points" or ""."""
    source: str
    """Who set the limit: "profile balanced", "target jetson-orin"."""
    message: str


@dataclass(frozen=True)
class StageTime:
    """How long one stage took."""

    stage: str
    seconds: float
    reused: bool = False


@dataclass(frozen=True)
class Report:
    """Everything one run found. The terminal, Markdown and JSON reports are three views of it."""

    edgerecover_version: str
    created_utc: str
    seed: int
    device: str
    data_used: str
    """"none"; "record" when statistics of real data were shipped with the teacher (--record); "eval-only" when
    --eval-data was given (real data judged, never trained on); "record, eval-only" when both."""
    target: str
    target_description: str
    profile: str
    student: ModelFacts
    """As it came: the pruned checkpoint or, recovered elsewhere, the ONNX file itself."""
    teacher: ModelFacts
    recovered_sparsity: Sparsity
    synthetic: SyntheticFacts
    rungs: tuple[Rung, ...]
    """None at all when the file was recovered elsewhere."""
    exported: Exported
    parity: Parity | None
    """None where the PyTorch network that the file was made from is not known."""
    fidelity: Fidelity
    latency: Latency
    accuracy: Accuracy | None
    sparsity_verdict: str
    gates: tuple[Gate, ...]
    stages: tuple[StageTime, ...]
    warnings: tuple[str, ...]
    tool_versions: dict[str, str]
    record: RecordFacts | None = None
    """None when recovery had the teacher alone."""
    same_architecture: bool = True
    """The student is the teacher with zeros or fewer channels; else it was distilled into another network."""
    lineage: Lineage | None = None
    """Of the student as it came; None in reports that were written before it was looked at."""

    @property
    def before(self) -> str:
        """What the student is called before recovery."""
        return "pruned" if self.same_architecture else "as it came"

    @property
    def verdict(self) -> GateStatus:
        """The worst gate; a gate that needs the device does not count against the run."""
        statuses = {gate.status for gate in self.gates}
        for status in (GateStatus.FAIL, GateStatus.INCONCLUSIVE):
            if status in statuses:
                return status
        return GateStatus.PASS


def to_json(value: Any) -> Any:
    """Turn a frozen value into what `json` can write: dataclass → object, tuple → array, enum → its value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], data: Any) -> T:
    """Read back what `to_json` wrote.

    Raises:
        ValueError: the data does not have the shape of `kind`; the message names the field.
    """
    return typing.cast(T, _decode(kind, data, kind.__name__))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _decode(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where}: a list was expected, found {type(data).__name__}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(data)
        if len(arguments) != len(data):
            raise ValueError(f"{where}: {len(arguments)} items were expected, found {len(data)}")
        pairs = zip(arguments, data, strict=True)
        return tuple(_decode(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(pairs))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where}: an object was expected, found {type(data).__name__}")
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        if data not in [member.value for member in kind]:
            raise ValueError(f"{where}: {data!r} is not one of {', '.join(repr(m.value) for m in kind)}")
        return kind(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(kind, type) and type(data) is not kind:
        raise ValueError(f"{where}: {kind.__name__} was expected, found {type(data).__name__}")
    return data


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: an object was expected, found {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - names):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(data)):
        raise ValueError(f"{where}: field {missing[0]!r} is missing")
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in data.items()})


def sha256_of(path: Path) -> str:
    """Digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
