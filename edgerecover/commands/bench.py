"""Latency on this machine: a file or a bundle, beside others, over runtimes, threads and batch sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover import __version__
from edgerecover.artifacts import sha256_of
from edgerecover.artifacts.bench import Bench, Lane
from edgerecover.artifacts.machine import ANY_MACHINE
from edgerecover.bundle.archive import SUFFIX
from edgerecover.bundle.verify import verify_bundle
from edgerecover.errors import BadInputError, EdgeRecoverError
from edgerecover.export.mnn import file_for
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.session.opening import RUNTIMES
from edgerecover.runtime.surfaces import file_surface_of, surface_on

if TYPE_CHECKING:
    from edgerecover.config import Target

MAX_ENTRANTS = 32
"""Processes that are open at a time, each with its copy of a network."""


@dataclass(frozen=True)
class BenchRequest:
    """What a user asks to be measured; the command line's flags, resolved."""

    model: Path
    """ONNX file, or bundle."""
    timing: Timing
    against: tuple[Path, ...] = ()
    """More of them; the first is what others are compared with."""
    runtimes: tuple[str, ...] = ()
    """None: the target's, or onnxruntime."""
    threads: tuple[int, ...] = ()
    """None: what the runtime chooses."""
    batches: tuple[int, ...] = ()
    """Of files that leave their batch open; none: their own, or one."""
    target: Target | None = None
    cores: tuple[int, ...] = ()
    shape: tuple[int, int, int] | None = None
    """C, H, W, where a file leaves it open."""
    seed: int = 0


@dataclass(frozen=True)
class _Opened:
    """A file to measure."""

    name: str
    model: Path
    golden: Path | None


def bench(request: BenchRequest, progress: Progress = SILENT) -> Bench:
    """Measure everything that was asked for, interleaved; each batch size is a race of its own.

    Raises:
        BadInputError: a path holds no ONNX file and no bundle, or there is too much to measure.
        VerificationError: a bundle is not what its manifest lists.
    """
    files = _open_all([request.model, *request.against])
    usual = file_surface_of(request.target.deployment).runtime if request.target else "onnxruntime"
    runtimes = request.runtimes or (usual,)
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise BadInputError(f"--runtime {runtime}: unknown runtime", hint=f"one of {', '.join(RUNTIMES)}")
    threads: Sequence[int | None] = request.threads or (None,)
    batches: Sequence[int | None] = request.batches or (None,)
    if len(files) * len(runtimes) * len(threads) > MAX_ENTRANTS:
        raise BadInputError(
            f"{len(files)} files × {len(runtimes)} runtimes × {len(threads)} thread counts exceed the "
            f"{MAX_ENTRANTS} processes of one race",
            hint="measure them in several commands",
        )
    reference = files[1] if request.against else files[0]
    lanes: list[Lane] = []
    for batch in batches:
        drawn = [
            (file, runtime, count, _lane_name(file, runtime, count, batch, request, len(runtimes)))
            for file in files
            for runtime in runtimes
            for count in threads
        ]
        lanes += _compared(_race(drawn, batch, request, files[0].golden, progress), reference.name)
    return Bench(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        target=request.target.name if request.target else None,
        max_p99_ms=request.target.max_p99_ms.value if request.target and request.target.max_p99_ms else None,
        lanes=tuple(lanes),
    )


_Drawn = tuple[_Opened, str, "int | None", str]
"""File, runtime, threads, and the lane's name."""


def _race(
    drawn: Sequence[_Drawn], batch: int | None, request: BenchRequest, golden: Path | None, progress: Progress
) -> list[Lane]:
    target = request.target
    deployment = target.deployment if target else None
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        entrants = []
        for number, (file, runtime, count, name) in enumerate(drawn):
            path = file.model
            with suppress(EdgeRecoverError):  # the race says it, as of every runtime that does not open a file
                path = file_for(runtime, file.model, _new_folder(Path(folder), number))
            entrants.append(Entrant(name, path, runtime, surface_on(runtime, deployment).providers, count, batch))
        raced = race(
            entrants,
            golden,
            request.timing,
            shape_CHW=request.shape,
            target=target.needs if target else ANY_MACHINE,
            cores=request.cores,
            strict=True,
            seed=request.seed,
            progress=progress,
        )
    return [
        Lane(name, file.name, sha256_of(file.model), runtime, count, batch, result)
        for (file, runtime, count, name), result in zip(drawn, raced, strict=True)
    ]


def _new_folder(folder: Path, number: int) -> Path:
    made = folder / str(number)
    made.mkdir()
    return made


def _compared(lanes: list[Lane], reference: str) -> list[Lane]:
    """Each beside the first lane of the reference file."""
    other = next(lane for lane in lanes if lane.file == reference)
    return [lane if lane is other else _beside(lane, other) for lane in lanes]


def _beside(lane: Lane, other: Lane) -> Lane:
    ours, theirs = lane.raced.latency, other.raced.latency
    slower = ours.slower_than(theirs) if ours and theirs and ours.batch == theirs.batch else None
    return replace(lane, compared_with=other.name, slower=slower)


def _lane_name(
    file: _Opened, runtime: str, threads: int | None, batch: int | None, request: BenchRequest, num_runtimes: int
) -> str:
    parts = [file.name]
    if num_runtimes > 1 or runtime != "onnxruntime":
        parts.append(runtime)
    if len(request.threads) > 1 and threads is not None:
        parts.append(f"{threads} thread" if threads == 1 else f"{threads} threads")
    if len(request.batches) > 1:
        parts.append(f"batch {batch}")
    return ", ".join(parts)


# --- opening --------------------------------------------------------------------------------------------------


def _open_all(paths: Sequence[Path]) -> list[_Opened]:
    files = [_open(path) for path in paths]
    if len({file.name for file in files}) < len(files):
        files = [replace(file, name=str(path)) for file, path in zip(files, paths, strict=True)]
    # A file raced with itself shows how much of a difference is chance.
    names = [file.name for file in files]
    seen = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [
        file if number == 1 else replace(file, name=f"{file.name} ({number})")
        for file, number in zip(files, seen, strict=True)
    ]


def _open(path: Path) -> _Opened:
    if path.is_dir():
        verify_bundle(path)
        golden = path / "golden" / "inputs.npy"
        return _Opened(path.name, path / "model.onnx", golden if golden.is_file() else None)
    if path.suffix == SUFFIX:
        raise BadInputError(f"{path} is an archive", hint="unpack it: `edgerecover bundle unpack`")
    if not path.is_file():
        raise BadInputError(f"{path} does not exist", hint="give an ONNX file, or a bundle that edgerecover wrote")
    return _Opened(path.name, path, None)
