"""`validate`: a file that was recovered elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import show_report
from edgerecover.cli.following import following
from edgerecover.cli.inputs import device_access, model_flags
from edgerecover.cli.options import (
    MODEL,
    OUTPUT,
    RECOVERY,
    WORK,
    ArchOption,
    AssumeOption,
    DeviceOption,
    DevicePythonOption,
    EvalDataOption,
    EventsOption,
    ForceOption,
    JsonOption,
    MeanOption,
    OnOption,
    QuietOption,
    RangeOption,
    RecordOption,
    SeedOption,
    ShapeOption,
    SshConfigOption,
    StdOption,
    TargetOption,
    TaskOption,
    TeacherArchOption,
    TrustOption,
    TrustPickleOption,
)
from edgerecover.cli.run import settle_on_device
from edgerecover.commands.inputs import require_file
from edgerecover.commands.outputs import beside_bundle, require_outside, require_same_release
from edgerecover.errors import BadInputError


def validate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file of a classifier, recovered with any tool.")],
    target: TargetOption,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", help="Dense network: a checkpoint or an .onnx file.", rich_help_panel=MODEL),
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option(
            "--student", help="Checkpoint that MODEL was exported from, for comparison.", rich_help_panel=MODEL
        ),
    ] = None,
    pruned: Annotated[
        Path | None,
        typer.Option("--pruned", help="Checkpoint before recovery; MODEL must not be worse.", rich_help_panel=MODEL),
    ] = None,
    arch: ArchOption = None,
    task: TaskOption = None,
    teacher_arch: TeacherArchOption = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            "-p",
            help="Gates and synthesis recipe: a name from `profiles list`, or a .toml file.",
            rich_help_panel=RECOVERY,
        ),
    ] = "balanced",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write a bundle to this folder. Default: no bundle.", rich_help_panel=OUTPUT),
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
    on: OnOption = None,
    ssh_config: SshConfigOption = None,
    device_python: DevicePythonOption = "python3",
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder for results reused between runs. Default: .edgerecover beside MODEL.",
            rich_help_panel=WORK,
        ),
    ] = None,
) -> None:
    """Validate an ONNX file that was recovered elsewhere against its dense teacher, and bundle it with --out."""
    from edgerecover.config import load_profile, load_target

    loaded_target, loaded_profile = load_target(target), load_profile(profile)
    flags = model_flags(
        arch,
        input_shape,
        mean,
        std,
        pixel_range,
        trust_code=trust_code,
        trust_pickle=trust_pickle,
        assume=assume,
        task=task,
    )
    require_file(model)
    access = device_access(on, ssh_config, device_python)
    if access is not None and out is None:
        raise BadInputError("--on runs a bundle, and none is written", hint="name the bundle's folder with --out")
    if out is not None:
        require_same_release(out, model, loaded_target.name, force=force)
    if work is not None:
        require_outside("--work", work)
    if access is not None:
        from edgerecover.remote.device import check_device

        check_device(access)
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
    with following("validate", work=request.work, events=events, quiet=quiet) as progress:
        report = validate_file(request, progress)
        if access is not None and out is not None:
            report = settle_on_device(report, out, access, progress)
        show_report(report, str(out) if out else None, as_json)
