"""`run`: recover, export, validate and bundle a pruned network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerecover.artifacts import Precision
from edgerecover.cli.console import show_error, show_report
from edgerecover.cli.following import following
from edgerecover.cli.inputs import device_access, model_flags
from edgerecover.cli.options import (
    EXPORT,
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
    ForOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    OnOption,
    PruningPattern,
    QuietOption,
    RangeOption,
    RecordOption,
    SeedOption,
    ShapeOption,
    SparsityOption,
    SshConfigOption,
    StdOption,
    TargetOption,
    TaskOption,
    TeacherArchOption,
    TrustOption,
    TrustPickleOption,
    switch,
)
from edgerecover.cli.signing import key_signer
from edgerecover.commands.inputs import require_checkpoint
from edgerecover.commands.outputs import beside_bundle, require_outside, require_same_release

if TYPE_CHECKING:
    from edgerecover.artifacts import Report
    from edgerecover.progress import Progress
    from edgerecover.remote.ssh import Access
    from edgerecover.stages.request import Request


def run_command(
    model: ModelArgument,
    target: TargetOption,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Checkpoint of the dense network.", rich_help_panel=MODEL)
    ] = None,
    arch: ArchOption = None,
    task: TaskOption = None,
    teacher_arch: TeacherArchOption = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile", "-p", help="Recipe: a name from `profiles list`, or a .toml file.", rich_help_panel=RECOVERY
        ),
    ] = "balanced",
    pattern: Annotated[
        PruningPattern | None,
        typer.Option("--pattern", help="Prune a dense MODEL to this pattern first.", rich_help_panel=RECOVERY),
    ] = None,
    sparsity: SparsityOption = None,
    for_runtime: ForOption = None,
    eval_data: EvalDataOption = None,
    record: RecordOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    assume: AssumeOption = False,
    batch: Annotated[
        int,
        typer.Option(
            "--batch", help="Static batch size of the exported file; 0 for dynamic.", min=0, rich_help_panel=EXPORT
        ),
    ] = 1,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(
            "--precision",
            metavar="<fp32|fp16|int8>",
            help="Precision allowed besides fp32; repeat for several. Default: the target's.",
            rich_help_panel=EXPORT,
        ),
    ] = None,
    on: OnOption = None,
    ssh_config: SshConfigOption = None,
    device_python: DevicePythonOption = "python3",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Bundle folder. Default: MODEL.TARGET.bundle.", rich_help_panel=OUTPUT),
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option(
            "--sign-key", help="Sign the bundle with this private key; see `bundle sign --key`.", rich_help_panel=OUTPUT
        ),
    ] = None,
    archive: Annotated[
        bool, switch("--archive", help="Also write the bundle as a single archive, BUNDLE.tar.", panel=OUTPUT)
    ] = False,
    force: ForceOption = False,
    dry_run: Annotated[
        bool,
        switch(
            "--dry-run", help="Load the model, time a few images, print an estimate, and write nothing.", panel=OUTPUT
        ),
    ] = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder for results reused between runs. Default: .edgerecover beside the bundle.",
            rich_help_panel=WORK,
        ),
    ] = None,
    resume: Annotated[
        bool,
        switch(
            "--resume/--fresh",
            help="Resume from the finished steps of an earlier run in --work, or start afresh.",
            panel=WORK,
        ),
    ] = True,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            "--checkpoint-every",
            help="Seconds between checkpoints of unfinished steps.",
            min=0.0,
            rich_help_panel=WORK,
        ),
    ] = 60.0,
) -> None:
    """Recover a pruned MODEL without data, export it, validate the exported file and bundle it for TARGET."""
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
    require_checkpoint(model)
    from edgerecover.pruning import pruning_from_flags

    pruning = pruning_from_flags(pattern, sparsity, for_runtime)
    bundle = out or beside_bundle(model.parent) / f"{model.stem}.{loaded_target.name}.bundle"
    require_same_release(bundle, model, loaded_target.name, force=force)
    if work is not None:
        require_outside("--work", work)
    from edgerecover.stages.request import Request

    request = Request(
        model_path=model,
        target=loaded_target,
        profile=loaded_profile,
        out=bundle,
        work=work or bundle.absolute().parent / ".edgerecover",
        flags=flags,
        teacher=teacher,
        teacher_arch=teacher_arch,
        pruning=pruning,
        eval_data=eval_data,
        record=record,
        seed=seed,
        device=device,
        batch=batch or None,
        precisions=tuple(precision or ()),
        fresh=not resume,
        checkpoint_every_s=checkpoint_every,
    )
    access = device_access(on, ssh_config, device_python)
    if access is not None:
        from edgerecover.remote.device import check_device

        check_device(access)
    finish = _make_finish(sign_key, archive, bundle)
    if dry_run:
        _estimate_and_show(request, as_json, events, quiet)
    else:
        run_and_show("run", request, as_json, events, access, finish, quiet=quiet)


def _estimate_and_show(request: Request, as_json: bool, events: str | None, quiet: bool) -> None:
    from edgerecover.artifacts import to_json
    from edgerecover.commands.run import dry_run
    from edgerecover.distributed import is_first
    from edgerecover.stages.estimate import FACTOR, as_numbers, in_words

    if not is_first():
        return
    with following("run", events=events, quiet=quiet) as progress:
        found = dry_run(request, progress)
        progress.note("nothing was written", **as_numbers(found))
    if as_json:
        typer.echo(json.dumps({**to_json(found), "seconds": found.seconds, "factor": FACTOR}, indent=1))
    else:
        typer.echo("\n".join(in_words(found, request.profile.name)))


def _make_finish(sign_key: Path | None, archive: bool, bundle: Path) -> Callable[[Progress], None]:
    """What is left to do with a finished bundle; a missing key or an archive in the way is refused now."""
    from edgerecover.bundle.carry import archive_path, check_free, pack_bundle, sign_bundle

    signer = key_signer(sign_key) if sign_key is not None else None
    if signer is not None:
        from edgerecover.bundle.signature import require_signer

        require_signer(signer)
    if archive:
        check_free(archive_path(bundle))

    def finish(progress: Progress) -> None:
        if signer is not None:
            with progress.task("sign", 1, "bundle") as task:
                sign_bundle(bundle, signer)
                task.advance()
            progress.note(f"signed: {bundle}")
        if archive:
            with progress.task("archive", 1, "bundle") as task:
                path = pack_bundle(bundle, archive_path(bundle)).path
                task.advance()
            progress.note(f"archive: {path}")

    return finish


def run_and_show(
    command: str,
    request: Request,
    as_json: bool,
    events: str | None,
    access: Access | None = None,
    finish: Callable[[Progress], None] = lambda _: None,
    quiet: bool = False,
) -> None:
    """Run a request, show its report, and exit with its verdict.

    Args:
        command: that the user typed, for the events.
        request: what to run.
        as_json: print the report as JSON.
        events: where progress goes as JSON lines; None: nowhere.
        access: a device that then runs the bundle and settles the target's gates.
        finish: what to do with the packed bundle before the report is shown.
        quiet: show no progress.

    Raises:
        typer.Exit: always, with the exit code of the verdict.
    """
    from edgerecover.commands.run import run
    from edgerecover.distributed import is_first, joined

    if not is_first():
        assist_the_first(request)
        return
    with following(command, work=request.work, events=events, quiet=quiet) as progress:
        with joined(request.device, request.work, show_error) as ranks:
            report = run(request, progress, ranks)
        finish(progress)
        if access is not None:
            report = settle_on_device(report, request.out, access, progress)
        show_report(report, str(request.out), as_json)


def assist_the_first(request: Request) -> None:
    """Do the work of a process that `torchrun` started besides the first; prints nothing."""
    from edgerecover.commands.run import assist
    from edgerecover.distributed import LostError, joined

    try:
        with joined(request.device, request.work) as ranks:
            assist(request, ranks)
    except LostError as error:
        raise typer.Exit(error.exit_code) from error


def settle_on_device(report: Report, bundle: Path, access: Access, progress: Progress) -> Report:
    """The report after the device has run the bundle; the device's result is kept beside the bundle."""
    from edgerecover.artifacts import to_json
    from edgerecover.files import replace_file
    from edgerecover.remote.device import run_on, settle

    progress.note(
        f"bundle: {bundle}; to repeat only the device run: edgerecover bench {bundle} --on {access.destination}"
    )
    result = run_on(bundle, access, progress=progress)
    kept = bundle.with_name(f"{bundle.name}.result.json")
    try:
        replace_file(kept, (json.dumps(to_json(result), indent=1) + "\n").encode())
        progress.note(f"result from the device: {kept}")
    except OSError as error:
        progress.note(f"the result from the device could not be saved: {kept}: {error.strerror or error}")
    return settle(report, result)
