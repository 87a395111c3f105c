"""`inspect` and `prune` from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from edgerecover.api.given import Network, Task, architecture_of, flags_from, network_of, pruning_of
from edgerecover.api.place import place_of
from edgerecover.api.reports import as_text
from edgerecover.api.words import errors_in_python
from edgerecover.commands.inputs import require_checkpoint, require_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgerecover.artifacts import ModelFacts, Sparsity
    from edgerecover.pruning import PruningPattern


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a network or a file holds. Print it to read it."""

    facts: ModelFacts
    """Every number: architecture, parameters, classes, input, zeros per layer."""

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the weights that multiply, 0 to 1."""
        return self.facts.sparsity.sparsity

    def __str__(self) -> str:
        from edgerecover.report.terminal import print_facts

        return as_text(lambda console: print_facts(console, self.facts))

    def __repr__(self) -> str:
        what = self.facts.architecture or self.facts.format
        return f"<Inspection of {what}: {self.facts.num_parameters:,} parameters, {self.facts.pruned_to}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True, eq=False, repr=False)
class PrunedModel:
    """A pruned network, and what pruning did to it."""

    model: nn.Module
    """A new network of the same class, float32, on the CPU, in eval mode."""
    masks: Mapping[str, Tensor]
    """bool, by parameter name, True where a weight is kept; empty for channels, which are gone."""
    sparsity: Sparsity
    """Zeros per layer and in total."""
    macs_kept: float
    """Multiply-accumulates as a fraction of the dense network's; 1 unless channels were removed."""
    notes: tuple[str, ...]
    """What to know, such as which layers cannot be 2:4."""

    def __repr__(self) -> str:
        zeros = f"{self.sparsity.num_zeros:,} of {self.sparsity.num_weights:,} weights are zero"
        return f"<PrunedModel of {type(self.model).__name__}: {zeros}, {100 * self.macs_kept:.0f} % of the MACs>"


def inspect(
    model: Network,
    *,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: Sequence[float] | None = None,
    arch: str | None = None,
    task: Task | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
) -> Inspection:
    """What a network holds: architecture, classes, input, sparsity per layer: `edgerecover inspect`.

    Args:
        model: a network in memory, or the path of a checkpoint or an ONNX file. It is not changed.
        input_shape: (C, H, W).
        mean: one number per channel; None: 0.
        std: one number per channel; None: 1.
        pixel_range: lowest and highest pixel before mean and std; None: 0 and 1.
        arch: architecture of a file, if nothing beside it says.
        task: what the network is for: "one-label", "binary", "multi-label", "embedding", "regression",
            "segmentation" or "detection"; None: what a `model.toml` or its outputs tell.
        trust_code: run the Python code that a `model.toml` names, without a record of trust.
        trust_pickle: unpickle a file that is a whole module, which runs whatever code it names.

    Raises:
        EdgeRecoverError: it cannot be read or opened.
    """
    from edgerecover.models.pair.networks import inspect as inspect_file

    with errors_in_python(inspect), place_of(None, None, "model") as place:
        given = network_of(model, "model", place.inputs)
        require_file(given.path)
        flags = flags_from(
            architecture_of(given, arch, "arch"), input_shape, mean, std, pixel_range,
            trust_code=trust_code, trust_pickle=trust_pickle, task=task,
        )  # fmt: skip
        facts = inspect_file(given.path, flags)
        return Inspection(facts if given.live is None else replace(facts, path="in memory"))


def prune(
    model: Network,
    sparsity: float | None = None,
    *,
    pattern: PruningPattern = "unstructured",
    for_runtime: str | None = None,
    input_shape: Sequence[int] | None = None,
    arch: str | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
) -> PrunedModel:
    """Prune the Conv and Linear weights of a dense network by magnitude, without training: `edgerecover prune`.

    Args:
        model: a network in memory, which is not changed, or a checkpoint's path.
        sparsity: fraction of the weights that become zero; for channels, of the MACs that go; not for "2:4".
        pattern: "unstructured", "layerwise", "2:4" or "channel".
        for_runtime: put the zeros where this runtime gains by them: "mnn"; `sparsity` is then of those layers' weights.
        input_shape: (C, H, W); channels need it.
        arch: architecture of a file, if nothing beside it says.
        trust_code: run the Python code that a `model.toml` names, without a record of trust.
        trust_pickle: unpickle a file that is a whole module, which runs whatever code it names.

    Raises:
        EdgeRecoverError: it cannot be opened, or not be pruned so.
    """
    from edgerecover.commands.prune import prune_checkpoint
    from edgerecover.models.network.outputs import own_network

    with errors_in_python(prune), place_of(None, None, "model") as place:
        pruning = pruning_of(pattern, sparsity, for_runtime)
        assert pruning is not None, "a pattern was given"
        given = network_of(model, "model", place.inputs)
        require_checkpoint(given.path)
        own = architecture_of(given, arch, "arch")
        flags = flags_from(own, input_shape, trust_code=trust_code, trust_pickle=trust_pickle)
        pruned, facts = prune_checkpoint(given.path, pruning, flags)
        return PrunedModel(own_network(pruned.network), pruned.masks, facts.sparsity, facts.macs_kept, facts.notes)
