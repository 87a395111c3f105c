"""A classifier opened in MNN, from MNN's own kind of file or from the ONNX file that one is made of.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import NumValues
from edgerecover.errors import BadInputError, MissingError
from edgerecover.runtime.engine.mnn_file import SUFFIX, convert
from edgerecover.runtime.machine.host import num_cores
from edgerecover.runtime.machine.mnn_module import MNN, import_mnn
from edgerecover.runtime.machine.silence import silence
from edgerecover.runtime.machine.tensorrt_module import one_line
from edgerecover.runtime.session.opened import Classifier, FoundInput, InputLayout, only_input
from edgerecover.runtime.session.providers import CPU

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEVICE_CPU = "CPU"
_MOST_THREADS = 4
"""What MNN takes when it is not told (ScheduleConfig::numThread), whatever the processor has."""
_DAMAGED = "the file may be damaged, or be made for a newer MNN"


class MNNSession(Classifier):
    """One .mnn file, ready to run on the CPU in float32. Made by `open_mnn`."""

    runtime = MNN
    cuda_graph = False
    copies = False
    providers = (DEVICE_CPU,)

    def __init__(
        self,
        path: Path,
        name: Path,
        providers: Sequence[str],
        num_threads: int | None,
        shape_CHW: tuple[int, int, int] | None,
        num_values: NumValues | None,
        batch: int | None,
    ) -> None:
        self._mnn = import_mnn()
        self.version: str = str(self._mnn.version())
        self.num_threads = num_threads or _usual_threads()
        self._asked = tuple(providers)
        started_ns = time.perf_counter_ns()
        self._module = self._load(path, name)
        self.load_ms = (time.perf_counter_ns() - started_ns) / 1e6
        facts = self._module.get_info()
        inputs = [_find_input(*pair) for pair in zip(facts["inputNames"], facts["inputs"], strict=True)]
        layout = only_input(name, inputs, shape_CHW)
        super().__init__(name, _fix_batch(layout, batch), num_values)
        self._outputs = tuple(facts["outputNames"])
        self._feed: Any = None
        self._file = path

    def _load(self, path: Path, name: Path) -> Any:
        """Load the file with all its inputs and outputs, which it names itself."""
        expr, nn = self._mnn._expr, self._mnn._nn
        try:
            with silence():
                config = {"backend": "CPU", "precision": "high", "numThread": self.num_threads}
                manager = nn.create_runtime_manager((config,))
                module = nn.load_module_from_file(
                    manager, [], [], str(path), 0, 1, 0, expr.Backend.CPU, expr.MemoryMode.Normal,
                    expr.PowerMode.Normal, expr.PrecisionMode.High, self.num_threads,
                )  # fmt: skip
        except Exception as error:  # it sets an exception and returns a value: Python then raises SystemError
            raise BadInputError(f"{name}: MNN cannot open it: {one_line(str(error))}", hint=_DAMAGED) from error
        self._manager = manager  # lives as long as the module
        return module

    def insist(self) -> None:
        """MNN runs on the CPU alone here.

        Raises:
            MissingError: another device was asked for first.
        """
        if self._asked and self._asked[0] not in (CPU, DEVICE_CPU):
            raise MissingError(
                f"MNN was asked for {self._asked[0]} and runs {self.path.name} on the CPU",
                hint=f"name {CPU}, or another runtime",
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""
        return self._outputs

    @property
    def notes(self) -> tuple[str, ...]:
        """In which arithmetic it computes."""
        return ("floating point in float32 (precision: high)",)

    @cached_property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many operators one run computes; all of them on the CPU."""
        return {DEVICE_CPU: _count_operators(self._mnn, self._file, self.layout)}

    def run_batch(self, feed: NDArray[Any]) -> list[Any]:
        """One call of the runtime on what `feed` gave: all outputs; N is the file's batch size when that is static.

        Raises:
            BadInputError: the runtime fails on it.
        """
        if self._feed is None or tuple(self._feed.shape) != feed.shape:
            expr = self._mnn._expr  # NCHW: in the order of the file, whatever that means by its axes
            self._feed = expr.placeholder(list(feed.shape), expr.NCHW, expr.float)
            with silence():  # of new sizes that do not fit it complains on stdout
                return self._run(feed)
        return self._run(feed)

    def _run(self, feed: NDArray[Any]) -> list[Any]:
        import numpy as np

        try:
            self._feed.write(feed)
            answers = self._module.onForward([self._feed])
            # What `read` gives lies in MNN's memory, which the next call overwrites.
            # One number of one image it gives without an axis.
            outputs = [np.atleast_1d(np.array(_plain(one, self._mnn._expr).read())) for one in answers]
        except Exception as error:  # its errors share no base but Exception
            raise _cannot_run(self.path, one_line(str(error))) from error
        if len(outputs) != len(self._outputs):
            raise _cannot_run(self.path, f"it gives nothing for {feed.shape}")
        return outputs


def _cannot_run(path: Path, reason: str) -> BadInputError:
    return BadInputError(f"{path}: MNN opens it, but cannot run it: {reason}", hint=_DAMAGED)


def open_mnn(
    path: Path,
    providers: Sequence[str],
    *,
    num_threads: int | None = None,
    strict: bool = False,
    shape_CHW: tuple[int, int, int] | None = None,
    num_values: NumValues | None = None,
    batch: int | None = None,
    exact_int8: bool = False,
) -> MNNSession:
    """Open a float32 classifier in MNN on the CPU.

    Args:
        path: a .mnn file of ours, or an ONNX file, which is converted first (`mnn_file.convert`), its zeros taken as
            standing anywhere. One input, (N, C, H, W) or (N, H, W, C), N static or open.
        providers: only the CPU is used, by either name.
        num_threads: None: one for each core, at most four.
        strict: refuse to go on when another device is asked for first.
        shape_CHW: of the images it will be given: settles sides that the file leaves open, and which axis is which.
        num_values: numbers for each image, which tell the scores from other outputs.
        batch: size to fix an open batch at; None leaves it open.
        exact_int8: means nothing here: only float32 files are opened.

    Raises:
        BadInputError: the file is missing, broken, or not such a classifier.
        MissingError: MNN is not installed, or `strict`, and another device is asked for.
    """
    import_mnn()
    if not path.is_file():
        raise BadInputError(f"{path}: no such file", hint="check the path")
    if path.suffix == SUFFIX:
        session = MNNSession(path, path, providers, num_threads, shape_CHW, num_values, batch)
    else:
        with ExitStack() as ends:
            own = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="edgerecover-"))) / f"{path.stem}{SUFFIX}"
            convert(path, own)
            session = MNNSession(own, path, providers, num_threads, shape_CHW, num_values, batch)
            weakref.finalize(session, ends.pop_all().close)  # the file is there for as long as the session
    if strict:
        session.insist()
    return session


def _usual_threads() -> int:
    return min(_MOST_THREADS, num_cores())


def _find_input(name: str, one: Any) -> FoundInput:
    sides = [side if side > 0 else None for side in one.shape]
    if sides[:1] == [1]:  # it says so of an open batch too, and runs any number of images in either case
        sides[0] = None
    kind = str(one.dtype).rpartition(".")[2]
    told = ", ".join("?" if side is None else str(side) for side in sides)
    return FoundInput(name, "float32" if kind == "float" else None, tuple(sides), f"{name} {kind} ({told})")


def _fix_batch(layout: InputLayout, batch: int | None) -> InputLayout:
    return InputLayout(layout.name, layout.dtype, layout.batch or batch, layout.shape, layout.channels_last)


def _plain(one: Any, expr: Any) -> Any:
    """In the order that the file says: MNN keeps four channels together inside."""
    return expr.convert(one, expr.NCHW) if one.data_format == expr.NC4HW4 else one


def _count_operators(mnn: Any, path: Path, layout: InputLayout) -> int:
    """Operators that one run of the file computes. For its session, MNN imports its own package, without the tools."""
    channels, height, width = layout.shape
    sides = (height, width, channels) if layout.channels_last else layout.shape
    ran: list[str] = []

    def note(tensors: Any, operator: Any) -> bool:
        ran.append(str(operator.getName()))
        return True

    with silence():
        network = mnn.Interpreter(str(path))
        session = network.createSession({"numThread": 1, "precision": "high"})
        network.resizeTensor(network.getSessionInput(session), (layout.batch or 1, *sides))
        network.resizeSession(session)
        network.runSessionWithCallBackInfo(session, note, lambda *_: True)
    return len(ran)
