"""`synthesize`: images from a dense teacher, as files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import print_json
from edgerecover.cli.following import following
from edgerecover.cli.inputs import model_flags
from edgerecover.cli.options import (
    OUTPUT,
    RECOVERY,
    WORK,
    ArchOption,
    AssumeOption,
    DeviceOption,
    EventsOption,
    JsonOption,
    MeanOption,
    QuietOption,
    RangeOption,
    RecordOption,
    SeedOption,
    ShapeOption,
    StdOption,
    TaskOption,
    TrustOption,
    TrustPickleOption,
)
from edgerecover.commands.inputs import require_checkpoint
from edgerecover.commands.outputs import require_outside


class ImageSetName(str, Enum):
    """The sets that `synthesize` makes."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    HELD_BACK = "held-back"


def synthesize(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="Checkpoint of the dense network.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images.", rich_help_panel=OUTPUT)],
    sets: Annotated[
        list[ImageSetName] | None,
        typer.Option(
            "--set",
            metavar="<train|calibration|held-back>",
            help="Set to write; repeat for several. Default: all three.",
            rich_help_panel=RECOVERY,
        ),
    ] = None,
    arch: ArchOption = None,
    task: TaskOption = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            "-p",
            help="Synthesis recipe: a name from `profiles list`, or a .toml file.",
            rich_help_panel=RECOVERY,
        ),
    ] = "balanced",
    record: RecordOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    assume: AssumeOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
    quiet: QuietOption = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder for results reused between runs. Default: .edgerecover beside --out.",
            rich_help_panel=WORK,
        ),
    ] = None,
) -> None:
    """Synthesize images from a dense TEACHER and write them as .npy network inputs, e.g. for a quantiser."""
    from edgerecover.config import load_profile

    loaded_profile = load_profile(profile)
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
    require_checkpoint(teacher)
    from edgerecover.artifacts import TaskKind, to_json
    from edgerecover.commands.synthesize import synthesize_images
    from edgerecover.stages.request import DreamRequest
    from edgerecover.synthesis.sets import SPLITS
    from edgerecover.tasks.measure import words_of

    require_outside("--out", out)
    asked = [name.value.replace("-", "_") for name in sets or ()]
    request = DreamRequest(
        teacher=teacher,
        profile=loaded_profile,
        out=out,
        work=work or out.absolute().parent / ".edgerecover",
        splits=tuple(split for split in SPLITS if not asked or split in asked),
        flags=flags,
        record=record,
        seed=seed,
        device=device,
    )
    with following("synthesize", work=request.work, events=events, quiet=quiet) as progress:
        done = synthesize_images(request, progress)
    if as_json:
        print_json({"out": str(out), "files": list(done.files), "synthetic": to_json(done.facts)})
        return
    for name in done.files:
        typer.echo(f"{out / name}")
    if (share := done.facts.teacher_agrees_with_target) is None:
        return
    if done.task is TaskKind.SEVERAL:
        typer.echo(f"the teacher answers {share:.1%} of them as they were made for, in every output with targets")
    elif words_of(done.task).is_graded:
        typer.echo(f"the teacher gives {share:.1%} of them the labels that they were made for")
    else:
        typer.echo(f"the teacher assigns {share:.1%} of them to their target class")
