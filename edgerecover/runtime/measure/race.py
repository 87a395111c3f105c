"""Latencies that compare: every entrant in its own process, their turns interleaved in short rounds.

Measured one after the other, whoever comes second meets a warmer machine, a busier neighbour, a lower clock. In
interleaved rounds all meet the same, and what a round did to all of them cancels out of their ratio. A race of one is
how a plain latency is measured.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgerecover.artifacts import Conditions, Energy, Fingerprint, Host, Latency, TargetMachine
from edgerecover.artifacts.machine import ANY_MACHINE
from edgerecover.artifacts.race import Raced
from edgerecover.errors import BadInputError, EdgeRecoverError
from edgerecover.progress import SILENT, Progress, Task
from edgerecover.runtime.machine.fingerprint import fingerprint
from edgerecover.runtime.machine.fresh import Conversation
from edgerecover.runtime.machine.host import is_target, this_host
from edgerecover.runtime.machine.nvml import open_nvml
from edgerecover.runtime.measure.conditions import Watch
from edgerecover.runtime.measure.energy import Meter, meter_here
from edgerecover.runtime.measure.timing import LEAST_QUERIES, MAX_WARMUP_S, BlockSize, Timing, block_size
from edgerecover.runtime.session.providers import CPU

NUM_ROUNDS = 30
"""Blocks that an interval is drawn from."""
OPEN_TIMEOUT_S = 900.0
"""A runtime that builds an engine on the way may take minutes."""
_SLOWEST_QUERY_S = 300.0
"""Beyond it an entrant hangs."""


@dataclass(frozen=True)
class Entrant:
    """One file as one runtime runs it."""

    name: str
    model: Path
    runtime: str = "onnxruntime"
    providers: tuple[str, ...] = (CPU,)
    num_threads: int | None = None
    """None leaves it to the runtime."""
    batch: int | None = None
    """Images per query, where the file leaves that open; None: one."""
    worker: str = "edgerecover.runtime.measure.worker"
    """Module that opens the file and answers; a benchmark has its own for what is no runtime of a device."""


def race(
    entrants: Sequence[Entrant],
    golden_inputs: Path | None,
    timing: Timing,
    *,
    target: TargetMachine = ANY_MACHINE,
    shape_CHW: tuple[int, int, int] | None = None,
    cores: Sequence[int] = (),
    strict: bool = False,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Raced, ...]:
    """Measure all entrants on this machine, their turns interleaved.

    Args:
        entrants: each with a different name.
        golden_inputs: .npy of float32 images (N, C, H, W), of which the first batch is the query; None: noise.
        shape_CHW: of one image, where there are no golden ones and a file leaves it open.
        timing: of each entrant.
        target: what a machine must be to be the target; decides `host_is_target`.
        cores: hold every entrant on these; empty leaves it to the system.
        strict: an entrant whose first provider runs nothing is an error, not a measurement of another provider.
        seed: of the order in each round.
        progress: where to report.

    Returns:
        One for each entrant, in their order. An entrant that is missing its runtime, crashes or hangs has an error.

    Raises:
        BadInputError: two entrants have one name, or there is none.
    """
    names = [entrant.name for entrant in entrants]
    if not names or len(set(names)) != len(names):
        raise BadInputError(
            f"each file in a race needs a different name, found {', '.join(names) or 'none'}",
            hint="rename one of them",
        )
    num_rounds = max(1, min(NUM_ROUNDS, timing.min_queries))
    with ExitStack() as ends:
        runners = [_Runner(entrant) for entrant in entrants]
        total = len(runners) * (num_rounds + 1)
        task = ends.enter_context(progress.task("latency", total, "blocks"))
        for runner in runners:
            with runner.blame():
                runner.open(ends, golden_inputs, shape_CHW, cores, strict)
        for runner in _running(runners):
            with runner.blame():
                runner.warm_up(timing)
            task.advance()
        nvml = open_nvml() if any(_uses_gpu(runner.entrant) for runner in _running(runners)) else None
        watch = Watch(cores=cores, nvml=nvml)
        _run_rounds(runners, timing, num_rounds, seed, watch, meter_here(nvml=nvml), task)
        conditions = watch.conditions()
        for runner in _running(runners):
            with runner.blame():
                runner.finish()
        host = this_host()
        on_target = is_target(target, host)
        marks = fingerprint(host, {runner.entrant.runtime: runner.version for runner in _running(runners)}, nvml=nvml)
        return tuple(runner.result(host, on_target, tuple(cores), conditions, marks) for runner in runners)


def turns(num_entrants: int, num_rounds: int, seed: int) -> Iterator[tuple[int, ...]]:
    """The order in each round: shuffled, and each entrant as often in each place (a Latin square, row by row)."""
    shuffled = random.Random(seed)
    left: list[tuple[int, ...]] = []
    for _ in range(num_rounds):
        if not left:
            order = list(range(num_entrants))
            shuffled.shuffle(order)
            left = [tuple(order[shift:] + order[:shift]) for shift in range(num_entrants)]
            shuffled.shuffle(left)
        yield left.pop()


def _run_rounds(
    runners: Sequence[_Runner],
    timing: Timing,
    num_rounds: int,
    seed: int,
    watch: Watch,
    meter: Meter | None,
    task: Task,
) -> None:
    size = block_size(timing, num_rounds)
    watch.read()
    for order in turns(len(runners), num_rounds, seed):
        for number in order:
            runner = runners[number]
            if not runner.is_running or runner.is_done(timing):
                task.advance()
                continue
            with runner.blame():
                watch.ours(runner.time_block(size, meter))
            task.advance()
        watch.read()


class _Runner:
    """An entrant under way."""

    def __init__(self, entrant: Entrant) -> None:
        self.entrant = entrant
        self._error: EdgeRecoverError | None = None
        self._opened: dict[str, Any] = {}
        self._warmed: dict[str, Any] = {}
        self._finished: dict[str, Any] = {}
        self._rounds_ms: list[list[float]] = []
        self._busy_s = 0.0
        self._energy_mj = 0.0
        self._num_queries_metered = 0
        self._energy_source = ""

    @property
    def is_running(self) -> bool:
        return self._error is None

    @property
    def version(self) -> str:
        return str(self._opened["version"])

    @contextmanager
    def blame(self) -> Iterator[None]:
        """What goes wrong inside is this entrant's end, not the race's."""
        try:
            yield
        except EdgeRecoverError as error:
            self._error = error
            self._talk.close() if hasattr(self, "_talk") else None

    def open(
        self,
        ends: ExitStack,
        golden_inputs: Path | None,
        shape_CHW: tuple[int, int, int] | None,
        cores: Sequence[int],
        strict: bool,
    ) -> None:
        entrant = self.entrant
        self._talk = ends.enter_context(Conversation(entrant.worker, what=f"the latency measurement of {entrant.name}"))
        self._opened = self._talk.ask(
            "open",
            OPEN_TIMEOUT_S,
            model=str(entrant.model.absolute()),
            runtime=entrant.runtime,
            providers=list(entrant.providers),
            # onnxruntime starts a thread for every core of the machine, held on few of them or not.
            num_threads=entrant.num_threads or len(cores) or None,
            batch=entrant.batch,
            golden_inputs=str(golden_inputs.absolute()) if golden_inputs else None,
            shape_CHW=shape_CHW,
            cores=list(cores),
            strict=strict,
        )

    def warm_up(self, timing: Timing) -> None:
        self._warmed = self._talk.ask("warm up", MAX_WARMUP_S + LEAST_QUERIES * _SLOWEST_QUERY_S, **asdict(timing))

    def time_block(self, size: BlockSize, meter: Meter | None) -> float:
        """One turn; seconds of processor time that it took."""
        if meter is not None:
            meter.start()
        timeout_s = size.max_duration_s + size.min_duration_s + 4 * _SLOWEST_QUERY_S
        answer = self._talk.ask("time a block", timeout_s, **asdict(size))
        if meter is not None:
            self._energy_mj += meter.stop_mj()
            self._num_queries_metered += len(answer["times_ms"])
            self._energy_source = meter.source
        self._rounds_ms.append([float(value) for value in answer["times_ms"]])
        self._busy_s += float(answer["busy_s"])
        return float(answer["cpu_s"])

    def is_done(self, timing: Timing) -> bool:
        """It has had its time already: a slow network does not get all rounds."""
        num_queries = sum(map(len, self._rounds_ms))
        return self._busy_s >= timing.max_duration_s and num_queries >= LEAST_QUERIES

    def finish(self) -> None:
        self._finished = self._talk.ask("finish", OPEN_TIMEOUT_S)

    def result(
        self,
        host: Host,
        on_target: bool,
        cores: tuple[int, ...],
        conditions: Conditions,
        marks: Fingerprint,
    ) -> Raced:
        if self._error is not None:
            error = self._error
            return Raced(self.entrant.name, None, error.message, error.hint, error.exit_code)
        opened, finished = self._opened, self._finished
        inside = "images in and scores out in host memory"
        if opened["copies"]:
            inside += ", copied to the device and back"
        latency = Latency(
            scope=f"one {self.entrant.runtime} call, {inside}",
            runtime=f"{self.entrant.runtime} {opened['version']}",
            provider=finished["provider"],
            nodes_by_provider=finished["nodes_by_provider"],
            num_threads=opened["num_threads"],
            batch=opened["batch"],
            host=host,
            host_is_target=on_target,
            warmup_ms=tuple(self._warmed["times_ms"]),
            samples_ms=tuple(value for part in self._rounds_ms for value in part),
            load_ms=opened["load_ms"],
            memory_before_bytes=opened["memory_before_bytes"],
            memory_peak_bytes=finished["memory_peak_bytes"],
            round_sizes=tuple(map(len, self._rounds_ms)),
            settled=self._warmed["settled"],
            cores=cores,
            copies=opened["copies"],
            cuda_graph=opened["cuda_graph"],
            notes=tuple(finished["notes"]),
            conditions=conditions,
            fingerprint=marks,
            energy=self._energy(),
        )
        return Raced(self.entrant.name, latency)

    def _energy(self) -> Energy | None:
        if not self._num_queries_metered or self._energy_mj <= 0:
            return None
        return Energy(self._energy_mj / self._num_queries_metered, self._energy_source, self._num_queries_metered)


def _uses_gpu(entrant: Entrant) -> bool:
    """Whether an NVIDIA GPU is at work: then its clocks and its energy are what counts."""
    names = " ".join((entrant.runtime, *entrant.providers[:1])).casefold()
    return any(word in names for word in ("cuda", "tensorrt"))


def _running(runners: Sequence[_Runner]) -> list[_Runner]:
    return [runner for runner in runners if runner.is_running]
