"""One entrant of a race in its own process: it opens a file and answers requests, one line at a time.

Between two blocks it computes nothing: it answers only once its runtime's threads have stopped spinning, so that they
take nothing from the entrant whose turn is next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts.engines import ENGINE_RUNTIMES
from edgerecover.errors import UNREADABLE_HINT, BadInputError
from edgerecover.runtime.machine.fresh import answer_all
from edgerecover.runtime.machine.memory import peak_bytes
from edgerecover.runtime.machine.mnn_module import MNN, import_mnn
from edgerecover.runtime.measure.timing import BlockSize, Timing, time_block, warm_up
from edgerecover.runtime.session.opened import Opened
from edgerecover.runtime.session.opening import open_model

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_STILL_S = 0.004
_MAX_WAIT_S = 0.25
_STILL_SHARE = 0.1
"""Of one core: what a process that waits may use."""


class _Worker:
    """What one entrant has open; each method is a thing it can be asked to do."""

    _opened: Opened
    _query: NDArray[Any]
    _strict: bool

    def __init__(self) -> None:
        self._cpu_told_s = 0.0

    def open(
        self,
        model: str,
        runtime: str,
        providers: Sequence[str],
        num_threads: int | None,
        batch: int | None,
        golden_inputs: str | None,
        shape_CHW: Sequence[int] | None,
        cores: Sequence[int],
        strict: bool,
    ) -> dict[str, Any]:
        """Open the file and ask it about the golden images once.

        Raises:
            BadInputError: the model or the images cannot be read or do not fit each other, or a score is not finite.
            MissingError: the runtime is not here.
        """
        import numpy as np

        _pin(cores)
        images_NCHW = None if golden_inputs is None else _read_images(Path(golden_inputs))
        sides = shape_CHW if images_NCHW is None else images_NCHW.shape[1:]
        channels, height, width = sides or (0, 0, 0)
        _import(runtime)
        memory_before_bytes = peak_bytes()
        self._opened = open_model(
            Path(model),
            runtime,
            providers,
            num_threads=num_threads,
            shape_CHW=(channels, height, width) if sides else None,
            batch=batch,
        )
        self._strict = strict
        size = self._opened.batch or batch or 1
        if batch is not None and size != batch:
            raise BadInputError(
                f"{model}: takes {size} images per call, but {batch} were requested",
                hint="export it with a dynamic batch size (--batch 0) to try several",
            )
        if images_NCHW is None:
            images_NCHW = _noise(self._opened.shape_CHW)
        batch_NCHW = np.resize(np.array(images_NCHW[:size]), (size, *self._opened.shape_CHW))
        self._query = self._opened.feed(batch_NCHW)
        outputs = [np.asarray(output) for output in self._opened.run_batch(self._query)]
        if not all(np.isfinite(output).all() for output in outputs if output.dtype.kind == "f"):
            raise BadInputError(
                f"{model}: its scores for the golden images are not finite numbers",
                hint="a network that overflows in half precision does this: keep the nodes that do in float32",
            )
        return {
            "memory_before_bytes": memory_before_bytes,
            "load_ms": self._opened.load_ms,
            "batch": size,
            "version": self._opened.version,
            "num_threads": self._opened.num_threads,
            "copies": self._opened.copies,
            "cuda_graph": self._opened.cuda_graph,
        }

    def warm_up(self, **timing: Any) -> dict[str, Any]:
        """Ask until it gets no faster."""
        done = warm_up(self._ask, Timing(**timing))
        return self._quiet({"times_ms": done.times_ms, "settled": done.settled})

    def time_block(self, **size: Any) -> dict[str, Any]:
        """Time one block of queries."""
        started_ns = time.perf_counter_ns()
        times_ms = time_block(self._ask, BlockSize(**size))
        busy_s = (time.perf_counter_ns() - started_ns) / 1e9
        return self._quiet({"times_ms": times_ms, "busy_s": busy_s})

    def finish(self) -> dict[str, Any]:
        """Tell what it took, and what ran: known from a second, profiled session, which must not count in the peak.

        Raises:
            MissingError: the provider that was insisted on ran nothing.
        """
        memory_peak_bytes = peak_bytes()
        if self._strict:
            self._opened.insist()
        return {
            "memory_peak_bytes": memory_peak_bytes,
            "nodes_by_provider": self._opened.nodes_by_provider,
            "provider": self._opened.provider,
            "notes": self._opened.notes,
        }

    def _ask(self) -> None:
        self._opened.run_batch(self._query)

    def _quiet(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Answer when nothing of this process runs any more, with the processor time it took since its last answer."""
        waited_s = 0.0
        before_s = time.process_time()
        while waited_s < _MAX_WAIT_S:
            time.sleep(_STILL_S)
            waited_s += _STILL_S
            now_s = time.process_time()
            still, before_s = now_s - before_s < _STILL_SHARE * _STILL_S, now_s
            if still:
                break
        answer["cpu_s"], self._cpu_told_s = before_s - self._cpu_told_s, before_s
        return answer


def _pin(cores: Sequence[int]) -> None:
    """Before any runtime counts the cores it may use."""
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise BadInputError("--cores: this system cannot pin a process to cores", hint="leave it out")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        here = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise BadInputError(
            f"cores {', '.join(map(str, cores))} cannot be used: {error.strerror}", hint=f"these can: {here}"
        ) from error


def _import(runtime: str) -> None:
    """What the runtime's own libraries take is not the model's memory."""
    if runtime == "onnxruntime":
        from edgerecover.runtime.session.onnxruntime import import_onnxruntime

        import_onnxruntime()
    elif runtime == "openvino":
        from edgerecover.runtime.session.openvino import import_openvino

        import_openvino()
    elif runtime == MNN:
        import_mnn()
    elif runtime in ENGINE_RUNTIMES:
        from edgerecover.runtime.machine.tensorrt_module import import_tensorrt

        import_tensorrt(runtime)


def _noise(shape_CHW: tuple[int, int, int]) -> NDArray[numpy.float32]:
    """Images to ask about when there are none: kernels take as long for any numbers but zeros and the subnormal."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((1, *shape_CHW), dtype=np.float32)


def _read_images(path: Path) -> NDArray[numpy.float32]:
    import numpy as np

    try:
        # Mapped, not read: images that are not queried must not count as the runtime's memory.
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(
            f"{path}: cannot be read as .npy: {error}",
            hint=UNREADABLE_HINT,
        ) from error
    if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4 or not len(images):
        raise BadInputError(
            f"{path}: one float32 array (N, C, H, W) was expected",
            hint="give images of that shape, as float32 arrays (N, C, H, W)",
        )
    return images


def main(argv: Sequence[str] | None = None) -> int:
    """Answer what is asked on stdin until it is closed. Returns the exit code."""
    worker = _Worker()
    return answer_all(
        {
            "open": worker.open,
            "warm up": worker.warm_up,
            "time a block": worker.time_block,
            "finish": worker.finish,
        }
    )
