"""`validate`: a file that was recovered elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import show_report
from edgerecover.cli.following import following
from edgerecover.cli.inputs import model_flags, require_file
from edgerecover.cli.options import (
    ArchOption,
    AssumeOption,
    DeviceOption,
    EvalDataOption,
    EventsOption,
    ForceOption,
    JsonOption,
    MeanOption,
    RangeOption,
    RecordOption,
    SeedOption,
    ShapeOption,
    StdOption,
    TargetOption,
    TeacherArchOption,
    TrustOption,
)
from edgerecover.cli.outputs import beside_bundle, require_outside, require_same_release


def validate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file of a classifier, recovered with any tool.")],
    target: TargetOption,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Dense network: a checkpoint or an .onnx file.")
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option("--student", help="Checkpoint that MODEL was exported from, for comparison."),
    ] = None,
    pruned: Annotated[
        Path | None,
        typer.Option("--pruned", help="Checkpoint before recovery; MODEL must not be worse."),
    ] = None,
    arch: ArchOption = None,
    teacher_arch: TeacherArchOption = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile", "-p", help="Gates and synthesis recipe: a name from `profiles list`, or a .toml file."
        ),
    ] = "balanced",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a bundle to this folder. Default: no bundle.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder for results reused between runs. Default: .edgerecover beside MODEL."),
    ] = None,
    eval_data: EvalDataOption = None,
    record: RecordOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    assume: AssumeOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust_code: TrustOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
) -> None:
    """Validate an ONNX file that was recovered elsewhere against its dense teacher, and bundle it with --out."""
    from edgerecover.config import load_profile, load_target

    loaded_target, loaded_profile = load_target(target), load_profile(profile)
    flags = model_flags(arch, input_shape, mean, std, pixel_range, trust_code=trust_code, assume=assume)
    require_file(model)
    if out is not None:
        require_same_release(out, model, loaded_target.name, force=force)
    if work is not None:
        require_outside("--work", work)
    from edgerecover.commands.validate import validate_file
    from edgerecover.stages.request import FileRequest

    request = FileRequest(
        model_path=model,
        target=loaded_target,
        profile=loaded_profile,
        work=work or beside_bundle(model.absolute().parent) / ".edgerecover",
        out=out,
        teacher=teacher,
        student=student,
        pruned=pruned,
        flags=flags,
        teacher_arch=teacher_arch,
        eval_data=eval_data,
        record=record,
        seed=seed,
        device=device,
    )
    with following("validate", work=request.work, events=events) as progress:
        report = validate_file(request, progress)
        show_report(report, str(out) if out else None, as_json)
