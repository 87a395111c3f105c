"""The runner's stages in order: verify, ready the engine, golden check, latency, gates."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from edgerecover import __version__
from edgerecover.artifacts import DeviceResult, Gate, StageTime, Tried
from edgerecover.errors import EdgeRecoverError
from edgerecover.runner.answers import answers_of, check
from edgerecover.runner.contents import GOLDEN_INPUTS, MODEL, Contents, ModelFile, read_contents
from edgerecover.runtime.host import differences, this_host
from edgerecover.runtime.measure import measure_in_subprocess
from edgerecover.runtime.session import CPU
from edgerecover.validate.gates import golden_gate, settle

Say = Callable[[str], None]
"""Called with one line about what is being done."""


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


@dataclass(frozen=True)
class _Entry:
    """A file in a runtime: what is raced."""

    model: ModelFile
    runtime: str
    providers: tuple[str, ...]


def run_bundle(bundle: Path, options: Options, say: Say) -> DeviceResult:
    """Verify a bundle and find out what it is worth on this machine.

    A failed check or gate is in the result, not an exception.

    Raises:
        BadInputError: it is no bundle, or none of its models can be run.
        MissingError: the runtime that it needs is not here.
        VerificationError: it is not what its manifest lists.
    """
    times: list[StageTime] = []
    with _timed("verify", times):
        contents = read_contents(bundle)
    say(f"verified: {bundle.name}, manifest sha256 {contents.manifest_sha256[:16]}…")
    host = this_host()
    differs = differences(contents.task.machine, host)
    entries = _entries(contents, options, is_target=not differs)
    with _timed("golden check", times):
        tried = _checked(contents, entries, options, say)
    with _timed("latency", times):
        tried = _measured(contents, entries, tried, options, say)
    fastest = _fastest(tried)
    return DeviceResult(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=bundle.resolve().name,
        manifest_sha256=contents.manifest_sha256,
        target=contents.task.target,
        host=host,
        host_is_target=not differs,
        python=platform.python_version(),
        tried=tried,
        fastest=fastest,
        gates=_gates(contents, tried, fastest),
        stages=tuple(times),
        warnings=tuple(_warnings(contents, tried, fastest, differs)),
    )


@contextmanager
def _timed(stage: str, times: list[StageTime]) -> Iterator[None]:
    started_s = time.perf_counter()
    yield
    times.append(StageTime(stage, time.perf_counter() - started_s))


def _entries(contents: Contents, options: Options, *, is_target: bool) -> tuple[_Entry, ...]:
    """Every model in the asked runtime; without one, in all that the target names.

    A machine that is not the target cannot be expected to have its runtime: there, the CPU answers.
    """
    task = contents.task
    if options.runtime is not None:
        runtimes: tuple[str, ...] = (options.runtime,)
    else:
        runtimes = (task.runtime, *task.also_runtimes) if is_target else ("onnxruntime",)
    providers = options.providers or (task.providers if is_target else (CPU,))
    return tuple(_Entry(model, runtime, providers) for runtime in runtimes for model in contents.models)


def _checked(contents: Contents, entries: Sequence[_Entry], options: Options, say: Say) -> tuple[Tried, ...]:
    """Each entry's answers to the golden images; one that does not run is noted, unless none does."""
    tried, failures = [], []
    for entry in entries:
        say(f"golden check: {entry.model.path} in {entry.runtime}")
        one = Tried(entry.model.path, entry.model.precision, entry.runtime)
        try:
            answers_NK = answers_of(
                contents.folder / entry.model.path,
                contents.folder / GOLDEN_INPUTS,
                entry.runtime,
                entry.providers,
                contents.outputs.shape[1],
                options.num_threads,
            )
        except EdgeRecoverError as error:
            failures.append(error)
            tried.append(replace(one, error=error.message, hint=error.hint))
            continue
        golden = check(answers_NK, contents.outputs, contents.teacher, entry.model.precision, contents.task.precision)
        tried.append(replace(one, golden=golden))
    if len(failures) == len(entries):
        raise failures[0]
    return tuple(tried)


def _measured(
    contents: Contents, entries: Sequence[_Entry], tried: Sequence[Tried], options: Options, say: Say
) -> tuple[Tried, ...]:
    """The latency of those that answer as they should; an error where none of them can be timed."""
    done, failures = [], []
    for entry, one in zip(entries, tried, strict=True):
        if one.golden is not None and one.golden.passed:
            say(f"latency: {entry.model.path} in {entry.runtime}")
            try:
                latency = measure_in_subprocess(
                    contents.folder / entry.model.path,
                    contents.folder / GOLDEN_INPUTS,
                    entry.providers,
                    num_warmup=contents.task.num_warmup,
                    min_queries=contents.task.min_queries,
                    min_duration_s=contents.task.min_duration_s,
                    num_threads=options.num_threads,
                    target=contents.task.machine,
                )
                one = replace(one, latency=latency)
            except EdgeRecoverError as error:
                failures.append(error)
                one = replace(one, error=error.message, hint=error.hint)
        done.append(one)
    if failures and not any(one.latency for one in done):
        raise failures[0]
    return tuple(done)


def _fastest(tried: Sequence[Tried]) -> int | None:
    medians_ms = {i: one.latency.percentile_ms(50) for i, one in enumerate(tried) if one.latency is not None}
    return min(medians_ms, key=lambda index: medians_ms[index]) if medians_ms else None


def _gates(contents: Contents, tried: Sequence[Tried], fastest: int | None) -> tuple[Gate, ...]:
    """Settled by the fastest; where nothing answers as it should, only that is said anew."""
    if fastest is not None:
        best = tried[fastest]
        assert best.latency is not None, "the fastest was timed"
        assert best.golden is not None, "and checked before"
        return settle(contents.gates, contents.limits, best.latency, best.golden)
    checked = [one.golden for one in tried if one.golden is not None]
    return (*contents.gates, golden_gate(next((golden for golden in checked if not golden.passed), checked[0])))


def _warnings(contents: Contents, tried: Sequence[Tried], fastest: int | None, differs: Sequence[str]) -> Iterator[str]:
    if differs:
        yield f"this machine is not {contents.task.target}: {'; '.join(differs)}"
    for one in tried:
        if one.golden is not None and not one.golden.passed:
            yield f"{one.path} in {one.runtime} does not answer as the bundle says, and was not timed"
        elif one.error:
            yield f"{one.path} in {one.runtime}: {one.error}{f' ({one.hint})' if one.hint else ''}"
    if fastest is not None and tried[fastest].path != MODEL:
        yield f"{tried[fastest].path} is faster here than {MODEL}: deploy that one"
