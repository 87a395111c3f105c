"""`bench`: latency on this machine, or on a device over SSH."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.following import following
from edgerecover.cli.inputs import device_access, input_shape_of, whole_numbers
from edgerecover.cli.options import (
    MEASUREMENT,
    DevicePythonOption,
    EventsOption,
    JsonOption,
    OnOption,
    QuietOption,
    SeedOption,
    ShapeOption,
    SshConfigOption,
)
from edgerecover.errors import EXIT_INTERNAL, BadInputError

if TYPE_CHECKING:
    from edgerecover.artifacts.bench import Bench
    from edgerecover.remote.ssh import Access

_CHECKPOINTS = (".pt", ".pth", ".safetensors")
_MAKES_ONE = "`edgerecover run` makes a bundle of a checkpoint"


def bench(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="ONNX file or bundle; a bundle is verified first.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="<path>",
            help="ONNX file or bundle to race against, e.g. the previous release; repeat for several.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            metavar="<name>",
            help="Runtime, e.g. onnxruntime or openvino; repeat for several. Default: the target's, or onnxruntime.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads",
            help="Thread counts to try, e.g. 1,2,4. Default: the runtime's choice.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            "--batches",
            help="Batch sizes to try, e.g. 1,8, if the file's batch is dynamic. Default: 1.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    cores: Annotated[
        str | None,
        typer.Option("--cores", help="Pin the measurement to these cores, e.g. 0 or 0,1.", rich_help_panel=MEASUREMENT),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Target whose runtime, providers and latency limit apply.")
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            "-p",
            help="How long to measure: a name from `profiles list`, or a .toml file.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = "balanced",
    on: OnOption = None,
    ssh_config: SshConfigOption = None,
    device_python: DevicePythonOption = "python3",
    input_shape: ShapeOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure and plot FILE's latency on this machine; what is compared runs in interleaved rounds."""
    if model.suffix.lower() in _CHECKPOINTS:
        raise BadInputError(f"{model} is a checkpoint; FILE is an ONNX file or a bundle", hint=_MAKES_ONE)
    access = device_access(on, ssh_config, device_python)
    if access is not None:
        if against or runtime or threads or batches or cores or target or input_shape:
            raise BadInputError(
                "--on lets the bundle's own runner decide what to race, and takes no other choice",
                hint="give only BUNDLE and --on",
            )
        _on_the_device(model, access, as_json, events, quiet)
    from edgerecover.commands.bench import BenchRequest
    from edgerecover.commands.bench import bench as measure
    from edgerecover.config import load_profile, load_target
    from edgerecover.runtime.measure.timing import Timing

    settings = load_profile(profile).latency
    request = BenchRequest(
        model=model,
        timing=Timing(settings.num_warmup, settings.min_queries, settings.min_duration_s),
        against=tuple(against or ()),
        runtimes=tuple(dict.fromkeys(runtime or ())),
        threads=whole_numbers("--threads", threads, least=1),
        batches=whole_numbers("--batches", batches, least=1),
        target=load_target(target) if target else None,
        cores=whole_numbers("--cores", cores, least=0),
        shape=input_shape_of(input_shape) if input_shape else None,
        seed=seed,
    )
    with following("bench", events=events, quiet=quiet) as progress:
        _show(measure(request, progress), as_json)


def _show(done: Bench, as_json: bool) -> None:
    if len(done.failures) == len(done.lanes):
        done.failures[0].latency_or_error()
    if as_json:
        print_json(_as_json(done))
    else:
        from edgerecover.report.latency import print_bench

        print_bench(stdout(), done)
    if done.failures:
        raise typer.Exit(done.failures[0].exit_code or EXIT_INTERNAL)


def _on_the_device(bundle: Path, access: Access, as_json: bool, events: str | None, quiet: bool) -> None:
    from edgerecover.artifacts import to_json
    from edgerecover.remote.device import run_on
    from edgerecover.runner.text import as_text
    from edgerecover.validation.gates import exit_code

    with following("bench", events=events, quiet=quiet) as progress:
        result = run_on(bundle, access, progress=progress)
        if as_json:
            print_json(to_json(result))
        else:
            typer.echo(as_text(result))
        raise typer.Exit(exit_code(result.verdict))


def _as_json(done: Bench) -> dict[str, Any]:
    """Everything, and of each latency what scripts ask for: percentiles with their intervals."""
    from edgerecover.artifacts import to_json
    from edgerecover.runtime.measure.doubts import doubts

    data: dict[str, Any] = to_json(done)
    for lane, written in zip(done.lanes, data["lanes"], strict=True):
        latency = lane.raced.latency
        if latency is None:
            continue
        written["percentiles_ms"] = {
            f"p{percent}": [latency.percentile_ms(percent), *latency.percentile_interval_ms(percent)]
            for percent in (50, 90, 95, 99)
        }
        written["machine"] = latency.fingerprint.digest if latency.fingerprint else None
        written["warnings"] = list(doubts(latency))
    return data
