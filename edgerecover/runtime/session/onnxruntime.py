"""An ONNX file opened in onnxruntime, and what really ran it.

A provider that was asked for may not be in this build, may fail to start, or may leave every node to the CPU:
so the nodes are counted from the trace of one profiled run, not from the request.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import NumValues
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)
from edgerecover.runtime.machine.silence import silence
from edgerecover.runtime.session.opened import Classifier, FoundInput, InputLayout, only_input
from edgerecover.runtime.session.plugins import devices_of, is_npu, is_plugin, plugin_version
from edgerecover.runtime.session.providers import COMPILING, COPYING, STATIC_ONLY, how_to_get, options_of
from edgerecover.runtime.session.providers import CPU as CPU

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

_LOG_FATAL_ONLY = 4
_EXACT_INT8 = (("session.x64quantprecision", "1"), ("session.qdq_matmulnbits_accuracy_level", "1"))
"""x86 processors without VNNI add pairs of 8-bit products in 16 bits, where they saturate, whatever the signs: signed
activations are turned unsigned first. With the first entry weights are turned unsigned, too, for kernels that widen
first (onnxruntime_session_options_config_keys.h: kOrtSessionOptionsAvx2PrecisionMode). Elsewhere it changes nothing.

A MatMul whose weight alone is int8 or int4 rounds its other input to 8 bits by default, where the file says float32
(onnxruntime 1.32: accuracy level 4 of the MatMulNBits that it becomes). With the second entry that stays float32."""


class Session(Classifier):
    """One opened ONNX file. Made by `open_session`."""

    runtime = "onnxruntime"
    cuda_graph = False

    def __init__(
        self,
        path: Path,
        asked: Sequence[str],
        num_threads: int | None,
        shape_CHW: tuple[int, int, int] | None = None,
        num_values: NumValues | None = None,
        batch: int | None = None,
        exact_int8: bool = False,
    ) -> None:
        fixed = _fixed_sizes(path, batch, shape_CHW) if STATIC_ONLY & set(asked) else {}
        threads_before = _live_threads()
        started_ns = time.perf_counter_ns()
        self._session = _start(path, asked, num_threads, fixed=fixed, exact_int8=exact_int8)
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        super().__init__(path, _only_input(self._session, path, shape_CHW), num_values)
        self.version: str = import_onnxruntime().__version__
        self.asked = tuple(asked)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.num_threads = num_threads or _count_new_threads(threads_before)
        self.notes: tuple[str, ...] = _plugin_notes(self.providers)
        self._asked_threads, self._fixed, self._exact_int8 = num_threads, fixed, exact_int8

    @cached_property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes each provider ran, most first, from one profiled run in a session of its own."""
        counts = _profile(self.path, self.asked, self._asked_threads, self.layout, self._fixed, self._exact_int8)
        return dict(counts.most_common())

    @property
    def provider(self) -> str:
        """The one that ran most nodes, or the first asked for where that runs a whole network as one node."""
        ran, first = self.nodes_by_provider, self.asked[0]
        return first if first in COMPILING and ran.get(first) else next(iter(ran))

    def insist(self) -> None:
        """The first provider that was asked for must have run something.

        Raises:
            BadInputError: no node runs at all.
            MissingError: other providers ran all there is.
        """
        ran = self.nodes_by_provider
        if not ran:
            raise BadInputError(
                f"{self.path}: it computes nothing: no node of it runs", hint="export the network again"
            )
        first = self.asked[0]
        if not ran.get(first):
            raise MissingError(
                f"{first} was requested but ran no node of {self.path.name}: "
                f"this onnxruntime has {', '.join(_available())}; "
                f"ran {', '.join(f'{number} nodes on {name}' for name, number in ran.items())}",
                hint=how_to_get(first)
                if first not in _available()
                else "its driver or libraries are missing, or it supports none of the operators; name another",
            )

    @property
    def copies(self) -> bool:
        """A provider with a memory of its own gets the images and gives the scores back within each call."""
        return bool(set(self.providers) & COPYING)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""
        return tuple(output.name for output in self._session.get_outputs())

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


def open_session(
    path: Path,
    providers: Sequence[str],
    *,
    num_threads: int | None = None,
    strict: bool = False,
    shape_CHW: tuple[int, int, int] | None = None,
    num_values: NumValues | None = None,
    batch: int | None = None,
    exact_int8: bool = False,
) -> Session:
    """Open an ONNX classifier on the first of `providers` that works, the CPU being the last resort.

    Args:
        path: a file with one input, (N, C, H, W) or (N, H, W, C), N static or open, float32, float16 or float64.
        providers: onnxruntime names, best first.
        num_threads: of one operator; None leaves it to onnxruntime.
        strict: refuse to go on when the first provider asked for runs no node.
        shape_CHW: of the images it will be given: settles sides that the file leaves open, and which axis is which.
        num_values: numbers for each image, which tell the scores from other outputs.
        batch: size of an open batch, for providers that take no open one.
        exact_int8: add up 8-bit products exactly, as the file says, on processors whose fast kernels saturate, too.

    Raises:
        BadInputError: the file is missing, broken, or not such a classifier.
        MissingError: `strict`, and the first provider is not there or ran nothing.
    """
    session = Session(path, providers, num_threads, shape_CHW, num_values, batch, exact_int8)
    if strict:
        session.insist()
    return session


def _cannot_run(path: Path, error: Exception) -> BadInputError:
    return BadInputError(
        f"{path}: onnxruntime opens it, but cannot run it: {first_line(error)}",
        hint="the file may be damaged, or made for another runtime",
    )


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
        raise MissingError(f"onnxruntime cannot be imported: {error}", hint=pip_line("install onnxruntime")) from error
    return onnxruntime


def _available() -> list[str]:
    names: list[str] = import_onnxruntime().get_available_providers()
    return names


def _start(
    path: Path,
    asked: Sequence[str],
    num_threads: int | None,
    trace_prefix: str | None = None,
    fixed: Mapping[str, int] | None = None,
    exact_int8: bool = False,
) -> onnxruntime.InferenceSession:
    runtime = import_onnxruntime()
    runtime.set_default_logger_severity(_LOG_FATAL_ONLY)
    plugins = {name: devices_of(name, runtime) for name in asked if is_plugin(name)}
    wanted = [name for name in asked if name in _available() and name != CPU]
    for names in (wanted, []) if wanted else ([],):
        options = _session_options(runtime, num_threads, trace_prefix, fixed, exact_int8)
        plugged = [name for name in names if plugins.get(name)]
        for name in plugged:
            options.add_provider_for_devices(plugins[name][:1], options_of(name, num_threads))
        # With both, onnxruntime drops the devices; with devices alone, it adds the CPU itself.
        listed = None if plugged else [*((name, options_of(name, num_threads)) for name in names), CPU]
        try:
            # onnxruntime's own fallback prints to stdout, and so does Qualcomm's library.
            with silence() if plugged else contextlib.nullcontext():
                return runtime.InferenceSession(str(path), options, providers=listed, enable_fallback=0)
        except Exception as error:  # its error classes share no base but Exception
            failure = error
            if not path.is_file():
                raise BadInputError(f"{path}: no such file", hint="check the path") from error
    raise BadInputError(
        f"{path}: onnxruntime cannot open it: {first_line(failure)}", hint=_advice(failure)
    ) from failure


def _plugin_notes(providers: Sequence[str]) -> tuple[str, ...]:
    """Which plugins take part, and which of them only emulate their device here."""
    runtime = import_onnxruntime()
    notes = []
    for name in filter(is_plugin, providers):
        said = f"{name} {plugin_version(name)}"
        if not is_npu(devices_of(name, runtime)[0]):
            said += "; it emulates the NPU on this processor: decisions are the NPU's, times are not"
        notes.append(said)
    return tuple(notes)


def _session_options(
    runtime: Any,
    num_threads: int | None,
    trace_prefix: str | None,
    fixed: Mapping[str, int] | None,
    exact_int8: bool,
) -> onnxruntime.SessionOptions:
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    if exact_int8:
        for entry in _EXACT_INT8:
            options.add_session_config_entry(*entry)
    if trace_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = trace_prefix
    for name, size in (fixed or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    return options


_KNOWN_FAILURES = (
    (
        r"[Uu]nsupported model IR version",
        "a newer ONNX wrote it: save it with a lower ir_version, or install a newer onnxruntime",
    ),
    (
        r"under development|guarantees support|opset version",
        "install a newer onnxruntime, or export with a lower opset",
    ),
    (
        r"EPContext",
        "it is compiled for an NPU: it runs there, or in the emulation of onnxruntime-qnn with QNNExecutionProvider",
    ),
    (
        r"is not a registered function/op|No Op registered|Could not find an implementation",
        "it needs an operator that onnxruntime lacks: export with standard ONNX operators",
    ),
    (
        r"[Ee]xternal data|external initializer|NoSuchFile",
        "its weights are in files beside it: put them there, under the names they had at export",
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


def first_line(error: Exception) -> str:
    """An error of a runtime as one printable line, no longer than a terminal shows."""
    text = " ".join(str(error).split())
    for pattern in _NOISE:
        text = re.sub(pattern, "", text)
    return "".join(character if character.isprintable() else "?" for character in text).strip()[:300]


_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def _only_input(
    session: onnxruntime.InferenceSession, path: Path, shape_CHW: tuple[int, int, int] | None
) -> InputLayout:
    found = [
        FoundInput(
            one.name,
            _DTYPES.get(one.type),
            tuple(one.shape),
            f"{one.name} {one.type} ({', '.join(map(str, one.shape))})",
        )
        for one in session.get_inputs()
    ]
    return only_input(path, found, shape_CHW)


def _fixed_sizes(path: Path, batch: int | None, shape_CHW: tuple[int, int, int] | None) -> dict[str, int]:
    """Sizes for the axes that a file leaves open under a name."""
    try:
        session = _start(path, [CPU], None)
    except BadInputError:  # a file compiled for a provider opens nowhere else, and leaves nothing open
        return {}
    layout = _only_input(session, path, shape_CHW)
    channels, height, width = layout.shape
    sides = (height, width, channels) if layout.channels_last else layout.shape
    named = zip(session.get_inputs()[0].shape, (layout.batch or batch or 1, *sides), strict=True)
    return {name: size for name, size in named if isinstance(name, str)}


# --- threads and nodes --------------------------------------------------------------------------------------


def _live_threads() -> int | None:
    """Threads of this process; None where the system does not list them."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return None


def _count_new_threads(before: int | None) -> int:
    """Size of the pool that onnxruntime chose: the calling thread works too. It has no call that tells."""
    now = _live_threads()
    if before is None or now is None:
        return os.cpu_count() or 1
    return max(1, now - before + 1)


def _profile(
    path: Path,
    asked: Sequence[str],
    num_threads: int | None,
    layout: InputLayout,
    fixed: Mapping[str, int],
    exact_int8: bool,
) -> Counter[str]:
    import numpy as np

    shape = (layout.shape[1], layout.shape[2], layout.shape[0]) if layout.channels_last else layout.shape
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        trace_prefix = str(Path(folder) / "trace")
        session = _start(path, asked, num_threads, trace_prefix, fixed, exact_int8)
        feed = {layout.name: np.zeros((layout.batch or 1, *shape), layout.dtype)}
        try:
            session.run(None, feed)
        except Exception as error:  # its error classes share no base but Exception
            raise _cannot_run(path, error) from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    runs = [event["args"] for event in events if event.get("cat") == "Node"]
    # Older versions write fence events beside each kernel's, without a provider.
    return Counter(args["provider"] for args in runs if args.get("provider"))
