"""What `prune` does: a dense checkpoint in, a sparse or narrower one out."""

from __future__ import annotations

import copy
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
    facts = PrunedFacts(measure(pruned.network, narrower=narrower), 1.0 if kept is None else kept, pruned.notes)
    return pruned, facts
