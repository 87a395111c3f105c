"""Networks as they came: their input, their zeros, where their weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgerecover.artifacts.outputs import OutputSpec


class Pattern(str, Enum):
    """Where the zeros of a weight tensor stand."""

    DENSE = "dense"
    UNSTRUCTURED = "unstructured"
    TWO_FOUR = "2:4"
    CHANNEL = "channel"
    """Whole channels are gone: the layers are narrower than the dense network's."""


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
    """The zeros of one weight that multiplies."""

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
    """The zeros of a whole network, layer by layer: of the weights that multiply, those of people's own layers too."""

    layers: tuple[LayerSparsity, ...]
    pattern: Pattern
    num_norm_channels: int = 0
    """Channels of all batch norms that have a gain γ."""
    num_zero_norm_channels: int = 0
    """Channels whose γ is zero, as network slimming leaves them. They do not count as weights."""
    num_groups: int = 0
    """Groups of four weights in the layers that can be 2:4; 0 where the network is 2:4 as a whole, or far from it."""
    num_dense_groups: int = 0
    """Those of them that keep the network from being 2:4."""

    @property
    def num_weights(self) -> int:
        """Weights that multiply, zeros included."""
        return sum(layer.num_weights for layer in self.layers)

    @property
    def num_zeros(self) -> int:
        """Zeros among them."""
        return sum(layer.num_zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, 0 to 1."""
        return self.num_zeros / self.num_weights if self.num_weights else 0.0

    @property
    def empty_layers(self) -> tuple[str, ...]:
        """Names of the weights that are all zero."""
        return tuple(layer.name for layer in self.layers if layer.num_weights and layer.num_zeros == layer.num_weights)

    @property
    def pattern_words(self) -> str:
        """For people: "2:4", "unstructured", "unstructured: 2:4 except in 3 of 1,024 groups"."""
        if not self.num_dense_groups:
            return self.pattern.value
        return f"{self.pattern.value}: 2:4 except in {self.num_dense_groups:,} of {self.num_groups:,} groups"

    @property
    def zero_channels(self) -> str:
        """For people: "12 of 48 batch norm channels are zero"; empty where none is."""
        if not self.num_zero_norm_channels:
            return ""
        verb = "is" if self.num_zero_norm_channels == 1 else "are"
        return f"{self.num_zero_norm_channels:,} of {self.num_norm_channels:,} batch norm channels {verb} zero"


@dataclass(frozen=True)
class ModelFacts:
    """What `edgerecover inspect` found in one checkpoint."""

    path: str
    sha256: str
    size_bytes: int
    format: str
    """For people: "state_dict", "state_dict under 'model', prefix 'module.'", "safetensors"."""
    architecture: str | None
    """`file.py:factory`, `package.module:factory`, `torchvision:NAME`, `timm:NAME` or `transformers:FOLDER`; None when
    nothing named or recognised it."""
    architecture_source: str
    """Where that came from: "--arch", "model.toml", "config.json", "recognised from keys and shapes" or "unknown"."""
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
    uncounted: tuple[str, ...] = ()
    """Layers of an ONNX file whose weights cannot be told, each with the reason; `sparsity` is without them."""
    classes_source: str | None = None
    """Who names the classes: "model.toml", "config.json"; None where they have no names."""
    output: OutputSpec | None = None
    """None where it is unknown, and in reports from before there were tasks."""
    doubts: tuple[str, ...] = ()
    """What may change the weights and was not used, such as masks that fit no weight; `sparsity` is without it."""
    warnings: tuple[str, ...] = ()
    """What is left out of its outputs, or may be misread; only `inspect` says it here, a report has it in its own."""

    @property
    def pruned_to(self) -> str:
        """For people: "80.0 % zeros (unstructured)", "channel-pruned, 47.0 % of the dense MACs"."""
        if self.macs_kept is not None:
            return f"channel-pruned, {100 * self.macs_kept:.1f} % of the dense MACs"
        channels = self.sparsity.zero_channels
        if self.sparsity.pattern is Pattern.DENSE and channels:
            return f"{100 * self.sparsity.sparsity:.1f} % zeros, {channels}"
        return f"{100 * self.sparsity.sparsity:.1f} % zeros ({self.sparsity.pattern_words})" + (
            f", {channels}" if channels else ""
        )


@dataclass(frozen=True)
class Lineage:
    """How the weights of a student, as it came, relate to its teacher's."""

    descent: Descent
    deviation: float
    """Root mean square of what kept weights differ by, relative to the teacher's; 0 for a copy, 1 where unrelated."""
    own: tuple[str, ...]
    """Names of the parameters and statistics that are not the teacher's."""
