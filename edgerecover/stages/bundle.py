"""The bundle stage: what a bundle holds beside the numbers, with no folder of this machine in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import (
    DeviceTask,
    InputSpec,
    Origin,
    OutputSpec,
    Precision,
    Race,
    Report,
    Stated,
    Variant,
    to_json,
)
from edgerecover.bundle.card import model_card
from edgerecover.bundle.sbom import Subject, bill_of_materials
from edgerecover.bundle.write import Measured, write_bundle
from edgerecover.export.mnn import file_for
from edgerecover.files import npy_bytes
from edgerecover.models.name.spec import read_stated
from edgerecover.recovery.store import weights_of
from edgerecover.report.html.report import html
from edgerecover.report.markdown import markdown
from edgerecover.runner.archive import runner_pyz
from edgerecover.runner.contents import MNN_FILE
from edgerecover.runtime.machine.mnn_module import MNN
from edgerecover.stages.lineage import (
    configuration_of_file,
    configuration_of_run,
    export_origins,
    lineage_of_file,
    lineage_of_run,
)
from edgerecover.validation.limits import limits_of
from edgerecover.validation.scoring import Reference, Scorer, int8_sums_for, open_on_cpu

if TYPE_CHECKING:
    from edgerecover.config import Profile, Target
    from edgerecover.models.onnx.file import OnnxFile
    from edgerecover.recovery.ladder import Recovered
    from edgerecover.stages.engine import Engines
    from edgerecover.stages.load import Loaded
    from edgerecover.stages.load_file import LoadedFile
    from edgerecover.stages.npu import NpuFiles
    from edgerecover.stages.request import FileRequest, Request
    from edgerecover.stages.synthesize import Evidence, Images
    from edgerecover.stages.validate import Made

_MAX_GOLDEN_BYTES = 16 << 20
"""Of one network's outputs for the golden images."""
_FEWEST_GOLDEN = 2


@dataclass(frozen=True)
class Provenance:
    """What a bundle states of its model beside the report: the same whenever the same run is made."""

    lineage: Mapping[str, Origin]
    """By name; one of them is model.onnx."""
    stated: Stated
    input: InputSpec
    output: OutputSpec


def pack_run(
    report: Report,
    request: Request,
    loaded: Loaded,
    images: Images,
    recovered: Recovered,
    made: Made,
    teacher: Reference,
    sheet_png: bytes,
) -> None:
    """Write the bundle of a run.

    Args:
        report: as it was shown.
        request: of the user, with the profile that was run.
        loaded: networks.
        images: synthetic ones.
        recovered: student and rungs.
        made: files, engines and their race.
        teacher: whose answers are the reference.
        sheet_png: the picture of dreams.

    Raises:
        BadInputError: it cannot be written; nothing is left behind.
    """
    models, shipped = loaded.models, made.shipped
    sums = int8_sums_for(request.target)
    model = open_on_cpu(Path(shipped.file.path), models.input.shape, models.output.num_values_in_file, sums)
    weights = weights_of(recovered.student)
    content: dict[str, Path | bytes | str] = {
        **model_files(made.variants.made, made.race, made.engines, request.target.runtime.value),
        **made.npu.files,
        "recovered.safetensors": weights,
        **golden_files(model.run, teacher.score, images.golden_NCHW(), models.output),
        **({report.sheet.path: sheet_png} if report.sheet else {}),
    }
    lineage = {
        **lineage_of_run(request, models, report, images.sets, weights),
        **export_origins(made.variants.made, content, made.race),
    }
    pack(
        report,
        request.out,
        content,
        configuration_of_run(request, models),
        request.target,
        request.profile,
        shipped.precision,
        Provenance(lineage, read_stated(request.model_path), models.input, models.output),
    )


def pack_file(
    report: Report,
    request: FileRequest,
    out: Path,
    loaded: LoadedFile,
    evidence: Evidence,
    npu: NpuFiles,
    sheet_png: bytes,
) -> None:
    """Write the bundle of a file from elsewhere.

    Args:
        report: as it was shown.
        request: of the user.
        out: where to.
        loaded: the file and its teacher.
        evidence: what it was judged on.
        npu: what was compiled from it.
        sheet_png: the picture of synthetic images.

    Raises:
        BadInputError: it cannot be written; nothing is left behind.
    """
    file, teacher = loaded.file, loaded.teacher
    content: dict[str, Path | bytes | str] = {
        "model.onnx": file.path,
        **{name: file.path.parent / name for name in file.external},
        **npu.files,
        **golden_files(loaded.session.run, teacher.score, evidence.golden_NCHW(), teacher.output),
        **({report.sheet.path: sheet_png} if report.sheet else {}),
    }
    lineage = lineage_of_file(report, evidence.golden, loaded.student, loaded.pruned)
    pack(
        report,
        out,
        content,
        configuration_of_file(request, loaded),
        request.target,
        request.profile,
        _precision_of(file),
        Provenance(lineage, read_stated(request.model_path), teacher.input, teacher.output),
    )


def _precision_of(file: OnnxFile) -> Precision:
    """The coarsest that it computes in."""
    if file.is_quantized:
        return Precision.INT8
    return Precision.FP16 if file.is_half else Precision.FP32


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
        target: what the bundle's runner is to expect of the machine.
        profile: how the runner is to measure and judge there.
        precision: of model.onnx.
        provenance: where it comes from.

    Raises:
        BadInputError: it cannot be written; nothing is left behind.
    """
    subject = Subject(
        architecture=report.student.architecture or "unknown",
        input=provenance.input,
        output=provenance.output,
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
        "runner.json": _json(to_json(device_task(profile, target, precision, provenance.output))),
        "runner.pyz": runner_pyz(),
    }
    measured: dict[str, Measured] = {
        **{path: source for path, source in content.items() if path.startswith("engines/")},
        "report.html": lambda manifest_sha256: html(report, _sheet_among(content, report), manifest_sha256, out.name),
        "report.json": _json(to_json(report)),
        "report.md": markdown(report),
    }
    write_bundle(files, out, _manifest_fields(report, provenance), measured, _measured_fields(report))


def _sheet_among(content: Mapping[str, Path | bytes | str], report: Report) -> bytes | None:
    """The contact sheet among the content, where there is one."""
    sheet = content.get(report.sheet.path) if report.sheet else None
    return sheet if isinstance(sheet, bytes) else None


def device_task(profile: Profile, target: Target, precision: Precision, output: OutputSpec) -> DeviceTask:
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
        output=output,
    )


def model_files(
    variants: Sequence[Variant], race: Race, engines: Engines, runtime: str
) -> dict[str, Path | bytes | str]:
    """The shipped file; beside it those that pass too, where the race is still to be held on the device.

    A network that MNN runs is there as the ONNX file that it was made of, too. MNN's own file is always there if MNN is
    the target's `runtime` and it passes.
    """
    passing = {runner.precision for runner in race.runners if runner.passes}
    wanted = {race.shipped.precision} if race.on_target else passing
    recipe = engines.recipes.get(race.shipped.precision)
    float32 = next(Path(v.file.path) for v in variants if v.precision is Precision.FP32)
    is_decided = race.on_target and runtime != MNN
    may_win = {race.shipped.runtime} if is_decided else {runner.runtime for runner in race.runners if runner.passes}
    return {
        **{race.path_in_bundle(v.precision): Path(v.file.path) for v in variants if v.precision in wanted},
        **{path: file for path, file in engines.files.items() if Precision(file.name.partition(".")[0]) in wanted},
        **({"recipe.json": _json(to_json(recipe))} if recipe else {}),
        **({MNN_FILE: file_for(MNN, float32)} if MNN in may_win else {}),
    }


def golden_files(model: Scorer, teacher: Scorer, golden_NCHW: Any, output: OutputSpec) -> dict[str, Path | bytes | str]:
    """A few images, and what the shipped file and the teacher make of them: what a device is checked with.

    Where maps are large there are fewer: 16 of 21 classes at 512×512 pixels would take 350 MB, twice.
    """
    fit = max(_FEWEST_GOLDEN, _MAX_GOLDEN_BYTES // (4 * output.num_values))
    some_NCHW = golden_NCHW[:fit]
    return {
        "golden/inputs.npy": npy_bytes(some_NCHW),
        "golden/outputs.npy": npy_bytes(model(some_NCHW)),
        "golden/teacher.npy": npy_bytes(teacher(some_NCHW)),
    }


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
    engines |= {
        f"engine/{Precision.INT8.value}-npu-v{made.generation}": Origin(
            f"compiled for NPU generation {made.generation}",
            made.sha256,
            (f"export/{Precision.INT8.value}",) if report.variants else ("given",),
            file=made.file,
        )
        for made in report.npu
        if made.file
    }
    return {
        "created_utc": report.created_utc,
        "verdict": report.verdict.value,
        "engines": {name: to_json(origin) for name, origin in engines.items()},
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
