"""What every opened network answers, whichever runtime it was opened in, and the half of it that all share.

A runtime's own module makes the values: `session` for onnxruntime, `openvino_session` for OpenVINO. Everything else
asks for an `Opened` and gets one from `opening.open_model`.

Scores are numbers for each image in one row, whatever the shape of the file's own output.
Shapes: N images, C channels, H height, W width, D scores for each image.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgerecover.artifacts import NumValues
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

CHUNK_WHEN_DYNAMIC = 64
"""Images per call when the file leaves the batch size open."""
MAX_BATCH_ELEMENTS = 2**28
"""Numbers in one batch of images (1 GiB in float32): a damaged file can claim any batch size."""


@dataclass(frozen=True)
class InputLayout:
    """How a file takes its images, beside the (N, C, H, W) in float32 that everything here speaks."""

    name: str
    dtype: str
    """numpy's name: float32, float16 or float64."""
    batch: int | None
    """Static batch size; None when the file leaves it open."""
    shape: tuple[int, int, int]
    """C, H, W."""
    channels_last: bool
    """The file takes (N, H, W, C)."""


class Opened(Protocol):
    """An image classifier, opened and ready to run."""

    @property
    def runtime(self) -> str:
        """ "onnxruntime", "openvino", "mnn", "tensorrt" or "tensorrt-rtx"."""

    @property
    def version(self) -> str:
        """Full version of that runtime, without its name: "1.31.1"."""

    @property
    def path(self) -> Path:
        """The file that was opened."""

    @property
    def layout(self) -> InputLayout:
        """How it takes images."""

    @property
    def batch(self) -> int | None:
        """Images per call; None where any number goes."""

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Of one image."""

    @property
    def load_ms(self) -> float:
        """From the file to a network that is ready to run."""

    @property
    def num_threads(self) -> int:
        """Threads that work on one call."""

    @property
    def providers(self) -> tuple[str, ...]:
        """What the runtime says it may use: execution providers, or devices."""

    @property
    def provider(self) -> str:
        """The one that really ran most nodes."""

    @property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes each really ran, most first."""

    @property
    def copies(self) -> bool:
        """`run_batch` copies images into a device's own memory and scores out of it."""

    @property
    def cuda_graph(self) -> bool:
        """`run_batch` replays a captured CUDA graph."""

    @property
    def notes(self) -> tuple[str, ...]:
        """For people: what was decided here that the numbers depend on, such as the arithmetic."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""

    @property
    def output_indices(self) -> tuple[int, ...]:
        """Which outputs hold the scores, in the order in which they were asked for."""

    @property
    def num_values(self) -> int:
        """D of those outputs together."""

    def insist(self) -> None:
        """Raise MissingError unless the first provider that was asked for really ran something."""

    def feed(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[Any]:
        """Images as the file takes them: its type, its order of axes."""

    def run_batch(self, feed: NDArray[Any]) -> list[Any]:
        """One call of the runtime on what `feed` gave: all outputs, in host memory."""

    def run(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        """Scores (N, D) of any number of images."""


class Classifier(abc.ABC):
    """What is the same in every runtime: batches, layouts, and finding the scores among the outputs.

    A subclass sets `path` and `layout`, and says what its outputs are called and how one batch is run.
    """

    path: Path
    layout: InputLayout
    runtime: str
    version: str

    def __init__(self, path: Path, layout: InputLayout, num_values: NumValues | None) -> None:
        self.path = path
        self.layout = layout
        self._num_values = num_values
        self._chunk = layout.batch or CHUNK_WHEN_DYNAMIC

    @property
    def batch(self) -> int | None:
        """Images per call; None where any number goes."""
        return self.layout.batch

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.layout.shape

    @property
    @abc.abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""

    @abc.abstractmethod
    def run_batch(self, feed: NDArray[Any]) -> list[Any]:
        """One call of the runtime on what `feed` gave: all outputs; N is the file's batch size when that is static.

        Raises:
            BadInputError: the runtime fails on it.
        """

    @property
    @abc.abstractmethod
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes each provider really ran, most first."""

    @property
    def provider(self) -> str:
        """The provider that ran most nodes."""
        return next(iter(self.nodes_by_provider))

    @property
    def output_indices(self) -> tuple[int, ...]:
        """Which output holds the scores: the first of a floating type with as many for each image as were asked for.

        Where no number was asked for, the first of shape (N, K) with at least two; where names were, those outputs.

        Raises:
            BadInputError: none does, or not all of them do.
        """
        return tuple(self._scores_outputs)

    @property
    def num_values(self) -> int:
        """D of those outputs together."""
        return sum(self._scores_outputs.values())

    @cached_property
    def _scores_outputs(self) -> dict[int, int]:
        """D of each, by index, found by one run on zeros: many files do not state the shapes of their outputs."""
        outputs = self.run_batch(self.feed(_zeros(self.layout)))
        found = ", ".join(f"{name} {_kind(output)}" for name, output in zip(self.outputs, outputs, strict=True))
        if isinstance(self._num_values, dict):
            return {self._index_of(name, size, outputs, found): size for name, size in self._num_values.items()}
        for index, output in enumerate(outputs):
            scores = _as_scores(output, self.batch or 1, self._num_values)
            if scores is not None:
                return {index: scores.shape[1]}
        wanted = "K of at least 2" if self._num_values is None else f"K = {self._num_values}"
        raise BadInputError(
            f"{self.path}: an output of scores (N, K) with {wanted} was expected, found {found}",
            hint="export the network up to its logits, with the classes of its teacher",
        )

    def _index_of(self, name: str, size: int, outputs: Sequence[Any], found: str) -> int:
        index = self.outputs.index(name) if name in self.outputs else None
        if index is None or _as_scores(outputs[index], self.batch or 1, size) is None:
            raise BadInputError(
                f"{self.path}: an output {name} of {size} numbers for each image was expected, found {found}",
                hint="export the network with all its outputs, each under the name that the network gives it",
            )
        return index

    def insist(self) -> None:  # noqa: B027 - not abstract: an engine runs wholly where it was built for
        """Raise MissingError unless the first provider that was asked for really ran something."""

    def feed(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[Any]:
        """Images as the file takes them: its type, its order of axes."""
        import numpy as np

        ordered = images_NCHW.transpose(0, 2, 3, 1) if self.layout.channels_last else images_NCHW
        return np.ascontiguousarray(ordered, dtype=self.layout.dtype)

    def run(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        """Scores (N, D) of any number of images: in batches of the file's size, the last one padded.

        Raises:
            BadInputError: the images do not have the file's C, H, W, or the file cannot be run or has no such output.
        """
        import numpy as np

        if images_NCHW.ndim != 4 or images_NCHW.shape[1:] != self.shape_CHW or not len(images_NCHW):
            raise BadInputError(
                f"{self.path} takes images of shape (N, {', '.join(map(str, self.shape_CHW))}), "
                f"found {images_NCHW.shape}",
                hint="give images of that shape, as float32 arrays (N, C, H, W)",
            )
        pieces, start = [], 0
        while start < len(images_NCHW):
            size = self._chunk if self.batch else min(self._chunk, len(images_NCHW))
            piece = images_NCHW[start : start + size]
            try:
                scores = self._scores(_pad(piece, size))
            except BadInputError:
                # A Reshape to a fixed size makes many a file that claims an open batch run with one image alone.
                if self.batch or size == 1:
                    raise
                self._chunk = 1
                continue
            pieces.append(scores[: len(piece)])
            start += len(piece)
        return np.concatenate(pieces)

    def _scores(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        import numpy as np

        outputs = self.run_batch(self.feed(images_NCHW))
        parts = []
        for index, size in self._scores_outputs.items():
            scores = _as_scores(outputs[index], len(images_NCHW), size)
            if scores is None:
                raise BadInputError(
                    f"{self.path}: {self.outputs[index]} is {_kind(outputs[index])} for {len(images_NCHW)} images",
                    hint="a network outputs as many scores for each image",
                )
            parts.append(scores.astype(np.float32))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


# --- inputs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundInput:
    """One input as a runtime describes it."""

    name: str
    dtype: str | None
    """numpy's name of a floating type that images can have; None for any other."""
    sides: tuple[int | str | None, ...]
    """Sizes of its axes: a text or None where the file leaves one open."""
    described: str
    """For people: "input tensor(uint8) (1, 3, 8, 8)"."""


def only_input(path: Path, inputs: Sequence[FoundInput], shape_CHW: tuple[int, int, int] | None) -> InputLayout:
    """How a file with one input of images takes them.

    Args:
        path: for messages.
        inputs: all inputs that the file has.
        shape_CHW: of the images it will be given: settles sides that the file leaves open, and which axis is which.

    Raises:
        BadInputError: it has another number of inputs, or takes something else.
    """
    found = ", ".join(one.described for one in inputs) or "no input"
    expected = f"({', '.join(map(str, ('N', *(shape_CHW or ('C', 'H', 'W')))))})"
    refused = BadInputError(
        f"{path}: one floating-point input {expected} was expected, found {found}",
        hint="export the network alone, its pixels scaled outside of it",
    )
    if len(inputs) != 1 or inputs[0].dtype is None or len(inputs[0].sides) != 4:
        raise refused
    batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in inputs[0].sides)
    if any(isinstance(side, int) and side <= 0 for side in inputs[0].sides):
        raise refused
    channels_last = False
    if shape_CHW is not None and not _fits(sides, shape_CHW):
        channels, height, width = shape_CHW
        if not _fits(sides, (height, width, channels)):
            raise refused
        channels_last = True
    given = shape_CHW or tuple(side for side in sides if side)
    if len(given) != 3:
        raise refused
    channels, height, width = given
    if (batch or 1) * channels * height * width > MAX_BATCH_ELEMENTS:
        raise refused
    return InputLayout(inputs[0].name, inputs[0].dtype, batch, (channels, height, width), channels_last)


def _fits(sides: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return all(side in (None, want) for side, want in zip(sides, wanted, strict=True))


def _zeros(layout: InputLayout) -> NDArray[numpy.float32]:
    import numpy as np

    return np.zeros((layout.batch or 1, *layout.shape), np.float32)


def _pad(piece_NCHW: NDArray[numpy.float32], size: int) -> NDArray[numpy.float32]:
    import numpy as np

    missing = size - len(piece_NCHW)
    if not missing:
        return piece_NCHW
    return np.concatenate([piece_NCHW, np.repeat(piece_NCHW[-1:], missing, axis=0)])


# --- outputs ------------------------------------------------------------------------------------------------


def _as_scores(output: Any, num_images: int, num_values: int | None) -> NDArray[Any] | None:
    """An output as (N, D); None when it holds something else.

    Where D is not known, it is one of classes: (N, K), K ≥ 2, or (N, K, 1, 1) of a convolution.
    """
    import numpy as np

    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or not output.ndim:
        return None
    if num_values is None:
        num_values = output.shape[1] if output.ndim > 1 and output.shape[1] > 1 else 0
    if not num_values or output.shape[0] != num_images or output.size != num_images * num_values:
        return None
    return output.reshape(num_images, num_values)


def _kind(output: Any) -> str:
    """For people: "float32 (1, 10)"."""
    if not hasattr(output, "dtype"):
        return f"a {type(output).__name__}"
    return f"{output.dtype} ({', '.join(map(str, output.shape))})"
