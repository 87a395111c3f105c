"""The gate's way: verify, judge by the limits, measure here, compare with the baseline, keep the first numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover import __version__
from edgerecover.artifacts import Baseline, Gate, GateResult, GateStatus, Latency, Release, verdict_of
from edgerecover.bundle.archive import SUFFIX as ARCHIVE_SUFFIX
from edgerecover.bundle.carry import copy_bundle
from edgerecover.bundle.verify import signature_words
from edgerecover.config import LimitsFile, Profile
from edgerecover.errors import BadInputError
from edgerecover.gate.baseline import baseline_of, read_baseline, write_baseline
from edgerecover.gate.duel import MAX_RACES, MIN_QUERIES, SECONDS
from edgerecover.gate.here import Here, beside_numbers, measure, runs_like
from edgerecover.gate.machine import Measure
from edgerecover.gate.opening import Opened, open_bundle
from edgerecover.progress import SILENT, Progress
from edgerecover.validation.gates import golden_gate, judge_again, settle
from edgerecover.validation.limits import Limits
from edgerecover.validation.regressions import (
    LATENCY,
    MEMORY,
    latency_gate,
    memory_gate,
    quality_gates,
    skipped,
)

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Trusted


@dataclass(frozen=True)
class GateRequest:
    """What a user asks; the command line's flags, resolved."""

    bundle: Path
    baseline: Path | None = None
    """Another bundle, or a .json file of its numbers."""
    profile: Profile | None = None
    """A profile whose limits replace the bundle's."""
    limits: tuple[LimitsFile, str] | None = None
    """Limits that replace those of bundle and profile, and the file that they are from."""
    flags: Mapping[str, float] = field(default_factory=dict)
    """Single limits that replace all others, by name."""
    measure: bool = True
    """False: nothing is run here; latencies are the report's."""
    seconds: float = SECONDS
    """Minimum seconds per model in each race."""
    queries: int = MIN_QUERIES
    """Minimum queries per model in each race."""
    max_races: int = MAX_RACES
    cores: tuple[int, ...] = ()
    init: bool = False
    """There may be no baseline yet: this release becomes it, if no gate fails."""
    update: bool = False
    """Make this release the baseline, if no gate fails."""
    seed: int = 0
    trusted: Trusted | None = None
    """Who must have signed the bundles; None: nobody."""


@dataclass(frozen=True)
class _Before:
    """What this bundle is compared with; None where there is nothing."""

    place: Path | None = None
    """Where the baseline is, whether or not it exists."""
    bundle: Opened | None = None
    """The baseline, where it is a bundle."""
    numbers: Baseline | None = None
    """The baseline, where it is a file of numbers."""

    @property
    def release(self) -> Release | None:
        if self.bundle is not None:
            return self.bundle.release
        return self.numbers.release if self.numbers is not None else None


def gate(request: GateRequest, progress: Progress = SILENT) -> GateResult:
    """Judge a bundle, alone or against the previous release. A gate that fails is in the result, not an exception.

    Raises:
        BadInputError: no bundle, no baseline, or one of another target.
        MissingError: what the measurement needs is not here.
        VerificationError: a bundle is not what its manifest lists.
    """
    started_s = time.perf_counter()
    with ExitStack() as open_until_done:
        now = _verify(request.bundle, request, open_until_done, progress)
        before = _before(request, open_until_done, progress)
        return _judge(now, before, request, progress, started_s)


def _judge(now: Opened, before: _Before, request: GateRequest, progress: Progress, started_s: float) -> GateResult:
    _require_same_target(now, before, request)
    limits = limits_for(now.limits, request)
    here = _measure(now, before, limits, request, progress) if request.measure else _take_from_report(now, before)
    gates = _absolute(now, here, limits)
    if request.baseline is not None:
        gates += quality_gates(limits, now.release, before.release) + _of_machine(limits, here)
    written, notes = _keep(now, before, here.latency, gates, request)
    return GateResult(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        release=now.release,
        baseline=before.release,
        gates=gates,
        latency=here.latency if request.measure else None,
        comparison=here.comparison,
        written=written,
        notes=notes,
        seconds=time.perf_counter() - started_s,
    )


def limits_for(own: Limits, request: GateRequest) -> Limits:
    """The bundle's limits, then a profile's, then a file's, then single ones: the later takes the earlier's place."""
    limits = own
    if request.profile is not None:
        limits = limits.changed(request.profile.gates.model_dump(), f"profile {request.profile.name}")
    if request.limits is not None:
        file, name = request.limits
        limits = limits.changed(file.model_dump(exclude_none=True), f"limits {name}")
    for name, value in request.flags.items():
        limits = limits.changed({name: value}, f"--{name.replace('_', '-')}")
    return limits


# --- what it is compared with -------------------------------------------------------------------------------


def _verify(path: Path, request: GateRequest, ends: ExitStack, progress: Progress) -> Opened:
    opened = ends.enter_context(open_bundle(path, request.trusted))
    release, verified = opened.release, opened.verified
    said = signature_words(verified.signed, verified.signer)
    progress.note(f"verified: {release.bundle}, manifest sha256 {release.manifest_sha256[:16]}…, {said}")
    return opened


def _before(request: GateRequest, ends: ExitStack, progress: Progress) -> _Before:
    place = request.baseline
    if place is None:
        if request.update or request.init:
            flag = "--update-baseline" if request.update else "--init-baseline"
            raise BadInputError(f"{flag} needs --baseline", hint="name the bundle or .json file to write")
        return _Before()
    is_there = place.exists() or place.is_symlink()
    if not is_there and not request.init:
        raise BadInputError(
            f"--baseline {place}: does not exist",
            hint="is its name right? If there is no previous release, --init-baseline makes this one the baseline",
        )
    if place.is_dir() or (is_there and place.suffix == ARCHIVE_SUFFIX):
        if request.update and not place.is_dir():
            raise BadInputError(
                f"--update-baseline does not write archives, and {place} is one",
                hint="unpack it (`edgerecover bundle unpack`), and name the folder",
            )
        return _Before(place, bundle=_verify(place, request, ends, progress))
    if place.suffix == ".json":
        return _Before(place, numbers=read_baseline(place) if is_there else None)
    if is_there or place.suffix != ".bundle":
        raise BadInputError(
            f"{place} {'is no bundle' if is_there else 'does not exist'}",
            hint="a baseline is a bundle, or a .json file of its numbers: NAME.bundle or NAME.json",
        )
    return _Before(place)


def _require_same_target(now: Opened, before: _Before, request: GateRequest) -> None:
    earlier = before.release
    if earlier is not None and earlier.target != now.release.target:
        raise BadInputError(
            f"{request.baseline} is a baseline for target {ascii(earlier.target)[:80]}, and {request.bundle} was made "
            f"for {ascii(now.release.target)[:80]}",
            hint="keep a baseline for each target",
        )


# --- what this machine says ---------------------------------------------------------------------------------


def _measure(now: Opened, before: _Before, limits: Limits, request: GateRequest, progress: Progress) -> Here:
    return measure(
        now,
        before.bundle or before.numbers,
        limits,
        Measure(request.seconds, request.queries, request.cores),
        request.max_races,
        request.seed,
        progress,
    )


def _take_from_report(now: Opened, before: _Before) -> Here:
    """Nothing is run: the latency is what was measured when the bundle was packed."""
    if before.bundle is not None:
        return beside_numbers(None, now.report.latency, (before.bundle.report.latency,))
    return beside_numbers(None, now.report.latency, before.numbers.runs if before.numbers is not None else None)


def _absolute(now: Opened, here: Here, limits: Limits) -> tuple[Gate, ...]:
    """The report's gates by these limits, judged again where this machine can settle them."""
    gates = judge_again(limits, now.report)
    if here.golden is None:
        return gates
    is_better_evidence = here.latency is not None and (
        here.latency.host_is_target or not now.report.latency.host_is_target
    )
    if here.latency is not None and is_better_evidence:
        return settle(gates, limits, here.latency, here.golden)
    return (*(gate for gate in gates if gate.name != "golden"), golden_gate(here.golden))


def _of_machine(limits: Limits, here: Here) -> tuple[Gate, ...]:
    if here.comparison is None:
        return tuple(skipped(limits, name, here.reason) for name in (LATENCY, MEMORY))
    return latency_gate(limits, here.comparison), memory_gate(limits, here.comparison)


# --- the next run's baseline --------------------------------------------------------------------------------


def _keep(
    now: Opened, before: _Before, latency: Latency | None, gates: Sequence[Gate], request: GateRequest
) -> tuple[str | None, tuple[str, ...]]:
    """Keep this release where there was none, or when asked. Where it was kept, and what there is to say about it."""
    place = before.place
    if place is None or not _is_wanted(now.release, before, latency, request):
        return None, _advice(before, latency)
    if verdict_of(gates) is GateStatus.FAIL:
        return None, (f"{place} is not written: a gate failed, and a baseline should be a release that passes",)
    if place.suffix == ".json" and not place.is_dir():
        write_baseline(place, baseline_of(now.release, before.numbers, latency))
    else:
        copy_bundle(now.verified, place)
    return str(place), (f"{place} was written, for later runs to compare with",)


def _is_wanted(release: Release, before: _Before, latency: Latency | None, request: GateRequest) -> bool:
    """There is none yet, it was asked for, or the same model ran on a machine that its numbers do not know."""
    if request.update or before.release is None:
        return True
    return _is_new_machine(before, latency) and before.release.model_sha256 == release.model_sha256


def _is_new_machine(before: _Before, latency: Latency | None) -> bool:
    return before.numbers is not None and latency is not None and not runs_like(latency, before.numbers.runs)


def _advice(before: _Before, latency: Latency | None) -> tuple[str, ...]:
    if not _is_new_machine(before, latency):
        return ()
    return (
        f"{before.place} holds no latency of this machine: gate the baseline's own bundle here once to add it, or give "
        "that bundle as --baseline",
    )
