"""Making a sweep's points: each is a run with its own bundle, and all use the first one's images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgerecover.artifacts import from_json, to_json
from edgerecover.bundle.verify import Verified, verify_bundle
from edgerecover.errors import EdgeRecoverError
from edgerecover.files import replace_file
from edgerecover.progress import SILENT, Progress
from edgerecover.sweep.plan import PlannedPoint


@dataclass(frozen=True)
class Outcome:
    """How making a point ended; written to a file beside its bundle."""

    key: str
    manifest_sha256: str
    """Digest of its bundle; "" if there is none."""
    error: str = ""
    hint: str = ""
    exit_code: int = 0


def make_points(planned: Sequence[PlannedPoint], progress: Progress = SILENT) -> None:
    """Make all missing points, one after the other; one that fails does not stop the others.

    An error is kept as the point's outcome.
    """
    for number in range(len(planned)):
        try:
            make_point(planned, number, progress)
        except EdgeRecoverError as error:
            progress.note(f"point {planned[number].point.name} failed: {error.message}")


def make_point(planned: Sequence[PlannedPoint], number: int, progress: Progress = SILENT) -> None:
    """Make one point, unless it is finished.

    Raises:
        EdgeRecoverError: it could not be made; the error is also kept as its outcome.
    """
    from edgerecover.commands.run import run

    one = planned[number]
    folder = one.request.out.parent
    where = f"point {number + 1} of {len(planned)}: {one.point.pruning}, profile {one.point.profile}"
    if finished(folder, one.point.name, one.key):
        progress.note(f"{where}: finished earlier")
        return
    progress.note(where)
    _take_images(planned[0].request.work, one.request.work)
    try:
        run(one.request, progress)
    except EdgeRecoverError as error:
        _write_outcome(folder, one.point.name, Outcome(one.key, "", error.message, error.hint, error.exit_code))
        raise
    _write_outcome(folder, one.point.name, Outcome(one.key, verify_bundle(one.request.out).manifest_sha256))


def finished(folder: Path, name: str, key: str) -> Verified | None:
    """A point's verified bundle, if it exists and was made with this configuration; else None."""
    outcome = read_outcome(folder, name)
    if outcome is None or outcome.key != key:
        return None
    try:
        bundle = verify_bundle(folder / f"{name}.bundle")
    except EdgeRecoverError:
        return None
    return bundle if bundle.manifest_sha256 == outcome.manifest_sha256 else None


def read_outcome(folder: Path, name: str) -> Outcome | None:
    """How making a point ended; None if there is no record."""
    try:
        return from_json(Outcome, json.loads(_outcome_path(folder, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def _write_outcome(folder: Path, name: str, outcome: Outcome) -> None:
    replace_file(_outcome_path(folder, name), (json.dumps(to_json(outcome), indent=1) + "\n").encode())


def _outcome_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.outcome.json"


def _take_images(first: Path, work: Path) -> None:
    """Give a point the finished images of the first one, as hard links if the file system has them.

    Each point has its own run folder, because tasks of a scheduler run at the same time. Files in it are replaced,
    never changed, so a file that one point makes again is not seen by the others.
    """
    if first == work:
        return
    for source in sorted(first.glob("dreams-*/*")):
        taken = work / source.parent.name / source.name
        if source.name.startswith(".") or not source.is_file() or taken.exists():
            continue
        taken.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, taken)
        except OSError:
            replace_file(taken, source)
