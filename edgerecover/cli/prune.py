"""`prune`: a dense checkpoint, pruned by magnitude."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.inputs import model_flags
from edgerecover.cli.options import (
    OUTPUT,
    RECOVERY,
    ArchOption,
    ForceOption,
    ForOption,
    ModelArgument,
    PruningPattern,
    ShapeOption,
    SparsityOption,
    TrustOption,
    TrustPickleOption,
)
from edgerecover.commands.inputs import require_checkpoint
from edgerecover.commands.outputs import require_free, require_suffix


def prune(
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output file: .safetensors, .pt or .pth.", rich_help_panel=OUTPUT)
    ],
    sparsity: SparsityOption = None,
    pattern: Annotated[
        PruningPattern,
        typer.Option(
            "--pattern",
            help="What to prune: weights globally or per layer, 2:4 groups, or channels.",
            rich_help_panel=RECOVERY,
        ),
    ] = "unstructured",
    for_runtime: ForOption = None,
    arch: ArchOption = None,
    input_shape: ShapeOption = None,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    force: ForceOption = False,
) -> None:
    """Prune the Conv and Linear weights of a dense MODEL by magnitude, without training."""
    require_checkpoint(model)
    require_suffix("--out", out, (".safetensors", ".pt", ".pth"))
    require_free("--out", out, force=force)
    from edgerecover.pruning import pruning_from_flags

    pruning = pruning_from_flags(pattern, sparsity, for_runtime)
    assert pruning is not None, "a pattern was given"
    from edgerecover.commands.prune import prune_file

    flags = model_flags(arch, input_shape, trust_code=trust_code, trust_pickle=trust_pickle)
    pruned = prune_file(model, out, pruning, flags)
    zeros = pruned.sparsity
    if pattern == "channel":
        typer.echo(f"{out}: {100 * pruned.macs_kept:.1f} % of the MACs and {zeros.num_weights:,} weights remain")
    else:
        typer.echo(
            f"{out}: {zeros.num_zeros:,} of {zeros.num_weights:,} weights are zero ({100 * zeros.sparsity:.2f} %)"
        )
    for note in pruned.notes:
        typer.echo(note)
