"""An ONNX file opened in onnxruntime, and what really ran it.

A provider that was asked for may not be in this build, may fail to start, or may leave every node to the CPU:
so the nodes are counted from the trace of one profiled run, not from the request.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
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
_LOG_FATAL_ONLY = 4


class Session:
    """One opened ONNX file. Made by `open_session`."""

    def __init__(self, path: Path, asked: Sequence[str], num_threads: int | None) -> None:
        threads_before = _live_threads()
        started_ns = time.perf_counter_ns()
        self._session = _start(path, asked, num_threads)
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        self.path = path
        self.asked = tuple(asked)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.num_threads = num_threads or _threads_started(threads_before)
        self._asked_threads = num_threads
        self.input_name, self.batch, self.shape_CHW = _only_input(self._session, path)

    @cached_property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes each provider ran, most first, from one profiled run in a session of its own."""
        counts = _profile(self.path, self.asked, self._asked_threads)
        return dict(counts.most_common())

    @property
    def provider(self) -> str:
        """The provider that ran most nodes."""
        return next(iter(self.nodes_by_provider))

    def run_batch(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        """One call of the runtime; N is the file's batch size when that is static."""
        logits_NK: NDArray[numpy.float32] = self._session.run(None, {self.input_name: images_NCHW})[0]
        return logits_NK

    def run(self, images_NCHW: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        """Logits (N, K) of any number of images: in batches of the file's size, the last one padded.

        Raises:
            BadInputError: the images do not have the file's C, H, W.
        """
        import numpy as np

        if images_NCHW.ndim != 4 or images_NCHW.shape[1:] != self.shape_CHW or not len(images_NCHW):
            raise BadInputError(
                f"{self.path} takes images of shape (N, {', '.join(map(str, self.shape_CHW))}), "
                f"found {images_NCHW.shape}"
            )
        size = self.batch or min(CHUNK_WHEN_DYNAMIC, len(images_NCHW))
        pieces = []
        for start in range(0, len(images_NCHW), size):
            piece = np.ascontiguousarray(images_NCHW[start : start + size], dtype=np.float32)
            pieces.append(self.run_batch(_padded(piece, size))[: len(piece)])
        return np.concatenate(pieces)


def open_session(
    path: Path, providers: Sequence[str], *, num_threads: int | None = None, strict: bool = False
) -> Session:
    """Open an ONNX classifier on the first of `providers` that works, the CPU being the last resort.

    Args:
        path: a file with one input (N, C, H, W), N static or open.
        providers: onnxruntime names, best first.
        num_threads: of one operator; None leaves it to onnxruntime.
        strict: refuse to go on when the first provider asked for runs no node.

    Raises:
        BadInputError: the file is missing, broken, or not such a classifier.
        MissingError: `strict`, and the first provider is not there or ran nothing.
    """
    session = Session(path, providers, num_threads)
    if strict and not session.nodes_by_provider.get(providers[0]):
        raise MissingError(
            f"{providers[0]} was asked for and ran no node of {path.name}: "
            f"this onnxruntime has {', '.join(_available())}; "
            f"ran {', '.join(f'{n} nodes on {name}' for name, n in session.nodes_by_provider.items())}",
            hint="install the onnxruntime build that has it and the driver it needs, or name another",
        )
    return session


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
        f"{path}: onnxruntime cannot open it: {failure}",
        hint="the file may be damaged, or need a newer onnxruntime",
    ) from failure


def _only_input(session: onnxruntime.InferenceSession, path: Path) -> tuple[str, int | None, tuple[int, int, int]]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = f"inputs {[(i.name, i.type, i.shape) for i in inputs]}, {len(outputs)} outputs"
    one_each = len(inputs) == 1 and len(outputs) == 1 and inputs[0].type == "tensor(float)"
    if not one_each or len(inputs[0].shape) != 4 or not all(isinstance(d, int) for d in inputs[0].shape[1:]):
        raise BadInputError(f"{path}: one float input (N, C, H, W) and one output were expected, found {found}")
    batch, channels, height, width = inputs[0].shape
    return inputs[0].name, batch if isinstance(batch, int) else None, (channels, height, width)


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


def _profile(path: Path, asked: Sequence[str], num_threads: int | None) -> Counter[str]:
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        session = _start(path, asked, num_threads, trace_prefix=str(Path(folder) / "trace"))
        name, batch, shape_CHW = _only_input(session, path)
        session.run(None, {name: np.zeros((batch or 1, *shape_CHW), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = [event["args"] for event in events if event.get("cat") == "Node"]
    # Older versions write fence events beside each kernel's, without a provider.
    return Counter(args["provider"] for args in runs if args.get("provider"))
