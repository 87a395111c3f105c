"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Checkpoint, of any of the formats in the docs, or its folder.")
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch", help="file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or transformers:FOLDER."
    ),
]
ShapeOption = Annotated[str | None, typer.Option("--input-shape", help="C,H,W of one input, e.g. 3,224,224.")]
MeanOption = Annotated[str | None, typer.Option("--mean", help="Per channel, e.g. 0.485,0.456,0.406.")]
StdOption = Annotated[str | None, typer.Option("--std", help="Per channel, e.g. 0.229,0.224,0.225.")]
RangeOption = Annotated[str | None, typer.Option("--pixel-range", help="Before mean and std: 0,1 or 0,255.")]
TrustOption = Annotated[bool, typer.Option("--trust-code", help="Run the Python code that model.toml names.")]
TrustPickleOption = Annotated[
    bool, typer.Option("--trust-pickle", help="Really unpickle a whole module, which runs code that its file names.")
]
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
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what is there already.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]
EventsOption = Annotated[
    str | None,
    typer.Option("--events", help="Write progress as JSON lines to this file, pipe, or - for stderr."),
]
OnOption = Annotated[
    str | None,
    typer.Option("--on", help="ssh://user@host[:port]: run the bundle's runner there; settles the target's gates."),
]
SshConfigOption = Annotated[
    Path | None, typer.Option("--ssh-config", help="OpenSSH configuration for --on. [~/.ssh/config]")
]
DevicePythonOption = Annotated[
    str, typer.Option("--device-python", help="Python on the device of --on, with numpy and the runtime.")
]
