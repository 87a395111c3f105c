"""What a checkpoint holds, as the frozen value that reports keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec, ModelFacts, OutputSpec
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.macs import count_macs
from edgerecover.models.network.sparsity import measure
from edgerecover.models.read.load import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn


def facts_of(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    network: nn.Module | None,
    *,
    output: OutputSpec | None,
    dense: nn.Module | None = None,
) -> ModelFacts:
    """Facts about a checkpoint, and about its network if the architecture is known.

    Args:
        checkpoint: with its keys as the network spells them.
        spec: how it was opened.
        network: the network with its weights; None if the architecture is unknown.
        output: of the network; None if unknown.
        dense: for a channel-pruned checkpoint, the network as its factory builds it.
    """
    tensors = checkpoint.tensors
    weights = {key: t for key, t in tensors.items() if t.dim() >= 2 and t.is_floating_point()}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = [tensor for key, tensor in tensors.items() if not key.endswith(statistics)]
    parameters = learned if network is None else list(network.parameters())
    return ModelFacts(
        path=str(checkpoint.path),
        sha256=checkpoint.sha256,
        size_bytes=checkpoint.size_bytes,
        format=checkpoint.format,
        architecture=spec.architecture,
        architecture_source=spec.architecture_source,
        num_parameters=sum(parameter.numel() for parameter in parameters),
        num_batch_norms=_num_batch_norms(tensors, network),
        num_classes=output.num_classes if output else None,
        output=output,
        has_masks=bool(checkpoint.masks),
        teacher_inside=checkpoint.dense_tensors is not None,
        sparsity=measure(network if network is not None else weights, narrower=dense is not None),
        input=spec.input,
        input_source=f"{spec.input_source}{'; mean and std are assumed' if spec.assumes_scale else ''}",
        classes_source=spec.classes_source if spec.classes else None,
        macs_kept=macs_kept(network, dense, spec.input) if network is not None and dense is not None else None,
        doubts=tuple(doubt.text for doubt in checkpoint.doubts),
    )


def _num_batch_norms(tensors: Mapping[str, Tensor], network: nn.Module | None) -> int:
    """Number of layers whose statistics synthesis uses; without a network, of those that hold some."""
    if network is None:
        return sum(key.endswith("running_mean") for key in tensors)
    from edgerecover.models.network.norms import batch_norms_of

    return len(batch_norms_of(network))


def as_narrower(facts: ModelFacts, network: nn.Module, teacher: nn.Module) -> ModelFacts:
    """The facts of a student whose own definition is narrower than its teacher's."""
    return replace(facts, sparsity=measure(network, narrower=True), macs_kept=macs_kept(network, teacher, facts.input))


def macs_kept(network: nn.Module, dense: nn.Module, input: InputSpec | None) -> float | None:
    """Fraction of the dense network's MACs that a narrower one needs.

    None if the input's shape is unknown, or the network has no convolutions and linear layers.
    """
    dense_macs = count_macs(dense, input.shape) if input else 0
    return count_macs(network, input.shape) / dense_macs if input and dense_macs else None
