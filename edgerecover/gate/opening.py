"""A bundle as the gate reads it: verified first, then its report and limits. Trusts no field of either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgerecover.artifacts import Release, Report, sha256_of
from edgerecover.bundle.manifest import MANIFEST_NAME
from edgerecover.bundle.verify import verify_bundle
from edgerecover.config import Profile, Target
from edgerecover.errors import BadInputError
from edgerecover.gate.sound import read_object, read_sound
from edgerecover.validate.limits import Limits, limits_of

REPORT, LIMITS, CONFIGURATION, MODEL = "report.json", "limits.json", "config.json", "model.onnx"
GOLDEN_INPUTS = "golden/inputs.npy"


@dataclass(frozen=True)
class Opened:
    """A verified bundle."""

    folder: Path
    report: Report
    limits: Limits
    release: Release


def open_bundle(path: Path) -> Opened:
    """Verify a bundle and read what was found of it.

    Raises:
        BadInputError: it is no bundle, or its report or limits cannot be read.
        VerificationError: it is not what its manifest lists.
    """
    listed = verify_bundle(path).files
    if absent := [name for name in (REPORT, MODEL) if name not in listed]:
        raise BadInputError(
            f"{path}: it holds no {absent[0]}, so there is nothing to judge",
            hint="pack it anew: `edgerecover run`, or `edgerecover validate --out`",
        )
    report = read_sound(Report, path / REPORT, "the bundle's report")
    if LIMITS in listed:
        limits = read_sound(Limits, path / LIMITS, "the bundle's limits")
    else:
        limits = _limits_of_configuration(path / CONFIGURATION)
    return Opened(path, report, limits, release_of(report, path.resolve().name, sha256_of(path / MANIFEST_NAME)))


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
    )


def _limits_of_configuration(path: Path) -> Limits:
    """Of a bundle that was packed before limits stood in a file of their own."""
    try:
        data = read_object(path)
        return limits_of(Profile.model_validate(data["profile"]), Target.model_validate(data["target"]))
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise BadInputError(
            f"{path.parent} holds no {LIMITS}, and its {CONFIGURATION} does not tell the limits either",
            hint="pack it anew with this version: `edgerecover run`",
        ) from error
