"""A bundle as the gate reads it: verified first, then its report and limits. Trusts no field of either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import Release, Report
from edgerecover.artifacts.strict_json import parse_object
from edgerecover.bundle.carry import archive_stem, open_as_folder
from edgerecover.bundle.verify import Verified
from edgerecover.config import Profile, Target
from edgerecover.errors import BadInputError
from edgerecover.gate.sound import sound
from edgerecover.validation.limits import Limits, limits_of

if TYPE_CHECKING:
    from edgerecover.bundle.signature import Trusted

REPORT, LIMITS, CONFIGURATION, MODEL = "report.json", "limits.json", "config.json", "model.onnx"


@dataclass(frozen=True)
class Opened:
    """A verified bundle."""

    verified: Verified
    folder: Path
    """Where its files lie."""
    report: Report
    limits: Limits
    release: Release


@contextmanager
def open_bundle(path: Path, trusted: Trusted | None = None) -> Iterator[Opened]:
    """Verify a bundle, folder or archive, and read what was found of it.

    Raises:
        BadInputError: it is no bundle, or its report or limits cannot be read.
        VerificationError: it is not what its manifest lists.
    """
    with open_as_folder(path, trusted) as (verified, folder):
        if absent := [name for name in (REPORT, MODEL) if name not in verified.files]:
            raise BadInputError(
                f"{path}: it holds no {absent[0]}, so there is nothing to judge",
                hint="pack it again: `edgerecover run`, or `edgerecover validate --out`",
            )
        report = sound(Report, verified.read(REPORT), path / REPORT, "the bundle's report")
        name = archive_stem(path.resolve())
        release = release_of(report, name, verified.manifest_sha256)
        yield Opened(verified, folder, report, _limits(verified), release)


def release_of(report: Report, bundle: str, manifest_sha256: str) -> Release:
    """What of a report later releases are compared with."""
    return Release(
        bundle=bundle,
        manifest_sha256=manifest_sha256,
        model_sha256=report.exported.sha256,
        created_utc=report.created_utc,
        target=report.target,
        profile=report.profile,
        teacher_sha256=report.teacher.sha256,
        images=report.synthetic.source,
        record_sha256=report.record.sha256 if report.record else None,
        agreement=report.fidelity.exported,
        decisions=report.fidelity.decisions,
        accuracy=report.accuracy,
        size_bytes=report.exported.size_bytes,
        task=report.task,
    )


def _limits(verified: Verified) -> Limits:
    """The limits of a bundle; older bundles, which have no file of limits, hold them in their configuration."""
    if LIMITS in verified.files:
        return sound(Limits, verified.read(LIMITS), verified.path / LIMITS, "the bundle's limits")
    try:
        data = parse_object(verified.read(CONFIGURATION))
        return limits_of(Profile.model_validate(data["profile"]), Target.model_validate(data["target"]))
    except (BadInputError, ValueError, KeyError, RecursionError) as error:
        raise BadInputError(
            f"{verified.path} holds no {LIMITS}, and its {CONFIGURATION} does not state the limits either",
            hint="pack it again with this version: `edgerecover run`",
        ) from error
