"""The runner's stages in order: verify, ready the engine, golden check, latency, gates."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover import __version__
from edgerecover.artifacts import ENGINE_RUNTIMES, DeviceResult, Gate, Precision, StageTime, Tried
from edgerecover.bundle.carry import open_as_folder
from edgerecover.bundle.verify import signature_words
from edgerecover.errors import BadInputError, EdgeRecoverError
from edgerecover.progress import SILENT, Progress
from edgerecover.runner.answers import answers_of, check
from edgerecover.runner.contents import GOLDEN_INPUTS, MNN_FILE, MODEL, Contents, ModelFile, read_contents
from edgerecover.runner.engines import Engine, engine_of
from edgerecover.runtime.machine.host import differences, this_host
from edgerecover.runtime.machine.mnn_module import MNN
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.surfaces import device_surfaces_of
from edgerecover.validation.fastest import fastest
from edgerecover.validation.gates import golden_gate, settle

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Trusted


@dataclass(frozen=True)
class Options:
    """What a user asks of the runner."""

    runtime: str | None = None
    """None: the target's where this machine is the target, else onnxruntime."""
    providers: tuple[str, ...] = ()
    """Empty: the target's where this machine is the target, else the CPU."""
    num_threads: int | None = None
    """None leaves it to the runtime."""
    cache: Path | None = None
    """Where built engines are kept; None: the user's cache folder."""
    cores: tuple[int, ...] = ()
    """Processor cores to stay on; empty leaves it to the system."""
    trusted: Trusted | None = None
    """Who must have signed the bundle; None: nobody."""
    build_only: bool = False
    """Stop when the engines are ready."""


@dataclass(frozen=True)
class _Entry:
    """A model in a runtime, and how it came out so far."""

    model: ModelFile
    runtime: str
    providers: tuple[str, ...]
    file: Path
    """What the runtime opens: the ONNX file, or the engine built from it."""
    tried: Tried
    failure: EdgeRecoverError | None = None
    """Why it does not run."""

    def fail(self, error: EdgeRecoverError) -> _Entry:
        return replace(self, failure=error, tried=replace(self.tried, error=error.message, hint=error.hint))


def run_bundle(bundle: Path, options: Options, progress: Progress = SILENT) -> DeviceResult:
    """Verify a bundle and find out what it is worth on this machine.

    A failed check or gate is in the result, not an exception.

    Raises:
        BadInputError: it is no bundle, or none of its models can be run.
        MissingError: the runtime that it needs is not here.
        VerificationError: it is not what its manifest lists.
    """
    times: list[StageTime] = []
    with ExitStack() as open_until_done:
        with _time_stage("verify", times):
            verified, folder = open_until_done.enter_context(open_as_folder(bundle, options.trusted))
            contents = read_contents(verified, folder)
        progress.note(
            f"verified: {bundle.resolve().name}, manifest sha256 {contents.manifest_sha256[:16]}…, "
            + signature_words(contents.signed, contents.signer)
        )
        return _run(contents, options, progress, times)


def _run(contents: Contents, options: Options, progress: Progress, times: list[StageTime]) -> DeviceResult:
    host = this_host()
    differs = differences(contents.task.machine, host)
    entries = _entries(contents, options)
    if any(entry.runtime in ENGINE_RUNTIMES for entry in entries):
        with _time_stage("engine", times):
            entries = [_with_engine(entry, contents, options, progress) for entry in entries]
        _require_one(entries)
    if not options.build_only:
        with _time_stage("golden check", times):
            entries = [_check_answers(entry, contents, options, progress) for entry in entries]
        _require_one(entries)
        with _time_stage("latency", times):
            entries = _race_entries(entries, contents, options, progress)
        _require_one(entries)
    tried = tuple(entry.tried for entry in entries)
    winner = winner_of(tried)
    return DeviceResult(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=contents.path.resolve().name,
        manifest_sha256=contents.manifest_sha256,
        target=contents.task.target,
        host=host,
        host_is_target=not differs,
        python=platform.python_version(),
        tried=tried,
        fastest=winner,
        gates=_gates(contents, tried, winner),
        stages=tuple(times),
        warnings=tuple(_warnings(contents, tried, winner, differs)),
        signature=signature_words(contents.signed, contents.signer),
    )


@contextmanager
def _time_stage(stage: str, times: list[StageTime]) -> Iterator[None]:
    started_s = time.perf_counter()
    yield
    times.append(StageTime(stage, time.perf_counter() - started_s))


def _require_one(entries: Sequence[_Entry]) -> None:
    """Where nothing runs there is no result, but the first reason why."""
    failures = [entry.failure for entry in entries if entry.failure is not None]
    if len(failures) == len(entries):
        raise failures[0]


# --- what there is to try -----------------------------------------------------------------------------------


def _entries(contents: Contents, options: Options) -> list[_Entry]:
    """Every model in every runtime that this machine races it in; MNN is given float32 alone.

    Raises:
        BadInputError: there is none.
    """
    entries = []
    for surface in device_surfaces_of(contents.task.deployment, options.runtime):
        for model in contents.models:
            path = model.path
            if surface.runtime == MNN:
                if model.precision is not Precision.FP32:
                    continue
                path = MNN_FILE if contents.has_mnn else path
            tried = Tried(path, model.precision, surface.runtime)
            providers = options.providers or surface.providers
            entries.append(_Entry(model, surface.runtime, providers, contents.folder / path, tried))
    if not entries:
        raise BadInputError(
            f"{contents.path}: it holds no float32 file, and MNN is given no other",
            hint="leave out --runtime, or pack the bundle with --precision fp32",
        )
    return entries


def _with_engine(entry: _Entry, contents: Contents, options: Options, progress: Progress) -> _Entry:
    if entry.runtime not in ENGINE_RUNTIMES:
        return entry
    try:
        engine: Engine = engine_of(contents, entry.model, entry.runtime, options.cache, progress)
    except EdgeRecoverError as error:
        return entry.fail(error)
    return replace(entry, file=engine.file, tried=replace(entry.tried, engine=engine.facts))


# --- what comes of it ---------------------------------------------------------------------------------------


def _check_answers(entry: _Entry, contents: Contents, options: Options, progress: Progress) -> _Entry:
    """Its answers to the golden images."""
    if entry.failure is not None:
        return entry
    progress.note(f"golden check: {entry.tried.path} in {entry.runtime}")
    try:
        answers_ND = answers_of(
            entry.file,
            contents.folder / GOLDEN_INPUTS,
            entry.runtime,
            entry.providers,
            contents.measure.output.num_values_in_file,
            options.num_threads,
        )
    except EdgeRecoverError as error:
        return entry.fail(error)
    golden = check(
        answers_ND, contents.outputs, contents.teacher, contents.measure, entry.model.precision,
        contents.task.precision,
    )  # fmt: skip
    return replace(entry, tried=replace(entry.tried, golden=golden))


def _race_entries(entries: Sequence[_Entry], contents: Contents, options: Options, progress: Progress) -> list[_Entry]:
    """The latencies of those that answer as they should, measured in turns."""
    task = contents.task
    entrants = {
        index: Entrant(
            f"{entry.tried.path}, {entry.runtime}", entry.file, entry.runtime, entry.providers, options.num_threads
        )
        for index, entry in enumerate(entries)
        if entry.tried.golden is not None and entry.tried.golden.passed
    }
    if not entrants:
        return list(entries)
    progress.note(f"latency: {'; '.join(entrant.name for entrant in entrants.values())}")
    raced = race(
        list(entrants.values()),
        contents.folder / GOLDEN_INPUTS,
        Timing(task.num_warmup, task.min_queries, task.min_duration_s),
        target=task.machine,
        cores=options.cores,
        strict=True,
        progress=progress,
    )
    done = list(entries)
    for index, one in zip(entrants, raced, strict=True):
        try:
            latency = one.latency_or_error()
        except EdgeRecoverError as error:
            done[index] = done[index].fail(error)
        else:
            done[index] = replace(done[index], tried=replace(done[index].tried, latency=latency))
    return done


def winner_of(tried: Sequence[Tried]) -> int | None:
    """Index of the one to deploy, by the rule that the desk ships by; None where nothing was timed."""
    ran = [(index, one.precision, one.latency) for index, one in enumerate(tried) if one.latency is not None]
    place = fastest([(precision, latency) for _, precision, latency in ran])
    return None if place is None else ran[place][0]


def _gates(contents: Contents, tried: Sequence[Tried], winner: int | None) -> tuple[Gate, ...]:
    """Judged by the winner; where nothing answers as it should, only that is judged."""
    if winner is not None:
        best = tried[winner]
        assert best.latency is not None, "the winner was timed"
        assert best.golden is not None, "and checked before"
        return settle(contents.gates, contents.limits, best.latency, best.golden)
    wrong = [one.golden for one in tried if one.golden is not None and not one.golden.passed]
    return (*contents.gates, *(golden_gate(golden) for golden in wrong[:1]))


def _warnings(contents: Contents, tried: Sequence[Tried], winner: int | None, differs: Sequence[str]) -> Iterator[str]:
    if differs:
        yield f"this machine is not {contents.task.target}: {'; '.join(differs)}"
    for one in tried:
        if one.golden is not None and not one.golden.passed:
            yield f"{one.path} in {one.runtime} does not answer as the bundle says, and was not timed"
        elif one.error:
            yield f"{one.path} in {one.runtime}: {one.error}{f' ({one.hint})' if one.hint else ''}"
    if winner is not None and (tried[winner].path, tried[winner].runtime) != (MODEL, tried[0].runtime):
        advice = "" if differs else ": deploy that"
        yield f"{tried[winner].path} in {tried[winner].runtime} wins the race here{advice}"
