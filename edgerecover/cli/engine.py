"""`engine build`, `engine check` and `engine show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgerecover.cli.console import print_json
from edgerecover.cli.following import following
from edgerecover.cli.options import (
    EXPORT,
    OUTPUT,
    EventsOption,
    ForceOption,
    JsonOption,
    QuietOption,
    TargetOption,
    switch,
)
from edgerecover.commands.outputs import beside_bundle, require_free
from edgerecover.errors import EXIT_GATE_FAILED, BadInputError, MissingError

if TYPE_CHECKING:
    from edgerecover.artifacts import BatchRange, EngineRecipe, Precision
    from edgerecover.config import Target

app = typer.Typer(no_args_is_help=True, help="Build, check and show TensorRT engines.")
OnnxArgument = Annotated[Path, typer.Argument(metavar="ONNX", help="Strongly typed ONNX file.")]


@app.command("build")
def engine_build(
    onnx: OnnxArgument,
    target: TargetOption,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Engine file. Default: ONNX.TARGET.engine.", rich_help_panel=OUTPUT),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch-range",
            help="Minimum, typical and maximum batch, if the file's is dynamic: 1,1,8.",
            rich_help_panel=EXPORT,
        ),
    ] = None,
    sparse: Annotated[
        bool | None,
        switch("--sparse/--no-sparse", help="Allow 2:4 sparse kernels. Default: if the target has them.", panel=EXPORT),
    ] = None,
    workspace_mb: Annotated[
        int | None,
        typer.Option(
            "--workspace-mb",
            min=1,
            help="Maximum workspace of one layer, in MB. Default: the target's.",
            rich_help_panel=EXPORT,
        ),
    ] = None,
    tf32: Annotated[bool, switch("--tf32/--no-tf32", help="Allow TF32 in float32 layers.", panel=EXPORT)] = True,
    dla_core: Annotated[
        int | None,
        typer.Option("--dla-core", min=0, help="Deep learning accelerator (DLA) core to use.", rich_help_panel=EXPORT),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option("--timing-cache", help="TensorRT's timing cache file.", rich_help_panel=EXPORT)
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Build an engine from ONNX for a target: for an RTX target on any machine, for a Jetson on that Jetson."""
    from dataclasses import replace

    from edgerecover.artifacts import to_json
    from edgerecover.config import load_target
    from edgerecover.export.engines import recipe_for
    from edgerecover.report.engines import engine_lines
    from edgerecover.runtime.engine.engine import build_engine

    device = load_target(target)
    recipe = recipe_for(device, _precision(onnx), batch=_batch(batch), sparse_weights=sparse)
    recipe = replace(recipe, workspace_mb=workspace_mb or recipe.workspace_mb, tf32=tf32, dla_core=dla_core)
    _check_machine(device, recipe)
    path = out or beside_bundle(onnx.parent) / f"{onnx.stem}.{device.name}.engine"
    require_free("--out", path, force=force)
    with (
        following("engine build", events=events, quiet=quiet) as progress,
        progress.task("build engine", 1, "engine") as task,
    ):
        facts = build_engine(onnx, recipe, path, timing_cache=timing_cache)
        task.advance()
    if as_json:
        print_json(to_json(facts))
    else:
        typer.echo(f"{path}: {engine_lines(facts)[0]}")
        _echo(engine_lines(facts)[1:])


@app.command("check")
def engine_check(onnx: OnnxArgument, target: TargetOption, as_json: JsonOption = False) -> None:
    """Ask TensorRT's parser whether it accepts ONNX: exit code 0 if it does, 1 if it does not."""
    from edgerecover.artifacts import to_json
    from edgerecover.config import load_target
    from edgerecover.export.engines import recipe_for
    from edgerecover.report.engines import acceptance_lines
    from edgerecover.runtime.engine.engine import check_accepted

    recipe = recipe_for(load_target(target), _precision(onnx))
    acceptance = check_accepted(onnx, recipe.runtime)
    if as_json:
        print_json(to_json(acceptance))
    else:
        lines = acceptance_lines(acceptance)
        typer.echo(f"{onnx}: {lines[0]}")
        _echo(lines[1:])
    raise typer.Exit(0 if acceptance.accepted else EXIT_GATE_FAILED)


@app.command("show")
def engine_show(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="Built engine, with its facts file beside it.")],
    as_json: JsonOption = False,
) -> None:
    """Show what an engine was built from and for, without loading it."""
    from edgerecover.artifacts import to_json
    from edgerecover.report.engines import engine_lines
    from edgerecover.runtime.engine.engine import facts_path, read_facts

    if not engine.is_file():
        raise BadInputError(f"{engine}: no such file", hint="check the path")
    facts = read_facts(engine)
    if facts is None:
        raise BadInputError(
            f"{engine}: {facts_path(engine).name} beside it is missing, or describes another engine",
            hint="keep the two files together; `edgerecover engine build` writes both",
        )
    if as_json:
        print_json(to_json(facts))
    else:
        typer.echo(f"{engine}: {engine_lines(facts)[0]}")
        _echo(engine_lines(facts)[1:])


def _echo(lines: list[str]) -> None:
    for line in lines:
        typer.echo(f"  {line}")


def _precision(onnx: Path) -> Precision:
    """Precision of an untrusted file; its external data is checked on the way."""
    from edgerecover.export.engines import precision_of
    from edgerecover.models.onnx.file import read_onnx

    return precision_of(read_onnx(onnx))


def _batch(text: str | None) -> BatchRange | None:
    from edgerecover.artifacts import BatchRange

    if text is None:
        return None
    try:
        sizes = [int(part) for part in text.split(",")]
        least, usual, most = sizes * 3 if len(sizes) == 1 else sizes
    except ValueError as error:
        raise BadInputError(
            f"--batch-range {text}: expected one size, or three in ascending order",
            hint="for example --batch-range 1,1,8",
        ) from error
    return BatchRange(least, usual, most)


def _check_machine(device: Target, recipe: EngineRecipe) -> None:
    """TensorRT builds for the GPU it runs on: the device would refuse an engine from another machine."""
    from edgerecover.artifacts import TENSORRT
    from edgerecover.runtime.machine.host import differences, this_host

    if recipe.runtime != TENSORRT or not (found := differences(device.needs, this_host())):
        return
    raise MissingError(
        f"an engine for {device.name} must be built on that device, which this machine is not: {'; '.join(found)}",
        hint="`edgerecover engine check` tells whether TensorRT accepts the file; the runner builds it on the device",
    )
