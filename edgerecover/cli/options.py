"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Checkpoint in any supported format, or its folder.")
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch", help="file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or transformers:FOLDER."
    ),
]
ShapeOption = Annotated[str | None, typer.Option("--input-shape", help="Input shape as C,H,W, e.g. 3,224,224.")]
MeanOption = Annotated[str | None, typer.Option("--mean", help="Mean per channel, e.g. 0.485,0.456,0.406.")]
StdOption = Annotated[str | None, typer.Option("--std", help="Standard deviation per channel, e.g. 0.229,0.224,0.225.")]
RangeOption = Annotated[
    str | None, typer.Option("--pixel-range", help="Pixel range before mean and std: 0,1 or 0,255.")
]
AssumeOption = Annotated[
    bool, typer.Option("--assume", help="Accept the input of the library's own weights where nothing names another.")
]
TrustOption = Annotated[bool, typer.Option("--trust-code", help="Run the Python code that model.toml names.")]
TrustPickleOption = Annotated[
    bool, typer.Option("--trust-pickle", help="Unpickle a whole saved module, which runs code that the file names.")
]
PruningPattern = Literal["unstructured", "layerwise", "2:4", "channel"]
"""That of `edgerecover.prune`, which `--help` need not import; mypy compares the two."""
SparsityOption = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        help="Fraction of weights to prune, e.g. 0.75; of MACs (±0.03) with --pattern channel; not with 2:4.",
    ),
]
TargetOption = Annotated[
    str, typer.Option("--target", "-t", help="Target device: a name from `targets list`, or a .toml file.")
]
EvalDataOption = Annotated[
    Path | None,
    typer.Option("--eval-data", help="Labelled real images (npz or ImageFolder), for evaluation only."),
]
RecordOption = Annotated[
    Path | None,
    typer.Option("--record", help="Activation record shipped with the teacher; see `edgerecover record`."),
]
TeacherArchOption = Annotated[
    str | None, typer.Option("--teacher-arch", help="Teacher's architecture, if not MODEL's; same syntax as --arch.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Random seed.", min=0)]
DeviceOption = Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Device to compute on.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result to stdout as JSON.")]
EventsOption = Annotated[
    str | None,
    typer.Option("--events", help="Write progress as JSON lines to this file or pipe; - for stderr."),
]
OnOption = Annotated[
    str | None,
    typer.Option("--on", help="Run the bundle on this device, ssh://user@host[:port], and settle the target's gates."),
]
SshConfigOption = Annotated[
    Path | None, typer.Option("--ssh-config", help="OpenSSH configuration file for --on. Default: ~/.ssh/config.")
]
DevicePythonOption = Annotated[
    str, typer.Option("--device-python", help="Python on that device, with numpy and the runtime installed.")
]
