"""`record`: statistics of a teacher's activations on its own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgerecover.cli.console import print_json
from edgerecover.cli.following import following
from edgerecover.cli.inputs import model_flags
from edgerecover.cli.options import (
    MODEL,
    OUTPUT,
    RECOVERY,
    ArchOption,
    AssumeOption,
    EventsOption,
    ForceOption,
    JsonOption,
    MeanOption,
    QuietOption,
    RangeOption,
    ShapeOption,
    StdOption,
    TaskOption,
    TrustOption,
    TrustPickleOption,
)
from edgerecover.commands.inputs import require_file
from edgerecover.commands.outputs import beside_bundle, require_free, require_suffix

RecordKind = Literal["joint", "top-layer", "all-layers", "all-layers-spectral", "layer-pairs-spectral"]
"""That of `edgerecover.synthesis.record`, which `--help` need not import; mypy compares the two."""


def record_command(
    model: Annotated[Path, typer.Argument(metavar="TEACHER", help="Checkpoint of the dense network.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="Labelled real images (npz or ImageFolder) it was trained on.", rich_help_panel=MODEL
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Record file. Default: TEACHER.record.safetensors.", rich_help_panel=OUTPUT),
    ] = None,
    kind: Annotated[
        RecordKind,
        typer.Option("--kind", help="Statistics to record; see the documentation.", rich_help_panel=RECOVERY),
    ] = "joint",
    noise: Annotated[
        float,
        typer.Option(
            "--noise",
            help="Gaussian noise added to every statistic, in standard errors.",
            min=0.0,
            max=100.0,
            rich_help_panel=RECOVERY,
        ),
    ] = 0.0,
    arch: ArchOption = None,
    task: TaskOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    assume: AssumeOption = False,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Record statistics of a dense TEACHER's activations on its own data, to ship so that others can recover it."""
    require_file(model)
    from edgerecover.artifacts import to_json
    from edgerecover.commands.record import make_record
    from edgerecover.synthesis.record.make import Recording

    path = out or beside_bundle(model.parent) / f"{model.stem}.record.safetensors"
    require_suffix("--out", path, (".safetensors",))
    require_free("--out", path, force=force)
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
    with following("record", events=events, quiet=quiet) as progress:
        facts = make_record(model, data, path, Recording(kind, noise), flags, progress)
    if as_json:
        print_json(to_json(facts))
    else:
        typer.echo(
            f"{path}: {facts.kind} record of {facts.num_images:,} images, {facts.size_bytes / 1000:,.0f} kB; "
            f"noise: {f'{facts.noise:g} standard errors' if facts.noise else 'none'}"
        )
        typer.echo("before you ship it, read what it reveals about the images: edgerecover help activation-records")
