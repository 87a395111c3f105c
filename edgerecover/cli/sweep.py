"""`sweep`: one model, pruned and recovered in several ways."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from edgerecover.artifacts import Precision
from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.following import following
from edgerecover.cli.inputs import model_flags
from edgerecover.cli.options import (
    EXPORT,
    MODEL,
    OUTPUT,
    RECOVERY,
    SCHEDULER,
    ArchOption,
    AssumeOption,
    DeviceOption,
    EvalDataOption,
    EventsOption,
    JsonOption,
    MeanOption,
    PruningPattern,
    QuietOption,
    RangeOption,
    RecordOption,
    SeedOption,
    ShapeOption,
    StdOption,
    TaskOption,
    TeacherArchOption,
    TrustOption,
    TrustPickleOption,
    switch,
)
from edgerecover.commands.inputs import require_checkpoint, require_file
from edgerecover.commands.outputs import beside_bundle, require_outside
from edgerecover.errors import BadInputError

if TYPE_CHECKING:
    from edgerecover.progress import Progress
    from edgerecover.sweep.jobs import Jobs
    from edgerecover.sweep.plan import PlannedPoint

_OF_THIS_CALL = {"--slurm": 1, "--ray": 0, "--json": 0, "--cpus": 1, "--gpus": 1, "--events": 1}
"""Flags of the call that hands out tasks, and how many words follow each; a task's own command has none of them."""


def sweep_command(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Checkpoint; a dense one is pruned to each point.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Target device: a name from `targets list`, or a .toml file.")
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            "--sparsity", help="Comma-separated fractions, each as in `run`: 0.5,0.75,0.9.", rich_help_panel=RECOVERY
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            help="Comma-separated: unstructured, layerwise, 2:4, channel. Default: unstructured.",
            rich_help_panel=RECOVERY,
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            "-p",
            help="Comma-separated recipes; all recover on the images of the first.",
            rich_help_panel=RECOVERY,
        ),
    ] = "balanced",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the sweep. Default: MODEL.TARGET.sweep.", rich_help_panel=OUTPUT),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="Checkpoint of the dense network.", rich_help_panel=MODEL)
    ] = None,
    arch: ArchOption = None,
    task: TaskOption = None,
    teacher_arch: TeacherArchOption = None,
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
            "--batch", help="Static batch size of the exported files; 0 for dynamic.", min=0, rich_help_panel=EXPORT
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
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    slurm: Annotated[
        Path | None,
        typer.Option(
            "--slurm",
            help="Write a script that submits the points to Slurm (sbatch), and run nothing.",
            rich_help_panel=SCHEDULER,
        ),
    ] = None,
    ray: Annotated[
        bool,
        switch("--ray", help="Run the points on Ray: the cluster at RAY_ADDRESS, or this machine.", panel=SCHEDULER),
    ] = False,
    cpus: Annotated[
        int, typer.Option("--cpus", help="CPU cores per task, for --slurm and --ray.", min=1, rich_help_panel=SCHEDULER)
    ] = 1,
    gpus: Annotated[
        int, typer.Option("--gpus", help="GPUs per task, for --slurm and --ray.", min=0, rich_help_panel=SCHEDULER)
    ] = 0,
    step: Annotated[
        int | None,
        typer.Option(
            "--step",
            help="Run only this point, counted from 0, as a scheduler's task.",
            min=0,
            rich_help_panel=SCHEDULER,
        ),
    ] = None,
    collect: Annotated[
        Path | None,
        typer.Option(
            "--collect",
            help="Compare the finished points of this sweep folder; takes no MODEL.",
            rich_help_panel=SCHEDULER,
        ),
    ] = None,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Prune and recover MODEL in several ways, write a bundle for each, and show which are worth keeping."""
    if collect is not None:
        if model is not None or target is not None:
            raise BadInputError(
                "--collect takes the folder of a sweep and nothing else", hint=f"edgerecover sweep --collect {collect}"
            )
        with following("sweep", events=events, quiet=quiet) as progress:
            _collect_and_show(collect, as_json, progress)
        return
    if model is None:
        raise BadInputError("MODEL is missing", hint="`edgerecover sweep --help` shows what it takes")
    if target is None:
        raise BadInputError(
            "--target is missing",
            hint="name the device that the model is for; `edgerecover targets list` shows all",
        )
    if sum((slurm is not None, ray, step is not None)) > 1:
        raise BadInputError("--slurm, --ray and --step cannot be combined", hint="give only one of them")
    from edgerecover.config import load_profile, load_target

    loaded_target = load_target(target)
    profiles = [load_profile(name) for name in _words("--profile", profile)]
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
    for path in (teacher, eval_data, record):
        if path is not None:
            require_file(path)
    folder = out or beside_bundle(model.parent) / f"{model.stem}.{loaded_target.name}.sweep"
    require_outside("--out", folder)
    if ray:
        from edgerecover.sweep.jobs import require_ray

        require_ray()
    from edgerecover.stages.request import Request
    from edgerecover.sweep.plan import points_of, write_plan

    base = Request(
        model_path=model,
        target=loaded_target,
        profile=profiles[0],
        out=folder,
        work=folder / ".edgerecover",
        flags=flags,
        teacher=teacher,
        teacher_arch=teacher_arch,
        eval_data=eval_data,
        record=record,
        seed=seed,
        device=device,
        batch=batch or None,
        precisions=tuple(precision or ()),
    )
    planned = points_of(base, _patterns(pattern), _fractions(sparsity), profiles, folder)
    if step is not None:
        _make_one(planned, step, events, quiet)
        return
    write_plan(folder, planned)
    jobs = _jobs(sys.argv[1:], planned, folder, cpus, gpus)
    if slurm is not None:
        from edgerecover.sweep.jobs import write_slurm_script

        write_slurm_script(jobs, slurm)
        typer.echo(f"{slurm}: {len(planned)} points; start it with: bash {slurm}")
        return
    with following("sweep", work=base.work, events=events, quiet=quiet) as progress:
        _make_all(planned, jobs if ray else None, progress)
        _collect_and_show(folder, as_json, progress)


def _make_all(planned: Sequence[PlannedPoint], jobs: Jobs | None, progress: Progress) -> None:
    """Make every point, here or as jobs on Ray."""
    if jobs is not None:
        from edgerecover.sweep.jobs import make_with_ray

        make_with_ray(jobs, progress)
    else:
        from edgerecover.sweep.make import make_points

        make_points(planned, progress)


def _make_one(planned: Sequence[PlannedPoint], number: int, events: str | None, quiet: bool) -> None:
    from edgerecover.sweep.make import make_point

    if number >= len(planned):
        raise BadInputError(
            f"--step {number}: there are {len(planned)} points, counted from 0",
            hint="the sweep's script numbers them; let it start the points",
        )
    with following("sweep", work=planned[number].request.work, events=events, quiet=quiet) as progress:
        make_point(planned, number, progress)


def _collect_and_show(folder: Path, as_json: bool, progress: Progress) -> None:
    """Exit with the code of the first point that could not be made; a failed gate is shown and is none."""
    from edgerecover.artifacts import to_json
    from edgerecover.sweep.collect import collect

    sweep = collect(folder, progress)
    if as_json:
        print_json({"folder": str(folder), **to_json(sweep)})
    else:
        from edgerecover.report.sweep_terminal import print_sweep

        print_sweep(stdout(), sweep, str(folder))
    if sweep.failures:
        raise typer.Exit(sweep.failures[0].exit_code)


def _jobs(arguments: Sequence[str], planned: Sequence[PlannedPoint], folder: Path, cpus: int, gpus: int) -> Jobs:
    from edgerecover.sweep.jobs import Jobs

    us = (sys.executable, "-m", "edgerecover")
    return Jobs(
        command=(*us, *without(arguments, _OF_THIS_CALL)),
        collect=(*us, "sweep", "--collect", str(folder)),
        num_points=len(planned),
        folder=folder,
        cwd=Path.cwd(),
        cpus=cpus,
        gpus=gpus,
    )


def without(arguments: Sequence[str], flags: Mapping[str, int]) -> tuple[str, ...]:
    """Arguments less some flags and the words that follow them, `--flag=word` included."""
    kept, left_out = [], 0
    for argument in arguments:
        name, _, value = argument.partition("=")
        if left_out:
            left_out -= 1
        elif name in flags:
            left_out = 0 if value else flags[name]
        else:
            kept.append(argument)
    return tuple(kept)


_EXAMPLES = {"--pattern": "unstructured,2:4", "--profile": "fast,balanced", "--sparsity": "0.5,0.75"}


def _words(flag: str, text: str) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(words):
        raise BadInputError(
            f"{flag} {text!r}: a name between commas is empty", hint=f"for example {flag} {_EXAMPLES[flag]}"
        )
    return words


def _patterns(text: str | None) -> list[PruningPattern]:
    known: dict[str, PruningPattern] = {name: name for name in get_args(PruningPattern)}
    words = _words("--pattern", text) if text is not None else []
    if unknown := [word for word in words if word not in known]:
        raise BadInputError(f"--pattern {unknown[0]!r}: unknown pattern", hint=f"one of {', '.join(known)}")
    return [known[word] for word in words]


def _fractions(text: str | None) -> list[float]:
    try:
        return list(dict.fromkeys(float(word) for word in _words("--sparsity", text))) if text is not None else []
    except ValueError as error:
        raise BadInputError(
            f"--sparsity {text!r} is not a list of numbers", hint="for example --sparsity 0.5,0.75"
        ) from error
