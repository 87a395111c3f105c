"""What `prune` does: a dense checkpoint in, a sparse or narrower one out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgerecover.artifacts import Sparsity
from edgerecover.errors import BadInputError, unwritable_hint
from edgerecover.files import replace_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.network.sparsity import measure
from edgerecover.models.pair.facts import macs_kept
from edgerecover.models.pair.networks import open_network
from edgerecover.pruning import Pruned, Pruning, prune
from edgerecover.recovery.store import weights_of


@dataclass(frozen=True)
class PrunedFacts:
    """What pruning did to a network."""

    sparsity: Sparsity
    macs_kept: float
    """Multiply-accumulates as a fraction of the dense network's; 1 where no channel went or the input is not known."""
    notes: tuple[str, ...]


def prune_file(
    model_path: Path,
    out: Path,
    pruning: Pruning,
    flags: ModelFlags,
) -> PrunedFacts:
    """Prune a dense checkpoint by magnitude and write its weights; masks are its zeros, channels its shapes.

    Raises:
        BadInputError: the checkpoint cannot be opened or pruned so, or `out` cannot be written.
        MissingError: channels are to be pruned without Torch-Pruning.
    """
    pruned, facts = prune_checkpoint(model_path, pruning, flags)
    try:
        replace_file(out, weights_of(pruned.network, out.suffix.lower()))
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}",
            hint=unwritable_hint(error, "name a file in a folder that is there"),
        ) from error
    return facts


def prune_checkpoint(model_path: Path, pruning: Pruning, flags: ModelFlags) -> tuple[Pruned, PrunedFacts]:
    """The pruned network of a dense checkpoint, and what was pruned.

    Raises:
        BadInputError: the checkpoint cannot be opened or pruned so.
        MissingError: channels are to be pruned without Torch-Pruning.
    """
    network, known_input = open_network(model_path, flags)
    dense = copy.deepcopy(network)
    pruned = prune(network, pruning, known_input)
    narrower = pruning.pattern == "channel"
    kept = macs_kept(pruned.network, dense, known_input) if narrower else None
    sparsity = measure(pruned.network, narrower=narrower)
    facts = PrunedFacts(sparsity, 1.0 if kept is None else kept, (*pruned.notes, *_emptied(sparsity)))
    return pruned, facts


def _emptied(sparsity: Sparsity) -> Iterator[str]:
    """What there is to say of layers that pruning left without a weight."""
    names = [layer.name for layer in sparsity.layers if layer.num_zeros == layer.num_weights > 0]
    if names:
        others = f" and {len(names) - 1} other layer{'s' if len(names) > 2 else ''}" if len(names) > 1 else ""
        yield (
            f"{names[0]}{others} {'has' if len(names) == 1 else 'have'} no weight left, and `run` refuses it where "
            "nothing bypasses it: --pattern layerwise or a smaller --sparsity leaves some"
        )
