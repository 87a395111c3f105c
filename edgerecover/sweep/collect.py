"""Comparing a sweep's points: their bundles are verified and read, and all their files raced together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from edgerecover import __version__
from edgerecover.artifacts import PointFound, Report, Sweep, to_json
from edgerecover.bundle.verify import read_report
from edgerecover.config import Profile, Target
from edgerecover.errors import EXIT_BAD_INPUT, BadInputError, StageError
from edgerecover.files import replace_file
from edgerecover.progress import SILENT, Progress
from edgerecover.report.sweep import html, markdown
from edgerecover.report.sweep_picture import front_svg
from edgerecover.runner.contents import MNN_FILE, MODEL
from edgerecover.runtime.machine.mnn_module import MNN
from edgerecover.runtime.measure.race import Entrant, race
from edgerecover.runtime.surfaces import surfaces_of
from edgerecover.stages.race import timing_of
from edgerecover.sweep.front import with_front
from edgerecover.sweep.make import Outcome, finished, read_outcome
from edgerecover.sweep.plan import read_plan
from edgerecover.tasks.measure import words_of

RESULT = "sweep.json"


def collect(folder: Path, progress: Progress = SILENT) -> Sweep:
    """Read all finished bundles of a sweep, race their files, and write the results into its folder.

    The files are sweep.json, sweep.md, sweep.html and front.svg.

    Raises:
        BadInputError: the folder is not a sweep's, or cannot be written to.
        EdgeRecoverError: no point has a bundle; this is the first point's error.
    """
    plan = read_plan(folder)
    found, reports = [], {}
    for point, key in zip(plan.points, plan.keys, strict=True):
        if bundle := finished(folder, point.name, key):
            reports[point.name] = read_report(bundle)
            found.append(PointFound(point, f"{point.name}.bundle"))
        else:
            found.append(_describe_failure(PointFound(point, ""), read_outcome(folder, point.name), key))
    if not reports:
        first = found[0]
        error = BadInputError if first.exit_code == EXIT_BAD_INPUT else StageError
        raise error(f"no point of {folder} has a bundle; the first: {first.error}", hint=first.hint)
    by_accuracy = all(report.accuracy for report in reports.values())
    found = [_with_report(one, reports[one.point.name], by_accuracy) if one.bundle else one for one in found]
    report = next(iter(reports.values()))
    words = words_of(report.task)
    sweep = Sweep(
        edgerecover_version=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=plan.model,
        target=plan.target,
        measure=words.truth if by_accuracy else words.name,
        measured_on=_measured_on(report, by_accuracy),
        synthetic=plan.synthetic,
        found=with_front(_race(folder, found, reports, plan.seed, progress)),
        task=report.task,
    )
    _write(folder, sweep)
    return sweep


def _describe_failure(found: PointFound, outcome: Outcome | None, key: str) -> PointFound:
    if outcome is None or outcome.key != key or not outcome.error:
        return replace(
            found,
            error="not made yet",
            hint="the same `edgerecover sweep` again makes what is missing",
            exit_code=EXIT_BAD_INPUT,
        )
    return replace(found, error=outcome.error, hint=outcome.hint, exit_code=outcome.exit_code)


def _with_report(found: PointFound, report: Report, by_accuracy: bool) -> PointFound:
    accuracy = report.accuracy
    shipped = report.variant
    return replace(
        found,
        quality=accuracy.exported if by_accuracy and accuracy else report.fidelity.exported,
        verdict=report.verdict,
        precision=shipped.precision if shipped else None,
        size_bytes=report.exported.size_bytes,
        compressed_bytes=report.exported.compressed_bytes,
    )


def _measured_on(report: Report, by_accuracy: bool) -> str:
    if by_accuracy and report.accuracy:
        return f"{report.accuracy.num_images:,} real images: {report.accuracy.source}"
    return f"{report.fidelity.exported.total:,} held-out {report.synthetic.source}"


def _race(
    folder: Path, found: Sequence[PointFound], reports: dict[str, Report], seed: int, progress: Progress
) -> list[PointFound]:
    """Race all files together, each on the runtime that its own race chose, on the same images."""
    made = [one for one in found if one.bundle]
    target, profile = _configuration(folder / made[0].bundle)
    providers = {surface.runtime: surface.providers for surface in surfaces_of(target.deployment)}
    entrants = []
    for one in made:
        held = reports[one.point.name].race
        runtime = held.shipped.runtime if held and held.shipped.runtime in providers else next(iter(providers))
        file = folder / one.bundle / (MNN_FILE if runtime == MNN else MODEL)
        entrants.append(Entrant(one.point.name, file, runtime, providers[runtime]))
    raced = race(
        entrants,
        folder / made[0].bundle / "golden" / "inputs.npy",
        timing_of(profile.latency),
        target=target.needs,
        strict=True,
        seed=seed,
        progress=progress,
    )
    latencies = {one.name: one for one in raced}
    for entrant in raced:
        if entrant.latency is None:
            progress.note(f"point {entrant.name} was not timed: {entrant.error}")
    return [
        replace(one, latency=latencies[one.point.name].latency, error=latencies[one.point.name].error)
        if one.bundle
        else one
        for one in found
    ]


def _configuration(bundle: Path) -> tuple[Target, Profile]:
    """What the bundle was made for, and how latency is measured."""
    path = bundle / "config.json"
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
        return Target.model_validate(configuration["target"]), Profile.model_validate(configuration["profile"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path}: cannot be used", hint="was the bundle made by another version?") from error


def _write(folder: Path, sweep: Sweep) -> None:
    picture = front_svg(sweep)
    files = {
        RESULT: json.dumps(to_json(sweep), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "sweep.md": markdown(sweep, "front.svg"),
        "sweep.html": html(sweep, picture),
        "front.svg": picture,
    }
    try:
        for name, text in files.items():
            replace_file(folder / name, text.encode())
    except OSError as error:
        raise BadInputError(f"{folder}: {error.strerror or error}", hint="make room there") from error
