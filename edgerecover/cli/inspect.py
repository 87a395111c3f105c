"""Parts of the way, one at a time: `synthesize`, `prune`, `record`, `inspect`, and `trust`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.following import following
from edgerecover.cli.inputs import input_spec, require_checkpoint, require_file
from edgerecover.cli.options import (
    ArchOption,
    DeviceOption,
    EventsOption,
    ForceOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    PruningPattern,
    RangeOption,
    RecordOption,
    SeedOption,
    ShapeOption,
    SparsityOption,
    StdOption,
    TrustOption,
    TrustPickleOption,
)
from edgerecover.cli.outputs import beside_bundle, require_free, require_outside, require_suffix


class ImageSetName(str, Enum):
    """The sets that `synthesize` makes."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    HELD_BACK = "held-back"


RecordKind = Literal["joint", "top-layer", "all-layers", "all-layers-spectral", "layer-pairs-spectral"]
"""That of `edgerecover.synthesize.record`, which `--help` need not import; mypy compares the two."""


def inspect(
    model: ModelArgument,
    arch: ArchOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a checkpoint holds: format, architecture, sparsity per layer, and whether the teacher is inside."""
    require_file(model)
    from edgerecover.artifacts import to_json
    from edgerecover.models.pair.networks import inspect as inspect_model
    from edgerecover.report.terminal import print_facts

    input = input_spec(input_shape, mean, std, pixel_range)
    facts = inspect_model(model, arch=arch, input_flags=input, trust_code=trust_code, trust_pickle=trust_pickle)
    if as_json:
        print_json(to_json(facts))
    else:
        print_facts(stdout(), facts)


def prune(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write it: .safetensors, or .pt or .pth.")],
    sparsity: SparsityOption = None,
    pattern: Annotated[
        PruningPattern,
        typer.Option("--pattern", help="What goes: weights, of all layers together or each alone, or channels."),
    ] = "unstructured",
    arch: ArchOption = None,
    input_shape: ShapeOption = None,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    force: ForceOption = False,
) -> None:
    """Prune a dense MODEL by magnitude of Conv and Linear weights; nothing is trained."""
    require_checkpoint(model)
    require_suffix("--out", out, (".safetensors", ".pt", ".pth"))
    require_free("--out", out, force=force)
    from edgerecover.prune import asked_pruning

    pruning = asked_pruning(pattern, sparsity)
    assert pruning is not None, "a pattern was given"
    from edgerecover.commands.run import prune_file

    input = input_spec(input_shape, None, None, None)
    pruned = prune_file(model, out, pruning, arch=arch, input=input, trust_code=trust_code, trust_pickle=trust_pickle)
    zeros = pruned.sparsity
    if pattern == "channel":
        typer.echo(f"{out}: {100 * pruned.macs_kept:.1f} % of the MACs and {zeros.num_weights:,} weights are left")
    else:
        typer.echo(
            f"{out}: {zeros.num_zeros:,} of {zeros.num_weights:,} weights are zero ({100 * zeros.sparsity:.2f} %)"
        )
    for note in pruned.notes:
        typer.echo(note)


def synthesize(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="Checkpoint of the dense network.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images.")],
    sets: Annotated[
        list[ImageSetName] | None,
        typer.Option("--set", help="Which images; may be given several times. [all three]"),
    ] = None,
    arch: ArchOption = None,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="How they are dreamt: a name of `profiles list`, or a .toml file.")
    ] = "balanced",
    work: Annotated[
        Path | None, typer.Option("--work", help="Where dreams are kept between runs. [.edgerecover beside --out]")
    ] = None,
    record: RecordOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
) -> None:
    """Dream images from a dense TEACHER and write them as .npy network inputs, for a quantiser say."""
    from edgerecover.config import load_profile

    loaded_profile = load_profile(profile)
    input = input_spec(input_shape, mean, std, pixel_range)
    require_checkpoint(teacher)
    from edgerecover.artifacts import to_json
    from edgerecover.commands.synthesize import DreamRequest, synthesize_images
    from edgerecover.synthesize.sets import SPLITS

    require_outside("--out", out)
    asked = [name.value.replace("-", "_") for name in sets or ()]
    request = DreamRequest(
        teacher=teacher,
        profile=loaded_profile,
        out=out,
        work=work or out.absolute().parent / ".edgerecover",
        splits=tuple(split for split in SPLITS if not asked or split in asked),
        arch=arch,
        record=record,
        input=input,
        seed=seed,
        device=device,
        trust_code=trust_code,
    )
    with following("synthesize", work=request.work, events=events) as progress:
        done = synthesize_images(request, progress)
    if as_json:
        print_json({"out": str(out), "files": list(done.files), "synthetic": to_json(done.facts)})
        return
    for name in done.files:
        typer.echo(f"{out / name}")
    if done.facts.teacher_agrees_with_target is not None:
        typer.echo(f"{done.facts.teacher_agrees_with_target:.1%} are seen as their class by the teacher")


def record_command(
    model: Annotated[Path, typer.Argument(metavar="DENSE", help="Checkpoint of the dense network.")],
    data: Annotated[
        Path, typer.Option("--data", help="Labelled real images (npz or ImageFolder) that it was trained on.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Record file. [DENSE.record.safetensors]")] = None,
    kind: Annotated[RecordKind, typer.Option("--kind", help="Which statistics; see the documentation.")] = "joint",
    noise: Annotated[
        float,
        typer.Option("--noise", help="Gaussian noise on every statistic, in its standard errors.", min=0.0, max=100.0),
    ] = 0.0,
    arch: ArchOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    trust_code: TrustOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    events: EventsOption = None,
) -> None:
    """Write statistics of DENSE's activations on its own data: what to ship so that others can recover it."""
    require_file(model)
    from edgerecover.artifacts import to_json
    from edgerecover.commands.run import make_record
    from edgerecover.synthesize.record.make import Recording

    path = out or beside_bundle(model.parent) / f"{model.stem}.record.safetensors"
    require_suffix("--out", path, (".safetensors",))
    require_free("--out", path, force=force)
    input = input_spec(input_shape, mean, std, pixel_range)
    with following("record", events=events) as progress:
        facts = make_record(
            model, data, path, Recording(kind, noise),
            arch=arch, input=input, trust_code=trust_code, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(to_json(facts))
    else:
        typer.echo(
            f"{path}: {facts.kind} record of {facts.num_images:,} images, {facts.size_bytes / 1000:,.0f} kB; "
            f"noise: {f'{facts.noise:g} standard errors' if facts.noise else 'none'}"
        )
        typer.echo("what it tells about the images: docs/explanation/activation-records.md; look before you ship it")


def trust(
    folder: Annotated[Path, typer.Argument(help="Folder whose model.toml and Python files you have read.")],
) -> None:
    """Allow the Python code that a model.toml in FOLDER names, as long as its files stay as they are now."""
    from edgerecover.models.name.trust import trust as trust_folder

    record = trust_folder(folder)
    typer.echo(f"trusted {len(record.files)} files in {record.folder}; a changed or new one needs `trust` again")
