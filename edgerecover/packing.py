"""What a report and its bundle hold beside the numbers: no folder of this machine, and enough to make it again."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import (
    DeviceTask,
    ModelFacts,
    Outcome,
    Precision,
    Race,
    RecordFacts,
    Report,
    Variant,
    from_json,
    sha256_of,
    to_json,
)
from edgerecover.bundle.manifest import MANIFEST_NAME
from edgerecover.bundle.verify import verify_bundle
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import BadInputError
from edgerecover.files import npy_bytes
from edgerecover.report.html import html
from edgerecover.report.markdown import markdown
from edgerecover.runner.archive import runner_pyz
from edgerecover.validate.limits import limits_of

if TYPE_CHECKING:
    from edgerecover.building import Engines
    from edgerecover.config import Profile, Target
    from edgerecover.synthesize.record.values import Record

GOLDEN_IMAGES = 16
Scorer = Callable[[Any], Any]
"""From network inputs (N, C, H, W) to class scores (N, K)."""
RESERVED_NAMES = (
    *("config.json", "dreams.png", "engines", "golden", "limits.json", "manifest.json", "recipe.json", "report.html"),
    *("report.json", "report.md", "runner.json", "runner.pyz", "variants"),
)
"""What every bundle holds beside its model."""


def pack(
    report: Report,
    out: Path,
    content: Mapping[str, Path | bytes | str],
    configuration: Mapping[str, Any],
    target: Target,
    profile: Profile,
    precision: Precision,
) -> None:
    """Write the bundle of a report.

    Args:
        report: as it was shown.
        out: where to.
        content: model, golden images and answers, and what else belongs to it, by path inside the bundle.
        configuration: everything that decided the result, with no path of the user's machine in it.
        target: what the bundle's runner is to expect of the machine,
        profile: and how it is to measure and judge there.
        precision: of model.onnx.

    Raises:
        BadInputError: it cannot be written; nothing is left behind.
    """
    files: dict[str, Path | bytes | str] = {
        **content,
        "config.json": _json(configuration),
        "limits.json": _json(to_json(limits_of(profile, target))),
        "report.html": html(report, _sheet_among(content, report)),
        "report.json": _json(to_json(report)),
        "report.md": markdown(report),
        "runner.json": _json(to_json(device_task(profile, target, precision))),
        "runner.pyz": runner_pyz(),
    }
    write_bundle(files, out, _manifest_fields(report))


@dataclass(frozen=True)
class Packed:
    """The report of a bundle that was verified."""

    report: Report
    report_json: Any
    """As it stands in the bundle."""
    sheet_png: bytes | None
    """The contact sheet, where there is one."""
    manifest_sha256: str


def read_packed(bundle: Path) -> Packed:
    """Verify a bundle and read its report.

    Raises:
        BadInputError: no bundle, or its report cannot be read.
        VerificationError: it is not what its manifest says.
    """
    manifest = verify_bundle(bundle)
    try:
        data = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
        report = from_json(Report, data)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"{bundle}/report.json cannot be read: {error}", hint="was it written by another version?"
        ) from error
    listed = report.sheet is not None and report.sheet.path in manifest.files
    sheet_png = (bundle / report.sheet.path).read_bytes() if report.sheet and listed else None
    return Packed(report, data, sheet_png, sha256_of(bundle / MANIFEST_NAME))


def _sheet_among(content: Mapping[str, Path | bytes | str], report: Report) -> bytes | None:
    """The contact sheet among the content, where there is one."""
    sheet = content.get(report.sheet.path) if report.sheet else None
    return sheet if isinstance(sheet, bytes) else None


def device_task(profile: Profile, target: Target, precision: Precision) -> DeviceTask:
    """What the runner in a bundle is to do on the device."""
    return DeviceTask(
        target=target.name,
        machine=target.needs,
        runtime=target.runtime.value,
        providers=target.providers.value,
        num_warmup=profile.latency.num_warmup,
        min_queries=profile.latency.min_queries,
        min_duration_s=profile.latency.min_duration_s,
        also_runtimes=target.also_runtimes.value if target.also_runtimes else (),
        precision=precision,
    )


def path_in_bundle(variant: Variant, race: Race) -> str:
    """Where the file of a variant stands in the bundle: the shipped one is the model."""
    if variant.precision is race.shipped.precision:
        return "model.onnx"
    return f"variants/{variant.precision.value}.onnx"


def model_files(variants: Sequence[Variant], race: Race, engines: Engines) -> dict[str, Path | bytes | str]:
    """The shipped file; beside it those that pass too, where the race is still to be held on the device."""
    passing = {runner.precision for runner in race.runners if runner.outcome in (Outcome.SHIPPED, Outcome.SLOWER)}
    wanted = {race.shipped.precision} if race.on_target else passing
    recipe = engines.recipes.get(race.shipped.precision)
    return {
        **{path_in_bundle(v, race): Path(v.file.path) for v in variants if v.precision in wanted},
        **{path: file for path, file in engines.files.items() if Precision(file.name.partition(".")[0]) in wanted},
        **({"recipe.json": _json(to_json(recipe))} if recipe else {}),
    }


def golden_files(model: Scorer, teacher: Scorer, golden_NCHW: Any) -> dict[str, Path | bytes | str]:
    """A few images, and what the shipped file and the teacher make of them: what a device is checked with."""
    return {
        "golden/inputs.npy": npy_bytes(golden_NCHW),
        "golden/outputs.npy": npy_bytes(model(golden_NCHW)),
        "golden/teacher.npy": npy_bytes(teacher(golden_NCHW)),
    }


def without_folder(facts: ModelFacts) -> ModelFacts:
    """A report travels: it names the user's files, not where they lay."""
    return replace(facts, path=Path(facts.path).name)


def record_facts(record: Record | None, path: Path | None) -> RecordFacts | None:
    """A record as a report shows it; None where there is none."""
    if record is None or path is None:
        return None
    return RecordFacts(path.name, record.sha256, path.stat().st_size, record.kind, record.num_images, record.noise)


def data_used(has_record: bool, has_real_images: bool) -> str:
    """What of real data had a part in a result: "none", "record", "eval-only" or both."""
    used = [name for name, is_used in (("record", has_record), ("eval-only", has_real_images)) if is_used]
    return ", ".join(used) or "none"


def tool_versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    packages = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def _manifest_fields(report: Report) -> dict[str, Any]:
    return {
        "edgerecover_version": report.edgerecover_version,
        "created_utc": report.created_utc,
        "target": report.target,
        "profile": report.profile,
        "seed": report.seed,
        "data_used": report.data_used,
        "verdict": report.verdict.value,
        "architecture": report.student.architecture,
        "teacher_architecture": report.teacher.architecture,
        "student_sha256": report.student.sha256,
        "teacher_sha256": report.teacher.sha256,
        "tool_versions": report.tool_versions,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
