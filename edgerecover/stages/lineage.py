"""Where the files of a bundle come from, and what decided the result; no folder of this machine is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import (
    ModelFacts,
    Origin,
    OutputSpec,
    Precision,
    Race,
    RecordFacts,
    Report,
    Variant,
    sha256_of,
    to_json,
)
from edgerecover.recovery.store import weights_of
from edgerecover.runner.contents import MNN_FILE

if TYPE_CHECKING:
    from edgerecover.models.pair.networks import Classifier, Models
    from edgerecover.stages.load_file import LoadedFile
    from edgerecover.stages.request import FileRequest, Request
    from edgerecover.synthesis.image_set import ImageSet, SyntheticSets


def lineage_of_run(
    request: Request, models: Models, report: Report, sets: SyntheticSets, weights: bytes
) -> dict[str, Origin]:
    """All that the exported files were made from, by name.

    Args:
        request: of the user.
        models: the student before its recovery.
        report: names the checkpoints and the record.
        sets: of images.
        weights: recovered.safetensors.
    """
    origins = checkpoint_origins(report.student, report.teacher, report.record)
    if request.pruning is not None:
        sha256 = hashlib.sha256(weights_of(models.student)).hexdigest()
        origins["pruned"] = Origin(f"pruned in this run, {request.pruning.pattern}", sha256, ("dense",))
    seen = ("dense", "record") if report.record else ("dense",)
    splits = {"train": sets.train, "calibration": sets.calibration, "held_back": sets.held_back}
    parents = (*seen, "pruned", "dreams/train", "dreams/calibration")
    recovered = Origin("recovered network", hashlib.sha256(weights).hexdigest(), parents, file="recovered.safetensors")
    return {**origins, **image_origins(splits, seen), "recovered": recovered}


def lineage_of_file(
    report: Report, golden: ImageSet, student: Classifier | None, pruned: Classifier | None
) -> dict[str, Origin]:
    """What came from outside, and the images that were made here. How the file was made is not known."""
    origins = checkpoint_origins(report.student, report.teacher, report.record)
    del origins["pruned"]
    for name, what, network in (("pruned", "pruned", pruned), ("student", "recovered", student)):
        if network is not None:
            facts = network.facts
            origins[name] = Origin(f"{what} checkpoint, as named by the user", facts.sha256, name=Path(facts.path).name)
    origins["given"] = Origin(
        "ONNX file from elsewhere", report.student.sha256, name=report.student.path, file="model.onnx"
    )
    parents = tuple(name for name in ("dense", "record") if name in origins)
    is_dreamt = report.synthetic.source == "dreams"
    return {**origins, **image_origins({"held_back": golden}, parents if is_dreamt else ())}


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
    """The ONNX files made from the recovered network, in the bundle or not, and MNN's where it is in it."""
    origins: dict[str, Origin] = {}
    for variant in variants:
        path = race.path_in_bundle(variant.precision)
        parents = ("recovered",) if variant.precision is Precision.FP32 else ("export/fp32", "dreams/calibration")
        origins[f"export/{variant.precision.value}"] = Origin(
            f"exported network, {variant.scheme}", variant.file.sha256, parents, file=path if path in files else ""
        )
    if isinstance(own := files.get(MNN_FILE), Path):
        origins["export/mnn"] = Origin("file for MNN", sha256_of(own), ("export/fp32",), file=MNN_FILE)
    return origins


def configuration_of_run(request: Request, models: Models) -> dict[str, Any]:
    """Everything that decided the result of a run."""
    return {
        "model": request.model_path.name,
        "architecture": models.student_facts.architecture,
        "teacher_architecture": models.teacher_facts.architecture,
        "input": to_json(models.input),
        "classes": _classes(models.classes, models.output),
        "pruned_to": request.pruning.sparsity if request.pruning else None,
        "pattern": request.pruning.pattern if request.pruning else None,
        "pruned_for": request.pruning.runtime if request.pruning else None,
        "seed": request.seed,
        "batch": request.batch,
        "target": request.target.model_dump(mode="json", exclude_none=True),
        "profile": request.profile.model_dump(mode="json"),
    }


def _classes(named: Sequence[str] | None, output: OutputSpec) -> list[str] | dict[str, list[str]] | None:
    """Names of classes; of several outputs, of each that has some."""
    of_each = {part.name: list(part.classes) for part in output.parts if part.classes}
    return of_each or (list(named) if named else None)


def configuration_of_file(request: FileRequest, loaded: LoadedFile) -> dict[str, Any]:
    """Everything that decided the judgement of a file."""
    teacher = loaded.teacher
    return {
        "model": request.model_path.name,
        "teacher": Path(teacher.facts.path).name,
        "student": request.student.name if request.student else None,
        "pruned": request.pruned.name if request.pruned else None,
        "architecture": teacher.facts.architecture,
        "input": to_json(teacher.input),
        "classes": _classes(teacher.classes, teacher.output),
        "seed": request.seed,
        "target": request.target.model_dump(mode="json", exclude_none=True),
        "profile": request.profile.model_dump(mode="json"),
    }
