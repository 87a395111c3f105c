"""Networks saved in several dictionaries: parts of one (`backbone`, `head`), or several (`netG`, `netD`)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from edgerecover.models.read.entries import STATE_KEYS, holds_tensors, tensors_of
from edgerecover.models.read.masks_beside import is_called_masks
from edgerecover.models.read.modules import is_module, state_of
from edgerecover.models.read.records import entries_of, printable
from edgerecover.models.read.tensors import shape_of
from edgerecover.models.read.torch_files import NoWeightsError

_NO_PARTS = re.compile(
    r"optim|sched|criterion|loss|metric|hist|discriminator|critic|teacher|^(?:dis|disc|net_?D|D)(?:_|$)", re.IGNORECASE
)
"""In the names of dictionaries of tensors that are no part of the network."""

_PARTS = re.compile(
    r"backbone|trunk|stem|neck|head|body|encod|decod|embed|extract|feat|classif|predict|project|logits|pool"
    r"|(?:^|_)(?:base|bottom|top|fc|linear|dense|conv|cnn|rnn|lstm|layers?|blocks?|stages?)\d*(?:_|$)",
    re.IGNORECASE,
)
"""In the names of parts of one network: at least one of them has such a name."""

_NETWORKS = re.compile(
    r"(?:(?:net|model)s?_?)?[A-Z0-9](?:_?[A-Z0-9]){0,2}|.*(?:^|_)(?:gen(?:erator)?|student|online|target|source|actor"
    r"|policy|value|fold|expert|best|last|old)(?:_|\d|$).*"
)
"""Names of networks of their own: `netG`, `G_A`, `model_1`, `student`, `fold0`."""


def parts_of(content: Any, whole: Collection[str], known: dict[int, bool]) -> list[str]:
    """Keys of one network's parts (`backbone`, `head`) that were saved each on its own; none if they are anything else.

    Networks of the same layers (`student`, `teacher`), or called like networks (`netG`), are not parts of one.

    Args:
        content: any part of the tree.
        whole: keys under which a whole network would stand; beside it, nothing is a part.
        known: answers of `entries.holds_tensors` by id.
    """
    entries = entries_of(content) or {}
    if any(key in entries for key in whole) or tensors_of(content):
        return []
    parts = [key for key in entries if isinstance(key, str) and _is_part(key, entries[key], known)]
    if any(map(_NETWORKS.fullmatch, parts)) or not any(map(_PARTS.search, parts)):
        return []
    layers = {frozenset((key, shape_of(value)) for key, value in _state_of(entries[part]).items()) for part in parts}
    return parts if 1 < len(layers) == len(parts) else []


def _is_part(key: str, value: Any, known: dict[int, bool]) -> bool:
    is_other = is_called_masks(key) or _NO_PARTS.search(key) is not None
    return not is_other and holds_tensors(value, known) and bool(_state_of(value))


def _state_of(value: Any) -> dict[str, Any]:
    return state_of(value) if is_module(value) else tensors_of(value)


def join(content: Any, parts: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The state_dict of a network from its parts, and how its keys are spelled where the parts hold whole names.

    Returns:
        Records of tensors by `part.key`; and `key` by `part.key`, empty if two parts have a key in common.
    """
    entries = entries_of(content) or {}
    state = {(part, key): value for part in parts for key, value in _state_of(entries[part]).items()}
    whole = {f"{part}.{key}": key for part, key in state}
    is_distinct = len(set(whole.values())) == len(whole)
    return {f"{part}.{key}": value for (part, key), value in state.items()}, whole if is_distinct else {}


def several_networks(entries: Mapping[Any, Any], names: Collection[str]) -> NoWeightsError:
    """The error where several dictionaries hold tensors, and nothing says which one is the network."""
    likeliest = max(sorted(names), key=lambda name: (not _NO_PARTS.search(name), _num_values(entries[name])))
    one = printable(likeliest, 40)
    shown = ", ".join(repr(printable(name, 40)) for name in sorted(names)[:6])
    return NoWeightsError(
        f"several sets of weights inside ({shown}), and none is called state_dict or model",
        f'save the one you mean on its own: torch.save(checkpoint["{one}"], "model.pt"); parts of one network belong '
        "in one dictionary, under the keys of model.state_dict()",
    )


def _num_values(content: Any) -> int:
    """Number of values in a network, also if it stands under `state_dict` or the like."""
    state = _state_of(content)
    inner = next((value for key, value in (entries_of(content) or {}).items() if key in STATE_KEYS), None)
    return sum(math.prod(shape_of(value) or ()) for value in (state or _state_of(inner)).values())
