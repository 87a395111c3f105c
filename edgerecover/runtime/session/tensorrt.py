"""A built engine, opened in TensorRT or TensorRT-RTX and run on the GPU.

Not run by its authors: they had no GPU that these engines are for. Names of the API are those of TensorRT 8.5 to 11.1
(`IExecutionContext.execute_async_v3`) and of the CUDA Driver API.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import NumValues
from edgerecover.artifacts.engines import EngineFacts
from edgerecover.errors import UNREADABLE_HINT, BadInputError, StageError
from edgerecover.runtime.engine.engine import check_runs_here, read_facts
from edgerecover.runtime.machine.cuda import Cuda, check_driver, this_gpu
from edgerecover.runtime.machine.tensorrt_module import (
    WORDS,
    Log,
    first_of,
    import_tensorrt,
    logger_into,
    one_line,
    version_of,
)
from edgerecover.runtime.session.opened import MAX_BATCH_ELEMENTS, Classifier, FoundInput, InputLayout, only_input

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ENGINE_BYTES = 2**34
"""Larger than the memory of the devices that engines are for."""
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "INT8": "int8", "BOOL": "bool"}
"""TensorRT's names as numpy's; bfloat16 and fp8 have none."""
_FLOATING = ("float32", "float16")


@dataclass
class _Tensor:
    """An input or output of the engine, with its memory on both sides."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """-1 where the batch is open."""
    now: tuple[int, ...] = ()
    """For the batch of the moment, nothing open."""
    device: int = 0
    host: Any = None
    """A ctypes array, which mypy does not know as a buffer."""

    @property
    def num_bytes(self) -> int:
        """Of `now`."""
        import numpy as np

        return prod(self.now) * np.dtype(self.dtype).itemsize


class TensorRTSession(Classifier):
    """One engine with memory for its largest batch. Made by `open_engine`; `close` gives the memory back."""

    num_threads = 1

    def __init__(
        self,
        path: Path,
        runtime: str,
        facts: EngineFacts | None,
        shape_CHW: tuple[int, int, int] | None,
        num_values: NumValues | None,
        batch: int | None,
        cuda_graph: bool,
        host_code_allowed: bool,
    ) -> None:
        self.runtime = runtime
        self.facts = facts
        self._log = Log()
        module = import_tensorrt(runtime)
        self.version = version_of(module)
        check_driver()
        started_ns = time.perf_counter_ns()
        self._engine = _deserialize(module, path, runtime, self._log, host_code_allowed)
        tensors = [_tensor(module, self._engine, index, path) for index in range(self._engine.num_io_tensors)]
        given = [one for one in tensors if _is_input(module, self._engine, one.name)]
        self._found = tuple(one for one in tensors if one not in given)
        layout = only_input(path, [_find_input(one) for one in given], shape_CHW)
        self._input = given[0]
        self._batches = _batches(self._engine, layout)
        layout = _fix_layout(layout, batch, self._batches, path)
        super().__init__(path, layout, num_values)
        self._chunk = min(self._chunk, self._batches[1])
        self._cuda = Cuda()
        weakref.finalize(self, self._cuda.close)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise StageError(f"{path}: {self._said('no context could be made')}", hint="the GPU may be out of memory")
        self._bound_batch = 0
        self._shape_for(layout.batch or self._batches[1])
        self._allocate()
        self._graph_asked = cuda_graph
        self._graph: ctypes.c_void_p | None = None
        self._graph_batch = 0
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the engine's order."""
        return tuple(one.name for one in self._found)

    @property
    def providers(self) -> tuple[str, ...]:
        """The GPU."""
        gpu = this_gpu()
        return (gpu.name if gpu is not None else "GPU",)

    @property
    def nodes_by_provider(self) -> dict[str, int]:
        """All layers run on the GPU, but for those that the facts count for a deep learning accelerator."""
        return {self.providers[0]: int(self._engine.num_layers)}

    @property
    def copies(self) -> bool:
        """`run_batch` copies images to the GPU and scores back."""
        return True

    @property
    def cuda_graph(self) -> bool:
        """`run_batch` replays a captured CUDA graph."""
        return self._graph_asked

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers depend on: layers by type, sparse kernels, layers that left the accelerator."""
        if self.facts is None:
            return ()
        kinds = ", ".join(f"{number} in {kind}" for kind, number in self.facts.layers_by_type.items())
        notes = [f"layers: {kinds} ({self.facts.layers_source})"] if kinds else []
        if self.facts.sparse is not None:
            notes.append(f"{self.facts.sparse.picked} of {self.facts.sparse.eligible} eligible layers skip zeros")
        if self.facts.dla_fallbacks:
            notes.append(f"{len(self.facts.dla_fallbacks)} layers left the deep learning accelerator for the GPU")
        return tuple(notes)

    def insist(self) -> None:
        """An engine runs on the GPU or not at all, so there is nothing to insist on."""

    def run_batch(self, feed: NDArray[Any]) -> list[Any]:
        """Copy in, run, copy out, wait: all outputs in host memory.

        Raises:
            BadInputError: the batch is none that the engine takes.
            StageError: TensorRT fails.
        """
        self._check_feed(feed)
        self._shape_for(len(feed))
        _fill(self._input.host, feed)
        self._copy_in(feed.nbytes)
        self._enqueue()
        for one in self._found:
            self._cuda.copy_out(ctypes.addressof(one.host), one.device, one.num_bytes)
        self._cuda.wait()
        return [_read(one) for one in self._found]

    def enqueue_ms(self) -> float:
        """Time on the GPU of one run on the images that `run_batch` was last given, copies left out: CUDA events."""
        start, end = self._marks()
        self._cuda.record(start)
        self._enqueue()
        self._cuda.record(end)
        return self._cuda.elapsed_ms(start, end)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._context = None
        self._cuda.close()

    def _marks(self) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        if not hasattr(self, "_events"):
            self._events = (self._cuda.event(), self._cuda.event())
        return self._events

    def _check_feed(self, feed: NDArray[Any]) -> None:
        least, most = self._batches
        if feed.ndim != 4 or str(feed.dtype) != self._input.dtype or feed.shape[1:] != self._input.shape[1:]:
            raise BadInputError(
                f"{self.path} takes {self._input.dtype} {self._input.shape}, found {feed.dtype} {feed.shape}",
                hint="give images of that shape, as float32 arrays (N, C, H, W)",
            )
        if not least <= len(feed) <= most:
            raise BadInputError(
                f"{self.path} takes batches of {least} to {most}, found {len(feed)}",
                hint="build the engine for this batch (edgerecover engine build --batch-range)",
            )

    def _shape_for(self, batch: int) -> None:
        """Tell TensorRT the batch, and learn the shapes of the outputs."""
        if batch == self._bound_batch:
            return
        self._input.now = (batch, *self._input.shape[1:])
        if not self._context.set_input_shape(self._input.name, self._input.now):
            raise StageError(
                f"{self.path}: {self._said(f'images of shape {self._input.now} were not taken')}",
                hint="build the engine on this machine again with `edgerecover engine build`",
            )
        for one in self._found:
            one.now = tuple(self._context.get_tensor_shape(one.name))
            if any(side < 0 for side in one.now):
                raise BadInputError(
                    f"{self.path}: the shape of {one.name} depends on what the images show",
                    hint="export the network so that its outputs have a fixed shape",
                )
        self._bound_batch = batch

    def _allocate(self) -> None:
        """For the shapes of the moment, which are the largest."""
        for one in (self._input, *self._found):
            one.device = self._cuda.allocate(one.num_bytes)
            one.host = self._cuda.allocate_host(one.num_bytes)
            if not self._context.set_tensor_address(one.name, one.device):
                raise StageError(
                    f"{self.path}: {self._said(f'no memory could be bound to {one.name}')}",
                    hint="build the engine on this machine again with `edgerecover engine build`",
                )

    def _copy_in(self, num_bytes: int) -> None:
        self._cuda.copy_in(self._input.device, ctypes.addressof(self._input.host), num_bytes)

    def _enqueue(self) -> None:
        if not self._graph_asked:
            self._execute()
            return
        if self._graph is None or self._graph_batch != self._bound_batch:
            self._execute()  # what is done once only, such as loading kernels, must not be captured
            self._cuda.wait()
            self._cuda.begin_capture()
            try:
                self._execute()
            finally:
                self._graph = self._cuda.end_capture()
            self._graph_batch = self._bound_batch
        self._cuda.replay(self._graph)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise StageError(
                f"{self.path}: {self._said('the engine did not run')}",
                hint="build the engine on this machine again with `edgerecover engine build`",
            )

    def _said(self, otherwise: str) -> str:
        return f"{WORDS[self.runtime]} {self.version}: {first_of(self._log.errors, otherwise)}"


def open_engine(
    path: Path,
    runtime: str,
    *,
    shape_CHW: tuple[int, int, int] | None = None,
    num_values: NumValues | None = None,
    batch: int | None = None,
    cuda_graph: bool = False,
    host_code_allowed: bool = False,
) -> TensorRTSession:
    """Open a built engine on the first GPU.

    Args:
        path: the engine. Facts beside it are checked before TensorRT sees the file.
        runtime: "tensorrt" or "tensorrt-rtx".
        shape_CHW: of the images it will be given.
        num_values: numbers for each image, which tell the scores from other outputs.
        batch: images per call of an engine whose batch is open; None leaves it open.
        cuda_graph: capture a run once and replay it.
        host_code_allowed: a version-compatible engine holds code that TensorRT then runs: only for one whose origin is
            trusted.

    Raises:
        BadInputError: the file is missing, no engine, another version's or GPU's, or no such classifier.
        MissingError: the runtime, the CUDA driver or a GPU is not here.
        StageError: TensorRT fails on a good engine.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: no such file", hint="check the path")
    import_tensorrt(runtime)
    check_driver()
    facts = read_facts(path)
    if facts is not None:
        _check_facts(path, facts, runtime, host_code_allowed)
    return TensorRTSession(path, runtime, facts, shape_CHW, num_values, batch, cuda_graph, host_code_allowed)


def _check_facts(path: Path, facts: EngineFacts, runtime: str, host_code_allowed: bool) -> None:
    if facts.key.runtime != runtime:
        raise BadInputError(
            f"{path}: is an engine of {facts.key.runtime}, and {runtime} was asked for",
            hint="build it again for that runtime with `edgerecover engine build`",
        )
    check_runs_here(path, facts)
    if facts.recipe.version_compatible and not host_code_allowed:
        raise BadInputError(
            f"{path}: is version-compatible, so it holds code that TensorRT would run",
            hint="build it without that, or allow it from Python: open_engine(…, host_code_allowed=True)",
        )


def _deserialize(module: ModuleType, path: Path, runtime: str, log: Log, host_code_allowed: bool) -> Any:
    try:
        size_bytes = path.stat().st_size
        if not 0 < size_bytes <= MAX_ENGINE_BYTES:
            raise BadInputError(
                f"{path}: is {size_bytes} bytes, which is no engine",
                hint="build it again with `edgerecover engine build`",
            )
        plan = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    reader = module.Runtime(logger_into(module, log))
    if host_code_allowed and hasattr(reader, "engine_host_code_allowed"):
        reader.engine_host_code_allowed = True
    try:
        engine = reader.deserialize_cuda_engine(plan)
    except Exception as error:  # pybind11 turns what C++ throws into RuntimeError, MemoryError and others
        log.add("ERROR", one_line(str(error)))
        engine = None
    if engine is None:
        reason = first_of(log.errors, "it gives no reason")
        raise BadInputError(
            f"{path}: {WORDS[runtime]} {version_of(module)} cannot open it: {reason}",
            hint="it is damaged, or was built by another version or for another GPU: build it again here",
        )
    return engine


def _is_input(module: ModuleType, engine: Any, name: str) -> bool:
    return bool(engine.get_tensor_mode(name) == module.TensorIOMode.INPUT)


def _tensor(module: ModuleType, engine: Any, index: int, path: Path) -> _Tensor:
    name = engine.get_tensor_name(index)
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise BadInputError(
            f"{path}: {name} is {kind.lower()}, which host memory has no type for", hint="export it with float outputs"
        )
    return _Tensor(name, _DTYPES[kind], tuple(engine.get_tensor_shape(name)))


def _find_input(tensor: _Tensor) -> FoundInput:
    sides = tuple(None if side < 0 else side for side in tensor.shape)
    dtype = tensor.dtype if tensor.dtype in _FLOATING else None
    return FoundInput(tensor.name, dtype, sides, f"{tensor.name} {tensor.dtype} {tensor.shape}")


def _batches(engine: Any, layout: InputLayout) -> tuple[int, int]:
    """Smallest and largest batch that the first optimisation profile takes."""
    if layout.batch is not None:
        return layout.batch, layout.batch
    least, _, most = engine.get_tensor_profile_shape(layout.name, 0)
    channels, height, width = layout.shape
    fitting = max(1, MAX_BATCH_ELEMENTS // (channels * height * width))
    return int(least[0]), min(int(most[0]), max(int(least[0]), fitting))


def _fix_layout(layout: InputLayout, batch: int | None, batches: tuple[int, int], path: Path) -> InputLayout:
    if batch is None or batch == layout.batch:
        return layout
    if layout.batch is not None or not batches[0] <= batch <= batches[1]:
        raise BadInputError(
            f"{path} takes batches of {batches[0]} to {batches[1]}, and {batch} was asked for",
            hint="build the engine for this batch (edgerecover engine build --batch-range)",
        )
    return replace(layout, batch=batch)


def _fill(memory: Any, feed: NDArray[Any]) -> None:
    import numpy as np

    np.frombuffer(memory, feed.dtype, feed.size).reshape(feed.shape)[...] = feed


def _read(tensor: _Tensor) -> NDArray[Any]:
    """A copy: the next run writes over the memory."""
    import numpy as np

    memory: NDArray[Any] = np.frombuffer(tensor.host, tensor.dtype, prod(tensor.now))
    return memory.reshape(tensor.now).copy()
