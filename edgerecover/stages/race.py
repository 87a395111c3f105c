"""The race stage: every variant on every runtime of the target, against the clock and beside the teacher.

The fastest that passes is shipped. A variant of lower precision must be significantly faster than one of higher: else
it would cost decisions for nothing.
"""

# Shapes: N images, K classes.

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgerecover.artifacts import (
    GateStatus,
    Latency,
    NumValues,
    Outcome,
    Precision,
    PrecisionLoss,
    Proportion,
    Race,
    RefusedVariant,
    Runner,
    Twin,
    Variant,
)
from edgerecover.artifacts.race import Raced
from edgerecover.config import LatencySettings, Profile, Target
from edgerecover.errors import BadInputError, EdgeRecoverError
from edgerecover.export.mnn import file_for
from edgerecover.files import npy_bytes
from edgerecover.progress import SILENT, Progress, Task
from edgerecover.runner.answers import TOLERANCE
from edgerecover.runtime.machine.host import is_this_machine
from edgerecover.runtime.machine.mnn_module import MNN
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.measure.timing import Timing
from edgerecover.runtime.session.opened import Opened
from edgerecover.runtime.surfaces import Surface, file_surface_of, surfaces_of
from edgerecover.stages.export import TwinFile
from edgerecover.stages.precision import Variants
from edgerecover.tasks.measure import Answers, Measure, Outputs
from edgerecover.validation.fastest import fastest
from edgerecover.validation.fidelity import proportion
from edgerecover.validation.gates import precision_status
from edgerecover.validation.parity import compare, precision_loss
from edgerecover.validation.scoring import Images, Reference, Scores, outputs_of


@dataclass(frozen=True)
class _Candidate:
    """A variant on a runtime, and what it decides there."""

    variant: Variant
    surface: Surface
    file: Path
    """What the runtime opens."""
    problem: EdgeRecoverError | None = None
    agreement: Proportion | None = None
    loss: PrecisionLoss | None = None

    @property
    def name(self) -> str:
        return f"{self.variant.precision.value}, {self.surface.runtime}"


def hold_race(
    variants: Variants,
    twins: Sequence[TwinFile],
    teacher: Reference,
    held_back: Images,
    golden_NCHW: Scores,
    target: Target,
    profile: Profile,
    unfit: Mapping[Precision, str],
    progress: Progress = SILENT,
) -> Race:
    """Run every variant on every runtime there is, the twins beside them.

    Args:
        variants: of one network; their files' paths in full.
        twins: float32 networks to compare with; the dense one first.
        teacher: decides what agreement is.
        held_back: images that nothing has touched.
        golden_NCHW: network inputs that latency is measured with.
        target: whose runtimes these are.
        profile: its gates decide what passes; its latency settings how long it takes.
        unfit: variants that the target's runtime does not take, and why; they run here, but are not shipped.
        progress: where to report.

    Raises:
        EdgeRecoverError: not even float32 runs, or MNN does not run it and is the target's runtime.
    """
    surfaces = surfaces_of(target.deployment)
    total = len(held_back) * (1 + len(surfaces) * len(variants.made))
    with progress.task("agreement", total, teacher.measure.words.answers) as task:
        answers = outputs_of(teacher.score, held_back, teacher.measure, task).answers
        candidates = list(_decided(variants.made, surfaces, answers, teacher.measure, held_back, task))
    if all(candidate.problem for candidate in candidates):
        raise next(candidate.problem for candidate in candidates if candidate.problem)
    raced = _timed(candidates, twins, surfaces, golden_NCHW, target, profile, progress)
    if not any(raced[candidate.name].latency for candidate in candidates if candidate.problem is None):
        next(iter(raced.values())).latency_or_error()
    runners = [_runner(candidate, raced.get(candidate.name)) for candidate in candidates]
    _require_own(runners, target)
    runners += [_not_made(refused, surfaces[0]) for refused in variants.refused]
    race_held = Race(
        on_target=is_this_machine(target.needs),
        runners=tuple(runners),
        twins=tuple(_twins(twins, surfaces, raced)),
        has_runner=target.runner is None or target.runner.value,
    )
    return replace(race_held, runners=tuple(placed(runners, profile, target, unfit)))


def open_runner(
    runner: Runner, variant: Variant, target: Target, shape_CHW: tuple[int, int, int], num_values: NumValues
) -> Opened:
    """The file of a runner, opened as the race judged it.

    Raises:
        EdgeRecoverError: it no longer opens.
    """
    surface = next(surface for surface in surfaces_of(target.deployment) if surface.runtime == runner.runtime)
    return surface.open(file_for(surface.runtime, Path(variant.file.path)), shape_CHW, num_values)


def _decided(
    variants: Sequence[Variant],
    surfaces: Sequence[Surface],
    teacher: Answers,
    measure: Measure,
    held_back: Images,
    task: Task,
) -> Iterator[_Candidate]:
    first: dict[Precision, Outputs] = {}
    num_values = measure.output.num_values_in_file
    for surface in surfaces:
        float32: Outputs | None = None
        for variant in variants:
            candidate = _Candidate(variant, surface, Path(variant.file.path))
            try:
                candidate = replace(candidate, file=file_for(surface.runtime, candidate.file))
                session = surface.open(candidate.file, num_values=num_values)
                found = outputs_of(session.run, held_back, measure, task)
                first_ND = first.setdefault(variant.precision, found).scores
                _require_alike(first_ND, found.scores, measure, variant, surfaces[0])
            except EdgeRecoverError as error:
                yield replace(candidate, problem=error)
                continue
            if variant.precision is Precision.FP32:
                float32 = found
            lost = None
            if variant.precision is not Precision.FP32 and float32 is not None:
                lost = precision_loss(teacher, float32.answers, found.answers, measure)
            agreeing = proportion(measure.share(found.answers, teacher))
            task.advance(0, agreement=agreeing.value)
            yield replace(candidate, agreement=agreeing, loss=lost)


def _require_alike(first_ND: Scores, scores_ND: Scores, measure: Measure, variant: Variant, first: Surface) -> None:
    """A runtime that reads a file as another network than the first runtime does must not ship it.

    Raises:
        BadInputError: it does.
    """
    found, allowed = compare(first_ND, scores_ND, measure).relative, TOLERANCE[variant.precision]
    if found > allowed:
        raise BadInputError(
            f"it reads the {variant.precision.value} file differently from {first.runtime}: scores differ by up to "
            f"{found:.2g} standard deviations, {allowed:g} are allowed",
            hint="use the file in the runtimes that agree; report it to the makers of this one",
        )


def _timed(
    candidates: Sequence[_Candidate],
    twins: Sequence[TwinFile],
    surfaces: Sequence[Surface],
    golden_NCHW: Scores,
    target: Target,
    profile: Profile,
    progress: Progress,
) -> Mapping[str, Raced]:
    ran = [candidate for candidate in candidates if candidate.problem is None]
    entrants = [Entrant(c.name, c.file, c.surface.runtime, c.surface.providers) for c in ran]
    running = [surface for surface in surfaces if any(candidate.surface == surface for candidate in ran)]
    entrants += [
        Entrant(_twin_name(twin, surface), file, surface.runtime, surface.providers)
        for surface, twin, file in _twin_files(twins, surfaces, running)
    ]
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        golden_path = Path(folder) / "golden.npy"
        golden_path.write_bytes(npy_bytes(golden_NCHW))
        raced = race(
            entrants, golden_path, timing_of(profile.latency), target=target.needs, strict=True, progress=progress
        )
    return {one.name: one for one in raced}


def _runner(candidate: _Candidate, raced: Raced | None) -> Runner:
    variant = candidate.variant
    problem = candidate.problem
    note = variant.reason
    if problem is not None:
        note = f"{problem.message}; {problem.hint}" if problem.hint else problem.message
    elif raced is not None and raced.latency is None:
        note = raced.error
    return Runner(
        precision=variant.precision,
        runtime=candidate.surface.runtime,
        outcome=Outcome.NOT_RUN,  # until it is placed
        note=note,
        size_bytes=candidate.file.stat().st_size,
        latency=raced.latency if raced else None,
        agreement=candidate.agreement,
        loss=candidate.loss,
    )


def _require_own(runners: Sequence[Runner], target: Target) -> None:
    """Where the target runs MNN, a bundle that MNN does not run would be worth nothing there.

    Raises:
        BadInputError: MNN runs no variant here.
    """
    own = [runner for runner in runners if runner.runtime == MNN == target.runtime.value]
    if own and not any(runner.latency for runner in own):
        raise BadInputError(
            f"target {target.name} runs MNN, which does not run this network here: {own[0].note}",
            hint="choose a target with another runtime",
        )


def _not_made(refused: RefusedVariant, first: Surface) -> Runner:
    outcome = Outcome.LOSES if refused.tries else Outcome.NOT_RUN
    return Runner(refused.precision, first.runtime, outcome, refused.reason)


def _twin_files(
    twins: Sequence[TwinFile], surfaces: Sequence[Surface], running: Sequence[Surface]
) -> Iterator[tuple[Surface, TwinFile, Path]]:
    """The dense network in every runtime that runs, for what zeros bring there; the others in the first alone."""
    for surface in running:
        for twin in twins if surface == surfaces[0] else [twin for twin in twins if twin.macs_kept == 1]:
            with contextlib.suppress(EdgeRecoverError):
                yield surface, twin, file_for(surface.runtime, Path(twin.exported.path))


def _twin_name(twin: TwinFile, surface: Surface) -> str:
    return f"{twin.name}, {surface.runtime}"


def _twins(twins: Sequence[TwinFile], surfaces: Sequence[Surface], raced: Mapping[str, Raced]) -> Iterator[Twin]:
    for surface, twin, file in _twin_files(twins, surfaces, surfaces):
        if (ran := raced.get(_twin_name(twin, surface))) is not None:
            size_bytes, compressed_bytes = file.stat().st_size, twin.exported.compressed_bytes or 0
            yield Twin(twin.name, twin.macs_kept, size_bytes, compressed_bytes, ran.latency, surface.runtime)


# --- who wins -----------------------------------------------------------------------------------------------


def placed(
    runners: Sequence[Runner], profile: Profile, target: Target, unfit: Mapping[Precision, str]
) -> Iterator[Runner]:
    """All of them with their outcomes: the fastest first, those that did not run last.

    Args:
        runners: as they ran, or did not.
        profile: what precision may cost.
        target: how large a file may be.
        unfit: variants that the target's runtime does not take, and why.
    """
    ran = sorted((runner for runner in runners if runner.latency), key=_median_ms)
    verdicts = {id(runner): _verdict(runner, profile, target) for runner in ran}
    passing = [r for r in ran if r.precision not in unfit and verdicts[id(r)] is GateStatus.PASS]
    in_order = [runner for runner in runners if runner in passing]
    winner = fastest([(runner.precision, runner.latency) for runner in in_order if runner.latency])
    shipped = in_order[winner] if winner is not None else next(r for r in ran if r.precision is Precision.FP32)
    for runner in ran:
        if runner is shipped:
            yield replace(runner, outcome=Outcome.SHIPPED)
        elif runner.precision in unfit:
            yield replace(runner, outcome=Outcome.REFUSED, note=unfit[runner.precision])
        elif verdicts[id(runner)] is GateStatus.INCONCLUSIVE:
            yield replace(runner, outcome=Outcome.UNDECIDED, note=_with_what_can_tell(runner, profile))
        else:
            yield replace(runner, outcome=Outcome.SLOWER if runner in passing else Outcome.LOSES)
    yield from (runner for runner in runners if not runner.latency)


def _verdict(runner: Runner, profile: Profile, target: Target) -> GateStatus:
    """What distinguishes variants: what precision costs, and the size of the file."""
    if target.max_file_mb is not None and (runner.size_bytes or 0) / 1e6 > target.max_file_mb.value:
        return GateStatus.FAIL
    if runner.loss is None:
        return GateStatus.PASS
    return precision_status(runner.loss, profile.gates.max_precision_loss_points)


def _with_what_can_tell(runner: Runner, profile: Profile) -> str:
    assert runner.loss is not None, "nothing else is undecided"
    low, high = runner.loss.interval_points()
    return (f"{runner.note}; " if runner.note else "") + (
        f"it lost {runner.loss.points:.1f} points ({low:.1f}–{high:.1f}) on {runner.loss.num_images} "
        f"images, which may be chance; {profile.gates.max_precision_loss_points:g} are allowed. More images decide: "
        f"raise synthesis.num_held_back in your own profile"
    )


def _median_ms(runner: Runner) -> float:
    assert runner.latency is not None, "only those that ran are compared"
    return runner.latency.percentile_ms(50)


# --- the clock ------------------------------------------------------------------------------------------------


def timing_of(settings: LatencySettings) -> Timing:
    """A profile's settings as the race takes them."""
    return Timing(settings.num_warmup, settings.min_queries, settings.min_duration_s)


def latency_of(
    onnx_path: Path,
    golden_NCHW: Scores,
    target: Target,
    settings: LatencySettings,
    progress: Progress = SILENT,
) -> Latency:
    """Measured in a fresh process without torch, so that memory and threads are the runtime's own."""
    surface = file_surface_of(target.deployment)
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as folder:
        golden_path = Path(folder) / "golden.npy"
        golden_path.write_bytes(npy_bytes(golden_NCHW))
        entrant = Entrant(onnx_path.name, onnx_path, surface.runtime, surface.providers)
        (raced,) = race([entrant], golden_path, timing_of(settings), target=target.needs, progress=progress)
    return raced.latency_or_error()
