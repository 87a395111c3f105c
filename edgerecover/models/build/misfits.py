"""Why a checkpoint does not fit its architecture, and the hint for each cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edgerecover.models.read.records import printable

if TYPE_CHECKING:
    from torch import Tensor

_STATISTICS = ("running_mean", "running_var")
_ORIGINAL = "_orig"
_COUNTER = "num_batches_tracked"
_MAX_PREFIXES = 3


def hint_of_misfit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], flag: str) -> str:
    """What to change, for the hint of an error.

    Args:
        wanted: the network's state_dict.
        tensors: the checkpoint's tensors.
        flag: the flag that names the architecture on the command line.
    """
    missing = [key for key in wanted if key not in tensors and not key.endswith(_COUNTER)]
    unknown = [key for key in tensors if key not in wanted]
    if missing and not unknown and all(key.endswith(_STATISTICS) for key in missing):
        return (
            "running statistics of batch norm are buffers: save model.state_dict(), which has them, "
            "and not the parameters alone"
        )
    if unknown and all(key.removesuffix(_ORIGINAL) in missing for key in unknown):
        return (
            "weights of torch.nn.utils.prune need the masks beside them: save model.state_dict() with every "
            "'weight_mask', or make the masks permanent first: prune.remove(layer, \"weight\")"
        )
    if prefixes := fitting_prefixes(wanted, tensors):
        which = " and ".join(f"'{printable(prefix)}'" for prefix in prefixes)
        those = "those" if len(prefixes) == 1 else "the ones that are meant"
        first = printable(prefixes[0])
        return (
            f'the keys under {which} fit it: save {those} alone: torch.save({{k.removeprefix("{first}"): v '
            f'for k, v in state.items() if k.startswith("{first}")}}, "model.pt")'
        )
    if not missing and not unknown and (outputs := _outputs(wanted, tensors)):
        in_file, in_network = outputs
        return (
            f"its last layer gives {in_file} outputs in the file and {in_network} in the network: let the factory take "
            f"num_classes, which is then given, or build {in_file}"
        )
    name = f"name the architecture that the checkpoint was trained with ({flag} or model.toml)"
    reshaped = any(tensor.shape != wanted[key].shape for key, tensor in tensors.items() if key in wanted)
    if unknown and not missing and not reshaped:
        return (
            f"all else fits: {name}; if the network does not need them, save the checkpoint without them: "
            "{k: v for k, v in state.items() if k in model.state_dict()}"
        )
    if missing and not unknown and not reshaped:
        return f"all else fits: save the whole model.state_dict(), or let the factory build what was trained ({flag})"
    return name


def fitting_prefixes(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """At most three prefixes under which the checkpoint has every tensor of the network in its shape."""
    keys = [key for key in wanted if not key.endswith(_COUNTER)]
    if not keys:
        return []
    candidates = [key.removesuffix(keys[0]) for key in tensors if key.endswith(f".{keys[0]}")]
    fitting = [
        prefix
        for prefix in candidates
        if all(prefix + key in tensors and tensors[prefix + key].shape == wanted[key].shape for key in keys)
    ]
    return fitting[:_MAX_PREFIXES]


def shared_prefix(keys: Collection[str]) -> str:
    """The prefix that all keys share, up to their last common dot."""
    if not keys:
        return ""
    first, last = min(keys), max(keys)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length].rpartition(".")[0] + "." if "." in first[:length] else ""


def _outputs(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Outputs in the checkpoint and in the network, if a single layer differs, and only in its outputs; else None."""
    pairs = [(key, tensors[key].shape, wanted[key].shape) for key in wanted if key in tensors]
    other = [(key, shape, own) for key, shape, own in pairs if shape != own]
    if len({key.rpartition(".")[0] for key, _, _ in other}) != 1 or any(s[1:] != own[1:] for _, s, own in other):
        return None
    _, shape, own = other[0]
    return (int(shape[0]), int(own[0])) if len(shape) and len(own) else None
