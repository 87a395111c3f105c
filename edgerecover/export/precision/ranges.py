"""Ranges and moments of a network's tensors on calibration images, on which fp16 and int8 are based.

All intermediate tensors become outputs of a copy of the network, which onnxruntime then runs.
"""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edgerecover.errors import OUR_FAULT_HINT, BadInputError
from edgerecover.export.precision.graph import Graph
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.session.onnxruntime import CPU, import_onnxruntime

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

NUM_BINS = 2048
_MAX_BYTES_AT_ONCE = 2**28
"""Limit for the intermediate tensors of one batch."""
_LARGEST_BATCH = 32
_LARGEST_SAMPLE = 2**16
"""Values per tensor and batch from which its distribution is estimated; extremes and means use all values."""
_LOG_FATAL_ONLY = 4
_LARGEST_FLOAT = 3.4e38


class Images(Protocol):
    """Network inputs, float32 (N, C, H, W), read in batches."""

    def __len__(self) -> int:
        """Number of images, N."""

    def batches(self, batch_size: int) -> Iterator[NDArray[numpy.float32]]:
        """All images in order; the last batch may be smaller."""


@dataclass
class Seen:
    """Statistics of one tensor over all images."""

    low: float
    high: float
    squares: float = 0.0
    """Sum of the squared values of a sample."""
    half_squares: float = 0.0
    """Sum of the squared errors of rounding that sample to float16; infinite if a value overflows."""
    is_finite: bool = True
    shape: tuple[int, ...] = ()
    """Number of values in one batch."""
    channel_means: NDArray[Any] | None = None
    """Mean per channel (axis 1, or the last axis of matrices), for tensors that layers read."""
    histogram: NDArray[Any] | None = None
    """Counts in NUM_BINS bins from low to high, if requested."""

    @property
    def largest(self) -> float:
        """Largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def half_error(self) -> float:
        """Root mean square error of float16, relative to the values; usually 3e-4, infinite on overflow."""
        if not self.squares:
            return 0.0
        return float((self.half_squares / self.squares) ** 0.5)


@dataclass
class Ranges:
    """Statistics of all float tensors of a network, by name."""

    tensors: dict[str, Seen]
    num_images: int
    _totals: dict[str, tuple[Any, int]] = field(default_factory=dict)

    def get(self, name: str) -> Seen | None:
        """Statistics of the tensor `name`; None if it was not computed or is not float."""
        return self.tensors.get(name)


def scan(
    graph: Graph,
    images: Images,
    *,
    max_images: int,
    with_histograms: bool = False,
    progress: Progress = SILENT,
) -> Ranges:
    """Run the network on up to `max_images` images and measure each float tensor.

    Args:
        graph: the prepared float32 model.
        images: calibration images.
        max_images: how many of the first images are used.
        with_histograms: count values between each tensor's extremes, in a second pass.
        progress: where to report.

    Raises:
        BadInputError: onnxruntime cannot run the network, or there are no images.
    """
    runner = _Runner(graph)
    ranges = Ranges({}, 0)
    layer_inputs = {node.input[0] for node in graph.layers}
    total = min(len(images), max_images) * (2 if with_histograms else 1)
    with progress.task("ranges", total, "images") as task:
        for outputs, num_images in runner.run_all(images, max_images):
            ranges.num_images += num_images
            for name, values in outputs.items():
                _note(ranges, name, values, name in layer_inputs)
            task.advance(num_images)
        if not ranges.num_images:
            raise BadInputError("no calibration images: activation ranges cannot be measured", hint="synthesize some")
        for name, (total_C, count) in ranges._totals.items():
            ranges.tensors[name].channel_means = total_C / count
        if with_histograms:
            for outputs, num_images in runner.run_all(images, max_images):
                for name, values in outputs.items():
                    _count(ranges.tensors[name], values)
                task.advance(num_images)
    return ranges


def _note(ranges: Ranges, name: str, values: NDArray[Any], is_read_by_layer: bool) -> None:
    import numpy as np

    if not values.size:
        return
    finite = bool(np.isfinite(values).all())
    if not finite:
        values = np.where(np.isnan(values), np.float32(0), np.clip(values, -_LARGEST_FLOAT, _LARGEST_FLOAT))
    seen = ranges.tensors.setdefault(name, Seen(float("inf"), float("-inf")))
    seen.low, seen.high = min(seen.low, float(values.min())), max(seen.high, float(values.max()))
    seen.is_finite &= finite
    seen.shape = values.shape
    sample = _sample(values).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = sample.astype(np.float16).astype(np.float64)
        seen.squares += float(np.square(sample).sum())
        seen.half_squares += float(np.square(rounded - sample).sum())
    if is_read_by_layer and values.ndim >= 2:
        channel_axis = 1 if values.ndim == 4 else values.ndim - 1
        others = tuple(axis for axis in range(values.ndim) if axis != channel_axis)
        total_C, count = ranges._totals.get(name, (0.0, 0))
        summed_C = values.sum(axis=others, dtype=np.float64)
        ranges._totals[name] = (total_C + summed_C, count + values.size // values.shape[channel_axis])


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    """Evenly spaced values to estimate a distribution from; the stride is odd, so as not to follow a column."""
    flat = values.reshape(-1)
    stride = max(1, flat.size // _LARGEST_SAMPLE) | 1
    return flat[::stride]


def _count(seen: Seen, values: NDArray[Any]) -> None:
    import numpy as np

    if not values.size or not seen.is_finite or seen.high <= seen.low:
        return
    counts, _ = np.histogram(_sample(values), bins=NUM_BINS, range=(seen.low, seen.high))
    seen.histogram = counts if seen.histogram is None else seen.histogram + counts


class _Runner:
    """A copy of the network with every float tensor as an output."""

    def __init__(self, graph: Graph) -> None:
        import onnx
        from onnx import TensorProto

        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        known = set(graph.outputs)
        for node in graph.nodes:
            for name in node.output:
                if name and name not in known and graph.element_types.get(name) == TensorProto.FLOAT:
                    known.add(name)
                    model.graph.output.append(onnx.ValueInfoProto(name=name))
        (input,) = (value for value in model.graph.input if value.name in graph.inputs)
        self._input = input.name
        sides = input.type.tensor_type.shape.dim
        self._batch = sides[0].dim_value or None
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = _LOG_FATAL_ONLY
        # Fused nodes would hide what is between them; constant nodes are cheap to leave.
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        except Exception as error:  # its error classes share no base but Exception
            raise BadInputError(
                f"onnxruntime cannot open the prepared network: {str(error)[:200]}",
                hint=OUR_FAULT_HINT,
            ) from error
        self._names = [output.name for output in self._session.get_outputs()]

    def run_all(self, images: Images, max_images: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """All float tensors, the input included, and the number of images, batch by batch."""
        import numpy as np

        done, size = 0, self._batch or 1
        for batch_NCHW in images.batches(_LARGEST_BATCH):
            start = 0
            while start < len(batch_NCHW) and done < max_images:
                piece = batch_NCHW[start : start + min(size, max_images - done)]
                missing = (self._batch or len(piece)) - len(piece)
                fed = np.concatenate([piece, np.repeat(piece[-1:], missing, 0)]) if missing else piece
                outputs = self._run(np.ascontiguousarray(fed, np.float32))
                yield outputs, len(piece)
                start, done = start + len(piece), done + len(piece)
                if self._batch is None:
                    per_image = sum(values.nbytes for values in outputs.values()) // len(piece)
                    size = max(1, min(_LARGEST_BATCH, _MAX_BYTES_AT_ONCE // max(1, per_image)))
            if done >= max_images:
                return

    def _run(self, fed_NCHW: NDArray[Any]) -> dict[str, NDArray[Any]]:
        import numpy as np

        try:
            outputs = self._session.run(None, {self._input: fed_NCHW})
        except Exception as error:  # its error classes share no base but Exception
            raise BadInputError(
                f"onnxruntime cannot run the prepared network: {str(error)[:200]}",
                hint=OUR_FAULT_HINT,
            ) from error
        found = {self._input: fed_NCHW, **dict(zip(self._names, outputs, strict=True))}
        return {
            name: values
            for name, values in found.items()
            if isinstance(values, np.ndarray) and values.dtype == np.float32
        }
