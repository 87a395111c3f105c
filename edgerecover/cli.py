"""The command line: parse, one call, render, exit code. The only place that prints or exits.

stdout is for results, stderr for progress and messages. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgerecover import __version__
from edgerecover.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    BadInputError,
    EdgeRecoverError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from edgerecover.artifacts import InputSpec, Report
    from edgerecover.pipeline import Request
    from edgerecover.progress import Progress

app = typer.Typer(
    name="edgerecover",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Recover a pruned image classifier without data, export it, judge the exported file, pack it for the device.",
)
bundle_app = typer.Typer(no_args_is_help=True, help="Check and show bundles.")
targets_app = typer.Typer(no_args_is_help=True, help="Devices that edgerecover knows.")
profiles_app = typer.Typer(no_args_is_help=True, help="Recipes and their gates.")
app.add_typer(bundle_app, name="bundle")
app.add_typer(targets_app, name="targets")
app.add_typer(profiles_app, name="profiles")

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="Checkpoint, of any of the formats in the docs.")]
ArchOption = Annotated[
    str | None, typer.Option("--arch", help="file.py:factory, package.module:factory, torchvision:NAME or timm:NAME.")
]
ShapeOption = Annotated[str | None, typer.Option("--input-shape", help="C,H,W of one input, e.g. 3,224,224.")]
MeanOption = Annotated[str | None, typer.Option("--mean", help="Per channel, e.g. 0.485,0.456,0.406.")]
StdOption = Annotated[str | None, typer.Option("--std", help="Per channel, e.g. 0.229,0.224,0.225.")]
RangeOption = Annotated[str | None, typer.Option("--pixel-range", help="Before mean and std: 0,1 or 0,255.")]
TrustOption = Annotated[bool, typer.Option("--trust-code", help="Run the Python code that model.toml names.")]
TrustPickleOption = Annotated[
    bool, typer.Option("--trust-pickle", help="Really unpickle a whole module, which runs code that its file names.")
]


class ImageSetName(str, Enum):
    """The sets that `synthesize` makes."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    HELD_BACK = "held-back"


PruningPattern = Literal["unstructured", "layerwise", "2:4", "channel"]
"""That of `edgerecover.prune`, which `--help` need not import; mypy compares the two."""
SparsityOption = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        help="Fraction of weights to prune, e.g. 0.75; with --pattern channel, of MACs (within 0.03); not with 2:4.",
    ),
]
TargetOption = Annotated[str, typer.Option("--target", "-t", help="Device: a name of `targets list`, or a .toml file.")]
EvalDataOption = Annotated[
    Path | None,
    typer.Option("--eval-data", help="Labelled real images (npz or ImageFolder): judged, never learnt."),
]
RecordOption = Annotated[
    Path | None,
    typer.Option("--record", help="Activation record shipped with the teacher (`edgerecover record` makes one)."),
]
TeacherArchOption = Annotated[
    str | None, typer.Option("--teacher-arch", help="Its architecture, where it is not MODEL's: spelled as --arch.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of all randomness.", min=0)]
DeviceOption = Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where to compute.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]


def main() -> None:
    """Run the command line, and turn whatever goes wrong into a message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # bars and dashes must not end a run on an ASCII terminal
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app([a for a in arguments if a != "--debug"], prog_name="edgerecover")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except EdgeRecoverError as error:
        _show_error(error)
        if debug:
            raise
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_INTERNAL)
    except Exception as error:
        if debug:
            raise
        internal = EdgeRecoverError(
            f"internal error: {type(error).__name__}: {error}",
            hint="this is a fault of edgerecover; run again with --debug and report the trace",
        )
        _show_error(internal)
        sys.exit(EXIT_INTERNAL)


def _show_error(error: EdgeRecoverError) -> None:
    console = _stderr()
    console.print(f"[bold red]error:[/] {_escaped(error.message)}", highlight=False, soft_wrap=True)
    if error.hint:
        console.print(f"[bold]next:[/]  {_escaped(error.hint)}", highlight=False, soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _stdout() -> Console:
    from rich.console import Console

    return Console()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgerecover {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full trace of an error.")] = False,
) -> None:
    """`main` has read --debug already, wherever it stood; it is declared here to show in the help."""


@app.command("run")
def run_command(
    model: ModelArgument,
    target: TargetOption,
    teacher: Annotated[Path | None, typer.Option("--teacher", help="Checkpoint of the dense network.")] = None,
    arch: ArchOption = None,
    teacher_arch: TeacherArchOption = None,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="Recipe: a name of `profiles list`, or a .toml file.")
    ] = "balanced",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Bundle folder. [MODEL.TARGET.bundle]")] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Where dreams are kept between runs. [.edgerecover beside the bundle]"),
    ] = None,
    pattern: Annotated[
        PruningPattern | None,
        typer.Option("--pattern", help="Prune a dense MODEL to this pattern."),
    ] = None,
    sparsity: SparsityOption = None,
    eval_data: EvalDataOption = None,
    record: RecordOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    batch: Annotated[
        int, typer.Option("--batch", help="Static batch size of the exported file; 0 for dynamic.", min=0)
    ] = 1,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recover a pruned MODEL without data, export it, judge the exported file and pack it for TARGET."""
    from edgerecover.config import load_profile, load_target

    loaded_target, loaded_profile = load_target(target), load_profile(profile)
    input = _input_spec(input_shape, mean, std, pixel_range)
    _require_checkpoint(model)
    from edgerecover.prune import asked_pruning

    pruning = asked_pruning(pattern, sparsity)
    bundle = out or model.parent / f"{model.stem}.{loaded_target.name}.bundle"
    from edgerecover.pipeline import Request

    request = Request(
        model_path=model,
        target=loaded_target,
        profile=loaded_profile,
        out=bundle,
        work=work or bundle.absolute().parent / ".edgerecover",
        arch=arch,
        teacher=teacher,
        teacher_arch=teacher_arch,
        input=input,
        pruning=pruning,
        eval_data=eval_data,
        record=record,
        seed=seed,
        device=device,
        batch=batch or None,
        trust_code=trust_code,
        trust_pickle=trust_pickle,
    )
    _run_and_show(request, as_json)


def _run_and_show(request: Request, as_json: bool) -> None:
    from edgerecover.pipeline import run

    with _dreaming(request.work) as progress:
        report = run(request, progress)
    _show_report(report, str(request.out), as_json)


@contextmanager
def _dreaming(work: Path) -> Iterator[Progress]:
    """Progress on stderr; whoever interrupts is told what is kept."""
    progress = _progress()
    try:
        yield progress
    except KeyboardInterrupt:
        progress.note(f"interrupted; finished dreams are kept in {work}, the same command goes on from there")
        raise


def _show_report(report: Report, bundle: str | None, as_json: bool) -> None:
    from edgerecover.artifacts import to_json
    from edgerecover.report.terminal import print_report
    from edgerecover.validate.gates import exit_code

    if as_json:
        _print_json({"bundle": bundle, "verdict": report.verdict.value, **to_json(report)})
    else:
        print_report(_stdout(), report, bundle)
    raise typer.Exit(exit_code(report.verdict))


@app.command()
def validate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file of a classifier, recovered anywhere.")],
    target: TargetOption,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="The dense network: a checkpoint, or an .onnx file.")
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option("--student", help="Checkpoint that MODEL was exported from, to compare with."),
    ] = None,
    pruned: Annotated[
        Path | None,
        typer.Option("--pruned", help="Checkpoint before its recovery: MODEL must not be worse."),
    ] = None,
    arch: ArchOption = None,
    teacher_arch: TeacherArchOption = None,
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="Gates and dreams: a name of `profiles list`, or a .toml file.")
    ] = "balanced",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Pack a bundle there. [none]")] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="Where dreams are kept between runs. [.edgerecover beside MODEL]")
    ] = None,
    eval_data: EvalDataOption = None,
    record: RecordOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge an ONNX file that was recovered elsewhere beside its dense teacher, and pack it with --out."""
    from edgerecover.config import load_profile, load_target

    loaded_target, loaded_profile = load_target(target), load_profile(profile)
    input = _input_spec(input_shape, mean, std, pixel_range)
    _require_file(model)
    from edgerecover.second_half import FileRequest, validate_file

    request = FileRequest(
        model_path=model,
        target=loaded_target,
        profile=loaded_profile,
        work=work or model.absolute().parent / ".edgerecover",
        out=out,
        teacher=teacher,
        student=student,
        pruned=pruned,
        arch=arch,
        input=input,
        teacher_arch=teacher_arch,
        eval_data=eval_data,
        record=record,
        seed=seed,
        device=device,
        trust_code=trust_code,
    )
    with _dreaming(request.work) as progress:
        report = validate_file(request, progress)
    _show_report(report, str(out) if out else None, as_json)


@app.command()
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
) -> None:
    """Dream images from a dense TEACHER and write them as .npy network inputs, for a quantiser say."""
    from edgerecover.config import load_profile

    loaded_profile = load_profile(profile)
    input = _input_spec(input_shape, mean, std, pixel_range)
    _require_checkpoint(teacher)
    from edgerecover.artifacts import to_json
    from edgerecover.hand_off import DreamRequest, synthesize_images
    from edgerecover.synthesize.stage import SPLITS

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
    with _dreaming(request.work) as progress:
        done = synthesize_images(request, progress)
    if as_json:
        _print_json({"out": str(out), "files": list(done.files), "synthetic": to_json(done.facts)})
        return
    for name in done.files:
        typer.echo(f"{out / name}")
    if done.facts.teacher_agrees_with_target is not None:
        typer.echo(f"{done.facts.teacher_agrees_with_target:.1%} are seen as their class by the teacher")


def _progress() -> Progress:
    from edgerecover.report.live import LiveProgress

    return LiveProgress(_stderr())


def _require_file(path: Path) -> None:
    if not path.exists():
        raise BadInputError(f"{path} does not exist", hint="give the path of a file")


def _require_checkpoint(path: Path) -> None:
    """What is to be trained, pruned or dreamt from; an ONNX file can only be judged."""
    if not path.exists():
        raise BadInputError(f"{path} does not exist", hint="MODEL is the path of a checkpoint")
    if path.suffix.lower() == ".onnx":
        raise BadInputError(
            f"{path} is an ONNX file, which can be judged and not changed: it has no gradients",
            hint="`edgerecover validate` judges it beside its teacher; here the PyTorch checkpoint is needed",
        )


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInputError(
            f"{flag} {text!r} is not a list of numbers", hint=f"for example {flag} 0.5,0.5,0.5"
        ) from error


def _input_spec(shape: str | None, mean: str | None, std: str | None, pixel_range: str | None) -> InputSpec | None:
    """The flags about preprocessing as one value; None when none was given."""
    given = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "range": _numbers("--pixel-range", pixel_range),
    }
    given = {key: value for key, value in given.items() if value is not None}
    sides = _numbers("--input-shape", shape)
    if sides is None:
        if given:
            raise BadInputError(
                "--mean, --std and --pixel-range need --input-shape",
                hint="for example --input-shape 3,224,224",
            )
        return None
    from pydantic import ValidationError

    from edgerecover.config import ModelFileInput

    try:
        return ModelFileInput.model_validate({"shape": sides, **given}).to_spec()
    except ValidationError as error:
        problem = error.errors()[0]
        where = "--" + str(problem["loc"][0]) if problem["loc"] else "--mean/--std"
        raise BadInputError(
            f"input flags: {where}: {problem['msg'].removeprefix('Value error, ')}",
            hint="for example --input-shape 3,224,224",
        ) from error


@app.command()
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
    _require_file(model)
    from edgerecover.artifacts import to_json
    from edgerecover.models.networks import inspect as inspect_model
    from edgerecover.report.terminal import print_facts

    input = _input_spec(input_shape, mean, std, pixel_range)
    facts = inspect_model(model, arch=arch, input_flags=input, trust_code=trust_code, trust_pickle=trust_pickle)
    if as_json:
        _print_json(to_json(facts))
    else:
        print_facts(_stdout(), facts)


@app.command()
def prune(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the pruned checkpoint (.safetensors).")],
    sparsity: SparsityOption = None,
    pattern: Annotated[
        PruningPattern,
        typer.Option("--pattern", help="What goes: weights, of all layers together or each alone, or channels."),
    ] = "unstructured",
    arch: ArchOption = None,
    input_shape: ShapeOption = None,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
) -> None:
    """Prune a dense MODEL by magnitude of Conv and Linear weights; nothing is trained."""
    _require_checkpoint(model)
    from edgerecover.prune import asked_pruning

    pruning = asked_pruning(pattern, sparsity)
    assert pruning is not None, "a pattern was given"
    from edgerecover.pipeline import prune_file

    input = _input_spec(input_shape, None, None, None)
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


RecordKind = Literal["joint", "top-layer", "all-layers", "all-layers-spectral", "layer-pairs-spectral"]
"""That of `edgerecover.synthesize.record`, which `--help` need not import; mypy compares the two."""


@app.command("record")
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
    as_json: JsonOption = False,
) -> None:
    """Write statistics of DENSE's activations on its own data: what to ship so that others can recover it."""
    _require_file(model)
    from edgerecover.artifacts import to_json
    from edgerecover.pipeline import make_record
    from edgerecover.synthesize.record.make import Recording

    path = out or model.with_name(f"{model.stem}.record.safetensors")
    facts = make_record(
        model,
        data,
        path,
        Recording(kind, noise),
        arch=arch,
        input=_input_spec(input_shape, mean, std, pixel_range),
        trust_code=trust_code,
        progress=_progress(),
    )
    if as_json:
        _print_json(to_json(facts))
    else:
        typer.echo(
            f"{path}: {facts.kind} record of {facts.num_images:,} images, {facts.size_bytes / 1000:,.0f} kB; "
            f"noise: {f'{facts.noise:g} standard errors' if facts.noise else 'none'}"
        )
        typer.echo("what it tells about the images: docs/explanation/activation-records.md; look before you ship it")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the demo's files and bundle.")] = Path(
        "edgerecover-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Of all randomness.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Recover a collapsed digit classifier without data, and show its true accuracy on real test images."""
    from edgerecover.demo import DATA_CREDIT
    from edgerecover.demo.example import demo_request

    request = demo_request(out, seed)
    if not as_json:
        console = _stderr()
        console.print(
            "A digit classifier that lost its accuracy to pruning. No training image is used.",
            highlight=False,
        )
        console.print(f"[dim]Test images: {DATA_CREDIT}[/]", highlight=False)
    _run_and_show(request, as_json)


@app.command()
def trust(
    folder: Annotated[Path, typer.Argument(help="Folder whose model.toml and Python files you have read.")],
) -> None:
    """Allow the Python code that a model.toml in FOLDER names, as long as its files stay as they are now."""
    from edgerecover.models.trust import trust as trust_folder

    record = trust_folder(folder)
    typer.echo(f"trusted {len(record.files)} files in {record.folder}; a changed or new one needs `trust` again")


@bundle_app.command("verify")
def bundle_verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    as_json: JsonOption = False,
) -> None:
    """Check every file of BUNDLE against its manifest."""
    from edgerecover.bundle.verify import verify_bundle

    manifest = verify_bundle(bundle)
    if as_json:
        _print_json({"verified": True, "files": sorted(manifest.files)})
    else:
        typer.echo(f"{bundle}: {len(manifest.files)} files are what the manifest says")


@bundle_app.command("show")
def bundle_show(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    as_json: JsonOption = False,
) -> None:
    """Verify BUNDLE and show the report inside it."""
    from edgerecover.artifacts import Report, from_json
    from edgerecover.bundle.verify import verify_bundle

    verify_bundle(bundle)
    try:
        data = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
        report = from_json(Report, data)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{bundle}/report.json cannot be read: {error}", hint="was it written by another version?"
        ) from error
    if as_json:
        _print_json(data)
        return
    from edgerecover.report.terminal import print_report

    print_report(_stdout(), report, str(bundle))


@targets_app.command("list")
def targets_list(as_json: JsonOption = False) -> None:
    """List the shipped targets."""
    from edgerecover.config import load_target, shipped_names

    _print_list({name: load_target(name).description for name in shipped_names("targets")}, as_json)


@targets_app.command("show")
def targets_show(name: Annotated[str, typer.Argument(help="Name or .toml file.")], as_json: JsonOption = False) -> None:
    """Show every fact of a target with its source."""
    from edgerecover.config import load_target

    _print_settings(load_target(name).model_dump(mode="json", exclude_none=True), as_json)


@profiles_app.command("list")
def profiles_list(as_json: JsonOption = False) -> None:
    """List the shipped profiles."""
    from edgerecover.config import load_profile, shipped_names

    _print_list({name: load_profile(name).description for name in shipped_names("profiles")}, as_json)


@profiles_app.command("show")
def profiles_show(
    name: Annotated[str, typer.Argument(help="Name or .toml file.")], as_json: JsonOption = False
) -> None:
    """Show every setting of a profile, inherited ones included."""
    from edgerecover.config import load_profile

    _print_settings(load_profile(name).model_dump(mode="json"), as_json)


def _print_list(descriptions: dict[str, str], as_json: bool) -> None:
    from edgerecover.report.terminal import print_pairs

    if as_json:
        _print_json(descriptions)
    else:
        print_pairs(_stdout(), descriptions)


def _print_settings(data: dict[str, Any], as_json: bool) -> None:
    from edgerecover.report.terminal import print_settings

    if as_json:
        _print_json(data)
    else:
        print_settings(_stdout(), data)
