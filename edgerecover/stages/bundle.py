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
    InputSpec,
    ModelFacts,
    Origin,
    Outcome,
    Precision,
    Race,
    RecordFacts,
    Report,
    Stated,
    Variant,
    to_json,
)
from edgerecover.bundle.card import model_card
from edgerecover.bundle.manifest import OWN_NAMES
from edgerecover.bundle.sbom import Subject, bill_of_materials
from edgerecover.bundle.write import Measured, write_bundle
from edgerecover.files import npy_bytes
from edgerecover.report.html.report import html
from edgerecover.report.markdown import markdown
from edgerecover.runner.archive import runner_pyz
from edgerecover.validate.limits import limits_of

if TYPE_CHECKING:
    from edgerecover.config import Profile, Target
    from edgerecover.stages.engine import Engines
    from edgerecover.synthesize.image_set import ImageSet
    from edgerecover.synthesize.record.values import Record

GOLDEN_IMAGES = 16
Scorer = Callable[[Any], Any]
"""From network inputs (N, C, H, W) to class scores (N, K)."""
RESERVED_NAMES = (
    *OWN_NAMES,
    *("bom.cdx.json", "config.json", "dreams.png", "engines", "golden", "limits.json", "model-card.md", "recipe.json"),
    *("report.html", "report.json", "report.md", "runner.json", "runner.pyz", "variants"),
)
"""What every bundle holds beside its model."""


@dataclass(frozen=True)
class Provenance:
    """What a bundle states of its model beside the report: the same whenever the same run is made."""

    lineage: Mapping[str, Origin]
    """By name; one of them is model.onnx."""
    stated: Stated
    input: InputSpec
    num_classes: int


def pack(
    report: Report,
    out: Path,
    content: Mapping[str, Path | bytes | str],
    configuration: Mapping[str, Any],
    target: Target,
    profile: Profile,
    precision: Precision,
    provenance: Provenance,
) -> None:
    """Write the bundle of a report.

    The manifest lists what the same run makes again; what was timed, and engines, which TensorRT builds by timing, are
    listed with the measurements.

    Args:
        report: as it was shown.
        out: where to.
        content: model, golden images and answers, and what else belongs to it, by path inside the bundle.
        configuration: everything that decided the result, with no path of the user's machine in it.
        target: what the bundle's runner is to expect of the machine,
        profile: and how it is to measure and judge there.
        precision: of model.onnx.
        provenance: where it comes from.

    Raises:
        BadInputError: it cannot be written; nothing is left behind.
    """
    subject = Subject(
        architecture=report.student.architecture or "unknown",
        input=provenance.input,
        num_classes=provenance.num_classes,
        target=report.target,
        data_used=report.data_used,
        edgerecover_version=report.edgerecover_version,
        tool_versions=report.tool_versions,
    )
    files: dict[str, Path | bytes | str] = {
        **{path: source for path, source in content.items() if not path.startswith("engines/")},
        "bom.cdx.json": bill_of_materials(subject, provenance.lineage, provenance.stated),
        "config.json": _json(configuration),
        "limits.json": _json(to_json(limits_of(profile, target))),
        "model-card.md": model_card(subject, provenance.lineage, provenance.stated),
        "runner.json": _json(to_json(device_task(profile, target, precision))),
        "runner.pyz": runner_pyz(),
    }
    measured: dict[str, Measured] = {
        **{path: source for path, source in content.items() if path.startswith("engines/")},
        "report.html": lambda manifest_sha256: html(report, _sheet_among(content, report), manifest_sha256),
        "report.json": _json(to_json(report)),
        "report.md": markdown(report),
    }
    write_bundle(files, out, _manifest_fields(report, provenance), measured, _measured_fields(report))


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


def checkpoint_origins(student: ModelFacts, teacher: ModelFacts, record: RecordFacts | None) -> dict[str, Origin]:
    """What came from outside. What was made from what before that is not known, and not claimed."""
    origins = {
        "dense": Origin("dense checkpoint", teacher.sha256, name=teacher.path),
        "pruned": Origin("pruned checkpoint", student.sha256, name=student.path),
    }
    if record is not None:
        origins["record"] = Origin("activation record of real images", record.sha256, name=record.path)
    return origins


def image_origins(sets: Mapping[str, ImageSet], parents: tuple[str, ...]) -> dict[str, Origin]:
    """Synthetic images, by what they are for: "train", "calibration", "held_back"."""
    use = {"train": "to learn from", "calibration": "to choose and calibrate by", "held_back": "to judge by"}
    return {
        f"dreams/{split}": Origin(f"{len(images):,} synthetic images {use[split]}", images.sha256, parents)
        for split, images in sets.items()
    }


def export_origins(variants: Sequence[Variant], files: Mapping[str, object], race: Race) -> dict[str, Origin]:
    """The ONNX files made from the recovered network, in the bundle or not."""
    origins: dict[str, Origin] = {}
    for variant in variants:
        path = path_in_bundle(variant, race)
        parents = ("recovered",) if variant.precision is Precision.FP32 else ("export/fp32", "dreams/calibration")
        origins[f"export/{variant.precision.value}"] = Origin(
            f"exported network, {variant.scheme}", variant.file.sha256, parents, file=path if path in files else ""
        )
    return origins


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


def _manifest_fields(report: Report, provenance: Provenance) -> dict[str, Any]:
    stated = to_json(provenance.stated)
    licence = stated.pop("licence")
    return {
        "edgerecover_version": report.edgerecover_version,
        "target": report.target,
        "profile": report.profile,
        "seed": report.seed,
        "data_used": report.data_used,
        "architecture": report.student.architecture,
        "teacher_architecture": report.teacher.architecture,
        "lineage": {name: to_json(origin) for name, origin in provenance.lineage.items()},
        "licence": licence or None,
        "card": {name: said for name, said in stated.items() if said},
        "tool_versions": report.tool_versions,
    }


def _measured_fields(report: Report) -> dict[str, Any]:
    engines = {
        f"engine/{facts.recipe.precision.value}": Origin(
            f"{facts.key.runtime} engine",
            facts.sha256,
            (f"export/{facts.recipe.precision.value}",),
            file=f"engines/{facts.file}",
        )
        for facts in report.engines
    }
    return {
        "created_utc": report.created_utc,
        "verdict": report.verdict.value,
        "engines": {name: to_json(origin) for name, origin in engines.items()},
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
