"""The little of CUDA that running an engine needs, through ctypes on the driver's own library.

The driver comes with its library under one name and with one interface (CUDA Driver API, sections 6.2 to 6.24 of its
reference), while the runtime library changes its name with every major version and may not be installed: so nothing but
the driver is asked for. TensorRT works in the device's primary context, which is therefore the one retained here.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from edgerecover.artifacts.machine import Gpu
from edgerecover.errors import EXIT_MISSING, BadInputError, EdgeRecoverError, MissingError

_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_OUT_OF_MEMORY = 2
_CAPTURE_THREAD_LOCAL = 1
_STREAM_NON_BLOCKING = 1

NO_DRIVER_HINT = (
    "run it on a machine with an NVIDIA GPU and its driver; in a container, start that with GPU access "
    "(docker run --gpus all)"
)


class CudaError(EdgeRecoverError):
    """A call of the driver failed: an out-of-memory is the model's size, all else the device's state."""

    exit_code = EXIT_MISSING


@lru_cache(maxsize=1)
def this_gpu() -> Gpu | None:
    """The first GPU that the driver shows; None without a driver or a GPU."""
    try:
        driver = _driver()
        count = ctypes.c_int()
        _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
        if not count.value:
            return None
        device = ctypes.c_int()
        _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
        name = ctypes.create_string_buffer(256)
        _check(driver, "cuDeviceGetName", driver.cuDeviceGetName(name, len(name), device))
        major, minor = (_attribute(driver, device, a) for a in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR))
    except (MissingError, CudaError):
        return None
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}")


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    _check(driver, "cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
    return value.value


@lru_cache(maxsize=1)
def _driver() -> ctypes.CDLL:
    """The driver's library, initialised.

    Raises:
        MissingError: there is none, or it shows no device.
    """
    for name in _LIBRARIES:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        if status := driver.cuInit(0):
            raise MissingError(
                f"the CUDA driver is installed but does not start: {_words(driver, status)}", hint=NO_DRIVER_HINT
            )
        return driver
    raise MissingError(f"no CUDA driver found ({_LIBRARIES[0]} was not found)", hint=NO_DRIVER_HINT)


def _words(driver: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    return text.value.decode(errors="replace") if text.value else f"error {status}"


def _check(driver: ctypes.CDLL, call: str, status: int) -> None:
    if status == _OUT_OF_MEMORY:
        raise BadInputError("the GPU is out of memory", hint="stop other programs on the GPU, or use a smaller batch")
    if status:
        raise CudaError(f"the CUDA driver failed in {call}: {_words(driver, status)}", hint="restart the process")


class Cuda:
    """The first GPU, with one stream. `close` gives back what was taken."""

    def __init__(self) -> None:
        self._driver = _driver()
        self._device = ctypes.c_int()
        self._do("cuDeviceGet", ctypes.byref(self._device), 0)
        context = ctypes.c_void_p()
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._do("cuCtxSetCurrent", context)
        stream = ctypes.c_void_p()
        self._do("cuStreamCreate", ctypes.byref(stream), _STREAM_NON_BLOCKING)
        self._stream = stream
        self._device_memory: list[ctypes.c_uint64] = []
        self._host_memory: list[ctypes.c_void_p] = []
        self._events: list[ctypes.c_void_p] = []
        self._graphs: list[ctypes.c_void_p] = []

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        return self._stream.value or 0

    def _do(self, call: str, *arguments: object) -> None:
        _check(self._driver, call, getattr(self._driver, call)(*arguments))

    def allocate(self, num_bytes: int) -> int:
        """Memory of the device; its address."""
        address = ctypes.c_uint64()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, num_bytes)))
        self._device_memory.append(address)
        return address.value

    def allocate_host(self, num_bytes: int) -> ctypes.Array[ctypes.c_char]:
        """Page-locked memory of the host, which copies to and from the device fastest."""
        address = ctypes.c_void_p()
        size = max(1, num_bytes)
        self._do("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), 0)
        self._host_memory.append(address)
        return (ctypes.c_char * size).from_address(address.value or 0)

    def copy_in(self, device: int, host: int, num_bytes: int) -> None:
        """From host to device, in the stream."""
        self._do(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(device),
            ctypes.c_void_p(host),
            ctypes.c_size_t(num_bytes),
            self._stream,
        )

    def copy_out(self, host: int, device: int, num_bytes: int) -> None:
        """From device to host, in the stream."""
        self._do(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(host),
            ctypes.c_uint64(device),
            ctypes.c_size_t(num_bytes),
            self._stream,
        )

    def wait(self) -> None:
        """Until everything in the stream is done."""
        self._do("cuStreamSynchronize", self._stream)

    def event(self) -> ctypes.c_void_p:
        """A mark for the stream that remembers when it was reached."""
        event = ctypes.c_void_p()
        self._do("cuEventCreate", ctypes.byref(event), 0)
        self._events.append(event)
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """Put a mark into the stream."""
        self._do("cuEventRecord", event, self._stream)

    def elapsed_ms(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """Time on the device between two marks that were reached."""
        self._do("cuEventSynchronize", end)
        elapsed_ms = ctypes.c_float()
        self._do("cuEventElapsedTime", ctypes.byref(elapsed_ms), start, end)
        return elapsed_ms.value

    def begin_capture(self) -> None:
        """From now on the stream remembers work instead of doing it."""
        self._do("cuStreamBeginCapture_v2", self._stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self) -> ctypes.c_void_p:
        """What the stream has remembered, ready to be replayed."""
        graph = ctypes.c_void_p()
        self._do("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        executable = ctypes.c_void_p()
        # cuGraphInstantiate changed its parameters in CUDA 12; this one is the same since 11.4.
        self._do("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_uint64(0))
        self._do("cuGraphDestroy", graph)
        self._graphs.append(executable)
        return executable

    def replay(self, graph: ctypes.c_void_p) -> None:
        """Put captured work into the stream, in one call."""
        self._do("cuGraphLaunch", graph, self._stream)

    def close(self) -> None:
        """Give back memory, marks, graphs, the stream and the context. A second call does nothing."""
        if self._driver is None or not self._stream.value:
            return
        self._driver.cuStreamSynchronize(self._stream)
        _each(self._driver.cuGraphExecDestroy, self._graphs)
        _each(self._driver.cuEventDestroy_v2, self._events)
        _each(self._driver.cuMemFreeHost, self._host_memory)
        _each(self._driver.cuMemFree_v2, self._device_memory)
        self._driver.cuStreamDestroy_v2(self._stream)
        self._stream = ctypes.c_void_p()
        self._driver.cuDevicePrimaryCtxRelease_v2(self._device)


def _each(release: Callable[[Any], object], handles: list[ctypes.c_void_p] | list[ctypes.c_uint64]) -> None:
    for handle in handles:
        release(handle)
    handles.clear()


def check_driver() -> None:
    """Raise where an engine could not run for want of a driver or a GPU.

    Raises:
        MissingError: there is no CUDA driver, it does not start, or it shows no GPU.
    """
    _driver()
    if this_gpu() is None:
        raise MissingError("the CUDA driver finds no GPU", hint=NO_DRIVER_HINT)


def covers(built_for: Sequence[str], compute_capability: str) -> bool:
    """Whether an engine of TensorRT-RTX built for `built_for` runs on a GPU; none given means Ampere and later."""
    if built_for:
        return compute_capability in built_for
    return _as_numbers(compute_capability) >= (8, 0)


def _as_numbers(compute_capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in compute_capability.split(".") if part.isdigit())
