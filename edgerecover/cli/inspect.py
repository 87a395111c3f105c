"""`inspect`: what a checkpoint holds."""

from __future__ import annotations

from edgerecover.cli.console import print_json, stdout
from edgerecover.cli.inputs import model_flags
from edgerecover.cli.options import (
    ArchOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    RangeOption,
    ShapeOption,
    StdOption,
    TaskOption,
    TrustOption,
    TrustPickleOption,
)
from edgerecover.commands.inputs import require_file


def inspect(
    model: ModelArgument,
    arch: ArchOption = None,
    task: TaskOption = None,
    input_shape: ShapeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    pixel_range: RangeOption = None,
    trust_code: TrustOption = False,
    trust_pickle: TrustPickleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a checkpoint's format, architecture and sparsity per layer, and whether it contains the teacher."""
    require_file(model)
    from edgerecover.artifacts import to_json
    from edgerecover.models.pair.networks import inspect as inspect_model
    from edgerecover.report.terminal import print_facts

    facts = inspect_model(
        model,
        model_flags(
            arch, input_shape, mean, std, pixel_range, trust_code=trust_code, trust_pickle=trust_pickle, task=task
        ),
    )
    if as_json:
        print_json(to_json(facts))
    else:
        print_facts(stdout(), facts)
