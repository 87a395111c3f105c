"""An ONNX file opened in onnxruntime, and what really ran it.

A provider that was asked for may not be in this build, may fail to start, or may leave every node to the CPU:
so the nodes are counted from the trace of one profiled run, not from the request.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError, MissingError
from edgerecover.silence import silence

if TYPE_CHECKING:
    import numpy
    import onnxruntime
    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"
CHUNK_WHEN_DYNAMIC = 64
"""Images per call when the file leaves the batch size open."""
MAX_BATCH_ELEMENTS = 2**28
"""Numbers in one batch of images (1 GiB in float32): a damaged file can claim any batch size."""
_LOG_FATAL_ONLY = 4


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


class Session:
    """One opened ONNX file. Made by `open_session`."""

    def __init__(
        self,
        path: Path,
        asked: Sequence[str],
        num_threads: int | None,
        shape_CHW: tuple[int, int, int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        threads_before = _live_threads()
        started_ns = time.perf_counter_ns()
        self._session = _start(path, asked, num_threads)
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        self.path = path
        self.asked = tuple(asked)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.num_threads = num_threads or _threads_started(threads_before)
        self._asked_threads = num_threads
        self._num_classes = num_classes
        self.layout = _only_input(self._session, path, shape_CHW)
        self.batch, self.shape_CHW = self.layout.batch, self.layout.shape
        self._chunk = self.layout.batch or CHUNK_WHEN_DYNAMIC

    @cached_property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes each provider ran, most first, from one profiled run in a session of its own."""
        counts = _profile(self.path, self.asked, self._asked_threads, self.layout)
        return dict(counts.most_common())

    @property
    def provider(self) -> str:
        """The provider that ran most nodes."""
        return next(iter(self.nodes_by_provider))

    @property
    def output_index(self) -> int:
        """Which output holds the class scores: the first of shape (N, K) and a floating type, K being as asked.

        Raises:
            BadInputError: none does.
        """
        return self._classes_output[0]

    @property
    def num_classes(self) -> int:
        """K of that output."""
        return self._classes_output[1]

    @cached_property
    def _classes_output(self) -> tuple[int, int]:
        """Told from one run on zeros: many a file does not state the shapes of its outputs."""
        outputs = self.run_batch(self.feed(_zeros(self.layout)))
        names = [output.name for output in self._session.get_outputs()]
        for index, output in enumerate(outputs):
            scores = _as_scores(output, self.batch or 1)
            if scores is not None and self._num_classes in (None, scores.shape[1]):
                return index, scores.shape[1]
        wanted = "K of at least 2" if self._num_classes is None else f"K = {self._num_classes}"
        found = ", ".join(f"{name} {_kind(output)}" for name, output in zip(names, outputs, strict=True))
        raise BadInputError(
            f"{self.path}: an output of class scores (N, K) with {wanted} was expected, found {found}",
            hint="export the classifier up to its logits, with the classes of its teacher",
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""
        return tuple(output.name for output in self._session.get_outputs())

    def feed(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[Any]:
        """Images as the file takes them: its type, its order of axes."""
        import numpy as np

        ordered = images_NCHW.transpose(0, 2, 3, 1) if self.layout.channels_last else images_NCHW
        return np.ascontiguousarray(ordered, dtype=self.layout.dtype)

    def run_batch(self, feed: NDArray[Any]) -> list[Any]:
        """One call of the runtime on what `feed` gave: all outputs; N is the file's batch size when that is static.

        Raises:
            BadInputError: the runtime fails on it.
        """
        try:
            outputs: list[Any] = self._session.run(None, {self.layout.name: feed})
        except Exception as error:  # its error classes share no base but Exception
            raise _cannot_run(self.path, error) from error
        return outputs

    def run(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        """Class scores (N, K) of any number of images: in batches of the file's size, the last one padded.

        Raises:
            BadInputError: the images do not have the file's C, H, W, or the file cannot be run or has no such output.
        """
        import numpy as np

        if images_NCHW.ndim != 4 or images_NCHW.shape[1:] != self.shape_CHW or not len(images_NCHW):
            raise BadInputError(
                f"{self.path} takes images of shape (N, {', '.join(map(str, self.shape_CHW))}), "
                f"found {images_NCHW.shape}"
            )
        pieces, start = [], 0
        while start < len(images_NCHW):
            size = self._chunk if self.batch else min(self._chunk, len(images_NCHW))
            piece = images_NCHW[start : start + size]
            try:
                scores = self._scores(_padded(piece, size))
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

        index = self.output_index
        output = self.run_batch(self.feed(images_NCHW))[index]
        scores = _as_scores(output, len(images_NCHW))
        if scores is None:
            raise BadInputError(f"{self.path}: {self.outputs[index]} is {_kind(output)} for {len(images_NCHW)} images")
        return scores.astype(np.float32)


def open_session(
    path: Path,
    providers: Sequence[str],
    *,
    num_threads: int | None = None,
    strict: bool = False,
    shape_CHW: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
) -> Session:
    """Open an ONNX classifier on the first of `providers` that works, the CPU being the last resort.

    Args:
        path: a file with one input, (N, C, H, W) or (N, H, W, C), N static or open, float32, float16 or float64.
        providers: onnxruntime names, best first.
        num_threads: of one operator; None leaves it to onnxruntime.
        strict: refuse to go on when the first provider asked for runs no node.
        shape_CHW: of the images it will be given: settles sides that the file leaves open, and which axis is which.
        num_classes: K, which tells the class scores from other outputs.

    Raises:
        BadInputError: the file is missing, broken, or not such a classifier.
        MissingError: `strict`, and the first provider is not there or ran nothing.
    """
    session = Session(path, providers, num_threads, shape_CHW, num_classes)
    if strict and not session.nodes_by_provider:
        raise BadInputError(f"{path}: it computes nothing: no node of it runs")
    if strict and not session.nodes_by_provider.get(providers[0]):
        raise MissingError(
            f"{providers[0]} was asked for and ran no node of {path.name}: "
            f"this onnxruntime has {', '.join(_available())}; "
            f"ran {', '.join(f'{n} nodes on {name}' for name, n in session.nodes_by_provider.items())}",
            hint="install the onnxruntime build that has it and the driver it needs, or name another",
        )
    return session


def _as_scores(output: Any, num_images: int) -> NDArray[Any] | None:
    """An output as (N, K), K ≥ 2; None when it holds something else. (N, K, 1, 1) of a convolution counts too."""
    import numpy as np

    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.ndim < 2:
        return None
    if output.shape[0] != num_images or output.shape[1] < 2 or output.size != num_images * output.shape[1]:
        return None
    return output.reshape(num_images, output.shape[1])


def _kind(output: Any) -> str:
    """For people: "float32 (1, 10)"."""
    if not hasattr(output, "dtype"):
        return f"a {type(output).__name__}"
    return f"{output.dtype} ({', '.join(map(str, output.shape))})"


def _zeros(layout: InputLayout) -> NDArray[numpy.float32]:
    import numpy as np

    return np.zeros((layout.batch or 1, *layout.shape), np.float32)


def _cannot_run(path: Path, error: Exception) -> BadInputError:
    return BadInputError(
        f"{path}: onnxruntime opens it, but cannot run it: {_first_line(error)}",
        hint="the file may be damaged, or made for another runtime",
    )


def _padded(piece_NCHW: NDArray[numpy.float32], size: int) -> NDArray[numpy.float32]:
    import numpy as np

    missing = size - len(piece_NCHW)
    if not missing:
        return piece_NCHW
    return np.concatenate([piece_NCHW, np.repeat(piece_NCHW[-1:], missing, axis=0)])


# --- opening ------------------------------------------------------------------------------------------------


def import_onnxruntime() -> Any:
    """The onnxruntime module, its C++ log kept off stderr.

    Raises:
        MissingError: it is not installed, or does not load here.
    """
    if "onnxruntime" in sys.modules:
        return sys.modules["onnxruntime"]
    try:
        # Imported on a Raspberry Pi, in WSL and in containers it warns that it found no GPU, whatever level is set.
        with silence():
            import onnxruntime
    except ImportError as error:
        raise MissingError(f"onnxruntime cannot be imported: {error}", hint="pip install onnxruntime") from error
    return onnxruntime


def _available() -> list[str]:
    names: list[str] = import_onnxruntime().get_available_providers()
    return names


def _start(
    path: Path, asked: Sequence[str], num_threads: int | None, trace_prefix: str | None = None
) -> onnxruntime.InferenceSession:
    runtime = import_onnxruntime()
    runtime.set_default_logger_severity(_LOG_FATAL_ONLY)
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    if trace_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = trace_prefix
    wanted = [name for name in asked if name in _available() and name != CPU]
    for providers in [[*wanted, CPU], [CPU]] if wanted else [[CPU]]:
        try:
            # onnxruntime's own fallback prints to stdout.
            return runtime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # its error classes share no base but Exception
            failure = error
            if not path.is_file():
                raise BadInputError(f"{path}: no such file") from error
    raise BadInputError(
        f"{path}: onnxruntime cannot open it: {_first_line(failure)}", hint=_advice(failure)
    ) from failure


_KNOWN_FAILURES = (
    (
        r"[Uu]nsupported model IR version",
        "it was written by a newer ONNX: write it with a lower ir_version, or install a newer onnxruntime",
    ),
    (
        r"under development|guarantees support|opset version",
        "install a newer onnxruntime, or export with a lower opset",
    ),
    (
        r"is not a registered function/op|No Op registered|Could not find an implementation",
        "it needs an operator that onnxruntime does not have: export with standard ONNX operators",
    ),
    (
        r"[Ee]xternal data|external initializer|NoSuchFile",
        "its weights lie in files beside it: put them there, under the names they had at export",
    ),
)
"""What onnxruntime says of sound files that it cannot open, and what then helps."""


def _advice(failure: Exception) -> str:
    """What to do about an error of onnxruntime, where its words tell."""
    known = (advice for pattern, advice in _KNOWN_FAILURES if re.search(pattern, str(failure)))
    return next(known, "the file may be damaged, or need a newer onnxruntime")


_NOISE = (
    r"\[ONNXRuntimeError\] : \d+ : \w+ : ",
    r"Load model from .*? failed:",
    r"/onnxruntime_src/\S+:\d+ ",
    r"(?:\S+ )?onnxruntime::[^()]*\([^()]*\)(?: const)? ?",
)
"""What onnxruntime's messages hold for its own developers: codes, source lines, C++ signatures."""


def _first_line(error: Exception) -> str:
    """An error of onnxruntime as one printable line, no longer than a terminal shows."""
    text = " ".join(str(error).split())
    for pattern in _NOISE:
        text = re.sub(pattern, "", text)
    return "".join(character if character.isprintable() else "?" for character in text).strip()[:300]


_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def _only_input(
    session: onnxruntime.InferenceSession, path: Path, shape_CHW: tuple[int, int, int] | None
) -> InputLayout:
    inputs = session.get_inputs()
    found = ", ".join(f"{i.name} {i.type} ({', '.join(map(str, i.shape))})" for i in inputs) or "no input"
    expected = f"({', '.join(map(str, ('N', *(shape_CHW or ('C', 'H', 'W')))))})"
    refused = BadInputError(
        f"{path}: one floating-point input {expected} was expected, found {found}",
        hint="export the network alone, its pixels scaled outside of it",
    )
    if len(inputs) != 1 or inputs[0].type not in _DTYPES or len(inputs[0].shape) != 4:
        raise refused
    batch, *sides = (d if isinstance(d, int) and d > 0 else None for d in inputs[0].shape)
    if any(isinstance(d, int) and d <= 0 for d in inputs[0].shape):
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
    return InputLayout(inputs[0].name, _DTYPES[inputs[0].type], batch, (channels, height, width), channels_last)


def _fits(sides: Sequence[int | None], wanted: Sequence[int]) -> bool:
    return all(side in (None, want) for side, want in zip(sides, wanted, strict=True))


# --- threads and nodes --------------------------------------------------------------------------------------


def _live_threads() -> int | None:
    """Threads of this process; None where the system does not list them."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return None


def _threads_started(before: int | None) -> int:
    """Size of the pool that onnxruntime chose: the calling thread works too. It has no call that tells."""
    now = _live_threads()
    if before is None or now is None:
        return os.cpu_count() or 1
    return max(1, now - before + 1)


def _profile(path: Path, asked: Sequence[str], num_threads: int | None, layout: InputLayout) -> Counter[str]:
    import numpy as np

    shape = (layout.shape[1], layout.shape[2], layout.shape[0]) if layout.channels_last else layout.shape
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        session = _start(path, asked, num_threads, trace_prefix=str(Path(folder) / "trace"))
        feed = {layout.name: np.zeros((layout.batch or 1, *shape), layout.dtype)}
        try:
            session.run(None, feed)
        except Exception as error:  # its error classes share no base but Exception
            raise _cannot_run(path, error) from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = [event["args"] for event in events if event.get("cat") == "Node"]
    # Older versions write fence events beside each kernel's, without a provider.
    return Counter(args["provider"] for args in runs if args.get("provider"))
