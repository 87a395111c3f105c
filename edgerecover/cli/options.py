"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

MODEL = "Model"
RECOVERY = "Recovery"
EXPORT = "Export"
DEVICE = "Device"
OUTPUT = "Output"
COMPUTATION = "Computation"
WORK = "Work folder"
SIGNATURE = "Signature"
MEASUREMENT = "Measurement"
LIMITS = "Limits"
SCHEDULER = "Scheduler"
"""Panels of the help, in which a flag is in the same one in every command."""


def switch(*spellings: str, help: str, panel: str | None = None) -> Any:
    """An option without a value, shown without a type in the help.

    Args:
        spellings: "--force".
        help: text of the help.
        panel: heading under which the help shows it; None: among the options that have none.
    """
    return typer.Option(*spellings, help=help, rich_help_panel=panel, metavar="")


ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Checkpoint in any supported format, or its folder.")
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or transformers:FOLDER.",
        rich_help_panel=MODEL,
    ),
]
ShapeOption = Annotated[
    str | None, typer.Option("--input-shape", help="Input shape as C,H,W, e.g. 3,224,224.", rich_help_panel=MODEL)
]
MeanOption = Annotated[
    str | None, typer.Option("--mean", help="Mean per channel, e.g. 0.485,0.456,0.406.", rich_help_panel=MODEL)
]
StdOption = Annotated[
    str | None,
    typer.Option("--std", help="Standard deviation per channel, e.g. 0.229,0.224,0.225.", rich_help_panel=MODEL),
]
RangeOption = Annotated[
    str | None,
    typer.Option("--pixel-range", help="Pixel range before mean and std: 0,1 or 0,255.", rich_help_panel=MODEL),
]
AssumeOption = Annotated[
    bool,
    switch("--assume", help="Accept the input of the library's own weights where nothing names another.", panel=MODEL),
]
TrustOption = Annotated[bool, switch("--trust-code", help="Run the Python code that model.toml names.", panel=MODEL)]
TrustPickleOption = Annotated[
    bool,
    switch("--trust-pickle", help="Unpickle a whole saved module, which runs code that the file names.", panel=MODEL),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="What the network is for: one-label, binary, multi-label, embedding, regression, segmentation or "
        "detection, if neither model.toml nor its outputs tell. Of several outputs: age=regression,sick=binary.",
        rich_help_panel=MODEL,
    ),
]
PruningPattern = Literal["unstructured", "layerwise", "2:4", "channel"]
"""That of `edgerecover.pruning`, which `--help` need not import; mypy compares the two."""
SparsityOption = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        help="Fraction of weights to prune, e.g. 0.75; of MACs (±0.03) with --pattern channel; not with 2:4.",
        rich_help_panel=RECOVERY,
    ),
]
ForOption = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="RUNTIME",
        help="Put the zeros where this runtime gains by them: mnn. --sparsity is then of the weights of those layers.",
        rich_help_panel=RECOVERY,
    ),
]
TargetOption = Annotated[
    str, typer.Option("--target", "-t", help="Target device: a name from `targets list`, or a .toml file.")
]
EvalDataOption = Annotated[
    Path | None,
    typer.Option(
        "--eval-data", help="Labelled real images (npz or ImageFolder), for evaluation only.", rich_help_panel=RECOVERY
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record",
        help="Activation record shipped with the teacher; see `edgerecover record`.",
        rich_help_panel=RECOVERY,
    ),
]
TeacherArchOption = Annotated[
    str | None,
    typer.Option(
        "--teacher-arch", help="Teacher's architecture, if not MODEL's; same syntax as --arch.", rich_help_panel=MODEL
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Random seed.", min=0, rich_help_panel=COMPUTATION)]
DeviceOption = Annotated[
    Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Device to compute on.", rich_help_panel=COMPUTATION)
]
ForceOption = Annotated[bool, switch("--force", help="Overwrite existing files.", panel=OUTPUT)]
QuietOption = Annotated[
    bool, switch("--quiet", "-q", help="Show no progress; the result and errors are shown.", panel=OUTPUT)
]
JsonOption = Annotated[bool, switch("--json", help="Print the result to stdout as JSON.", panel=OUTPUT)]
EventsOption = Annotated[
    str | None,
    typer.Option(
        "--events", help="Write progress as JSON lines to this file or pipe; - for stderr.", rich_help_panel=OUTPUT
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Run the bundle on this device, ssh://user@host[:port], and settle the target's gates.",
        rich_help_panel=DEVICE,
    ),
]
SshConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--ssh-config", help="OpenSSH configuration file for --on. Default: ~/.ssh/config.", rich_help_panel=DEVICE
    ),
]
DevicePythonOption = Annotated[
    str,
    typer.Option(
        "--device-python", help="Python on that device, with numpy and the runtime installed.", rich_help_panel=DEVICE
    ),
]
