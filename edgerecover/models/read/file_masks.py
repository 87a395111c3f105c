"""Finding pruning masks in a checkpoint: which tensors are masks, and of which weights.

A mask holds only 0 and 1; 1 keeps (`mask_shapes` says which weight it fits). Tools differ in how they name it, and in
whether the weight beside it is already masked or still holds the dense values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgerecover.models.read.leftovers import list_some
from edgerecover.models.read.mask_indices import are_applied, are_indices, are_kept, mark_pruned, masks_at
from edgerecover.models.read.mask_shapes import (
    binaries_beside_weights,
    fit,
    is_binary,
    is_inverted,
    keep_the_smallest,
    places_of,
)
from edgerecover.models.read.records import printable
from edgerecover.models.read.wrappings import INNER_WRAPPERS

if TYPE_CHECKING:
    from torch import Tensor

_SPELLINGS = (
    ("torch.nn.utils.prune", r"(?P<path>.*\.)?(?P<name>[^.]+)_mask", "{path}{name}_orig"),
    ("NVIDIA Model Optimizer", r"(?P<path>.*\.)?_(?P<name>weight)_mask", "{path}{name}"),
    ("apex ASP", r"(?P<path>.*\.)?__(?P<name>[^.]+)_mma_mask", "{path}{name}"),
    (
        "torch.ao.pruning",
        r"(?P<path>.*\.)?parametrizations\.(?P<name>[^.]+)\.\d+\.mask",
        "{path}parametrizations.{name}.original",
    ),
    ("NNCF", r"(?P<path>.*\.)?__nncf_hooks\.post_hooks\.(?P<name>[^.]+)__\d+\.\d+\.binary_mask", "{path}{name}"),
    ("NNCF", r"(?P<path>.*\.)pre_ops\.\d+\.op\._?(?P<name>)binary_mask", "{path}weight"),  # before its version 2.15
    ("", r"(?P<path>.*\.)?(?P<name>[^.]+)_mask", "{path}{name}"),
    ("", r"(?P<path>.*\.)?(?P<name>)mask", "{path}weight"),
    ("", r"(?P<path>)(?P<name>.+)\.mask", "{name}"),
    ("", r"(?P<path>)masks?\.(?P<name>.+)", "{name}"),
    ("", r"(?P<path>.*\.)?mask_(?P<name>[^.]+)", "{path}{name}"),
)
"""Tool ("" if several use it), pattern for a mask's whole key, and the key of its weight; the first match wins."""

_COMPILED = tuple((tool, re.compile(pattern), weight) for tool, pattern, weight in _SPELLINGS)

_COMPUTED = re.compile(r"(?P<path>.*\.)?parametrizations\.(?P<name>[^.]+)\.original")
_KEPT = re.compile(r"(?P<path>.*\.)?(?P<name>[^.]+)_orig")
"""Keys of tensors from which a parametrization or a pruning hook computes the weight."""

_OUTER = re.compile(r"^(?:state|module|model)\.")
_CALLED_MASK = re.compile(r"(?:^|[._])(?:masks?(?:_scores?)?|popup_scores|weight_scores)$", re.IGNORECASE)
_AMONG_MASKS = re.compile(r"(?:^|[._])masks?\.", re.IGNORECASE)
_IN_NNCF = re.compile(r"(?:.*\.)?(?:__nncf_hooks|_nncf|pre_ops\.\d+\.op)\..*mask")


_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
"""Names of entries of lists."""

_NO_SUCH_WEIGHT = "no weight has their name and shape"
_NOT_BINARY = "they hold other values than 0 and 1"
_PACKED = "they look like packed bits; save them unpacked (numpy.unpackbits), in the weights' shapes"
_UNSAID = (
    "they look like indices, and nothing says whether of kept or of pruned weights; multiply them into the weights"
)
_LIKE_INDICES = (
    "looks like indices of kept or pruned weights, not used: they may count single weights, outputs or inputs; save "
    'masks of 0 and 1 in the weights\' shapes, under "masks"'
)
_NOT_READ = "they cannot be read: save them as plain tensors"
_IN_NO_ORDER = "they have no names, and their shapes fit the weights in no order, or in several"
_WITHOUT_MASKS = (
    "weights are computed from '{}' and the like by a parametrization of which the file has nothing else; "
    "torch.ao.pruning keeps its masks in the sparsifier's state_dict, not in the network's"
)
_RENAME_HINT = (
    "multiply them into the weights, or save them under a mask's name ('fc.weight_mask' for 'fc.weight', 1 where it is "
    "kept); or name an architecture that has them"
)
_SQUASH_HINT = (
    "call sparsifier.squash_mask() and save again, or save sparsifier.state_dict() beside the weights as 'sparsifier'; "
    "or let the architecture have the parametrization itself"
)


@dataclass(frozen=True)
class Doubt:
    """Tensors that may change the weights but were not used."""

    text: str
    keys: tuple[str, ...]
    """Keys of these tensors; a network that has them itself leaves no doubt."""
    hint: str = ""
    """What to do, if without them the weights are not what the network computed with; else empty."""

    def with_prefix(self, prefix: str) -> Doubt:
        """The same doubt, with a prefix added to its keys."""
        return replace(self, keys=tuple(prefix + key for key in self.keys))

    def without_prefix(self, prefix: str) -> Doubt:
        """The same doubt, with a prefix removed from its keys."""
        return replace(self, keys=tuple(key.removeprefix(prefix) for key in self.keys))


@dataclass(frozen=True)
class Sibling:
    """Tensors that stand beside the weights under a name such as `masks`."""

    name: str
    tensors: dict[str, Tensor]
    """The tensors, by the path of keys that leads to each."""
    num_unread: int = 0
    """Number of entries that cannot be read."""
    is_certain: bool = True
    """Whether entries that fit no weight are reported; if not certain, they may be anything."""
    are_indices: bool = False
    """Whether the tensors are indices of weights or channels."""


@dataclass
class Masked:
    """Weights, masks, and what to tell the user about them; keys are those of the file."""

    tensors: dict[str, Tensor]
    """The weights, before any mask is applied, without the masks."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """bool, by key in `tensors`, True where the weight is kept; masks that keep everything are left out."""
    plain_names: dict[str, str] = field(default_factory=dict)
    """The key that the weight has in an unpruned network, by key in `tensors`, where the two differ."""
    aside: dict[str, Tensor] = field(default_factory=dict)
    """Masks, and tensors that look like masks, by their own keys."""
    mask_keys: set[str] = field(default_factory=set)
    """Keys in `aside` of the masks that were used."""
    words: list[str] = field(default_factory=list)
    """What to tell the user about the masks that were used."""
    doubts: list[Doubt] = field(default_factory=list)
    """What to tell the user about the masks that were not used."""


def find_masks(tensors: Mapping[str, Tensor], siblings: tuple[Sibling, ...] = ()) -> Masked:
    """Separate the masks from the weights, among a network's tensors and among those beside it."""
    found = Masked(dict(tensors))
    _take_spelled(found)
    for sibling in siblings:
        (_take_indices if sibling.are_indices else _take_sibling)(found, sibling)
    _invert(found)
    _doubt_others(found)
    return found


def _take_spelled(found: Masked) -> None:
    used: set[str] = set()
    idle: set[str] = set()
    underscored = _with_underscores(found.tensors)
    wrapped = {INNER_WRAPPERS.sub("", key): key for key in found.tensors}  # NNI: conv.module.weight, conv.weight_mask
    for key, mask in list(found.tensors.items()):
        for tool, reading in _readings(key, underscored):
            weight_key = reading if reading in found.tensors else wrapped.get(INNER_WRAPPERS.sub("", reading), reading)
            weight = found.tensors.get(weight_key)
            fitted = fit(mask, weight) if weight is not None else None
            if weight is None or fitted is None or not _is_all_that_computes(found.tensors, weight_key, key):
                continue
            found.aside[key] = found.tensors.pop(key)
            found.mask_keys.add(key)
            prunes = not is_inverted(fitted, weight) and _take(found, weight_key, fitted)
            (used if prunes else idle).add(tool)
            break
    for tool in sorted(used):
        found.words.append(f"with masks of {tool}" if tool else "with masks beside their weights")
    for tool in sorted(idle - used):
        found.words.append(f"masks{f' of {tool}' if tool else ''} that prune nothing")


def _readings(key: str, underscored: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[str, str]]:
    """Tools that may have named a mask so, and the key of its weight."""
    if "mask" not in key:
        return
    for tool, pattern, weight in _COMPILED:
        if match := pattern.fullmatch(key):
            name = match["name"].replace(":", ".") if tool == "NNCF" else match["name"]
            weight_key = weight.format(path=match["path"] or "", name=name)
            yield tool, weight_key
            for spelled in (weight_key, f"{weight_key}.weight"):
                if not tool and (dotted := underscored.get(spelled.replace(".", "_"))):
                    yield tool, dotted


def _with_underscores(keys: Iterable[str]) -> dict[str, str]:
    """Keys by their spelling with underscores for dots, as buffer names need; ambiguous spellings are left out."""
    spelled: dict[str, str] = {}
    num_keys: dict[str, int] = {}
    for key in keys:
        name = key.replace(".", "_")
        spelled[name] = key
        num_keys[name] = num_keys.get(name, 0) + 1
    return {name: key for name, key in spelled.items() if num_keys[name] == 1}


def _is_all_that_computes(tensors: Mapping[str, Tensor], weight_key: str, mask_key: str) -> bool:
    """Whether a parametrization holds only a weight and its mask; with more, it computes something else."""
    if not _COMPUTED.fullmatch(weight_key):
        return True
    prefix = weight_key.removesuffix("original")
    return not any(key.startswith(prefix) and key not in (weight_key, mask_key) for key in tensors)


def _take(found: Masked, weight_key: str, mask: Tensor) -> bool:
    """Use a mask; returns whether it prunes anything."""
    plain = _plain_name(weight_key)
    weight, computed = found.tensors[weight_key], found.tensors.get(plain)
    if plain != weight_key and computed is not None and computed.equal((weight * mask).to(computed.dtype)):
        del found.tensors[plain]  # what the hook computes from the two was saved too
    if plain != weight_key and plain not in found.tensors:
        found.plain_names[weight_key] = plain
    kept = mask != 0
    if bool(kept.all()):
        return False
    found.masks[weight_key] = found.masks.get(weight_key, kept) & kept
    return True


def _plain_name(key: str) -> str:
    match = _COMPUTED.fullmatch(key) or _KEPT.fullmatch(key)
    return f"{match['path'] or ''}{match['name']}" if match else key


# --- beside the weights ---------------------------------------------------------------------------------


def _take_sibling(found: Masked, sibling: Sibling) -> None:
    said = {name: mask for name, mask in sibling.tensors.items() if mask.dim() >= 2 or not bool((mask == 1).all())}
    sibling = replace(sibling, tensors=said)
    pairs = _pairs(found, sibling)
    if not sibling.is_certain and mark_pruned(sibling.name):
        pairs = [(key, mask == 0) for key, mask in pairs]
    num_pruning = 0
    for weight_key, mask in pairs:
        num_pruning += not is_inverted(mask, found.tensors[weight_key]) and _take(found, weight_key, mask)
    label = printable(sibling.name)
    if pairs and not sibling.is_certain:
        found.words += [f"with masks that are {label}"] if num_pruning else []
    elif pairs:
        found.words.append(
            f"with masks under '{label}'" if num_pruning else f"masks under '{label}' that prune nothing"
        )
    num_unused = len(sibling.tensors) - len(pairs) + sibling.num_unread
    if num_unused and sibling.is_certain:
        entries = "1 entry" if num_unused == 1 else f"{num_unused} entries"
        what = f"{entries} of '{label}'" if pairs else f"'{label}'"
        verb = "look" if pairs and num_unused > 1 else "looks"
        why = _NOT_READ if sibling.num_unread == num_unused else _NO_SUCH_WEIGHT
        why = why if not sibling.tensors or any(map(is_binary, sibling.tensors.values())) else _NOT_BINARY
        why = _IN_NO_ORDER if all(map(_NUMBERS.fullmatch, sibling.tensors)) and sibling.tensors else why
        why = why if why != _NOT_BINARY else _why_not_binary(found, sibling)
        found.doubts.append(Doubt(f"{what} beside them {verb} like masks, not used: {why}", ()))


def _pairs(found: Masked, sibling: Sibling) -> list[tuple[str, Tensor]]:
    """Keys of weights, and their masks in the weights' shapes."""
    if sibling.tensors and all(map(_NUMBERS.fullmatch, sibling.tensors)):
        return _pairs_in_order(found.tensors, [mask for mask in sibling.tensors.values() if mask.dim() >= 2])
    fitting = (
        (key, fit(mask, found.tensors[key], whole_channels=sibling.is_certain))
        for key, mask in _pairs_by_name(found, sibling)
    )
    return [(key, mask) for key, mask in fitting if mask is not None]


def _pairs_by_name(found: Masked, sibling: Sibling) -> list[tuple[str, Tensor]]:
    """Keys of weights, and the entries with their names."""
    by_name = {_bare(_plain_name(key)): key for key in found.tensors}
    by_name = {name: by_name[dotted] for name, dotted in _with_underscores(by_name).items()} | by_name
    keys = {name: next((by_name[n] for n in _names_of_weight(name) if n in by_name), None) for name in sibling.tensors}
    return [(key, sibling.tensors[name]) for name, key in keys.items() if key is not None]


def _take_indices(found: Masked, sibling: Sibling) -> None:
    """Use masks that are given as indices of single weights; name others."""
    pairs = _pairs_by_name(found, sibling)
    kept = are_kept(sibling.name)
    if not all(are_indices(indices) for _, indices in pairs):
        _take_sibling(found, replace(sibling, is_certain=False))
        return
    weights = [found.tensors[key] for key, _ in pairs]
    if not pairs or any(weight.dim() < 2 for weight in weights) or are_applied(pairs, found.tensors, kept=kept):
        return
    masks = masks_at(pairs, found.tensors, kept=kept) if kept is not None else None
    label = printable(sibling.name)
    if masks is None:
        found.doubts.append(Doubt(f"'{label}' beside them {_LIKE_INDICES}", ()))
        return
    for key, mask in masks.items():
        _take(found, key, mask)
    found.words.append(f"with masks from the {'kept' if kept else 'pruned'} weights that '{label}' lists")


def _why_not_binary(found: Masked, sibling: Sibling) -> str:
    """Why entries with other values than 0 and 1 are not used: what they seem to be, if that can be told."""
    pairs = _pairs_by_name(found, sibling)
    if not pairs or not all(are_indices(values) and values.dim() == 1 for _, values in pairs):
        return _NOT_BINARY
    is_packed = all(len(values) == -(-found.tensors[key].numel() // 8) for key, values in pairs)
    return _PACKED if is_packed and all(float(values.max()) < 256 for _, values in pairs) else _UNSAID


def _pairs_in_order(tensors: Mapping[str, Tensor], masks: list[Tensor]) -> list[tuple[str, Tensor]]:
    """Pairs of weights and masks, where the masks are a list in the order of the weights."""
    weights = {key: tuple(tensor.shape) for key, tensor in tensors.items() if tensor.dim() >= 2}
    places = places_of([tuple(mask.shape) for mask in masks], list(weights.values()))
    keys = list(weights)
    pairs = [(keys[place], masks[index]) for index, place in enumerate(places or ())]
    return pairs if all(fit(mask, tensors[key]) is not None for key, mask in pairs) else []


def _invert(found: Masked) -> None:
    """Invert masks that would drop the largest weights and keep the rest: there, 1 means pruned."""
    if not keep_the_smallest((kept, found.tensors[key]) for key, kept in found.masks.items()):
        return
    found.masks = {key: ~kept for key, kept in found.masks.items() if bool(kept.any())}
    found.words.append("in which 1 marks pruned weights, because it is on the smallest ones")


def _names_of_weight(name: str) -> Iterator[str]:
    """Names that the weight of a mask with this name may have, most literal first."""
    name = _bare(name)
    yield from (name, name.removesuffix(".mask"), f"{name}.weight")
    for _, weight_key in _readings(name):
        yield _plain_name(weight_key)


def _bare(name: str) -> str:
    while (shorter := _OUTER.sub("", name)) != name:
        name = shorter
    return name


# --- what else looks like masks -------------------------------------------------------------------------


def _doubt_others(found: Masked) -> None:
    """Set aside tensors that are named like masks and shaped like weights but could not be used."""
    shapes = {tuple(t.shape) for key, t in found.tensors.items() if t.dim() >= 2 and not _CALLED_MASK.search(key)}
    seen: dict[str, list[str]] = {}
    for key, tensor in list(found.tensors.items()):
        tool = _tool_of(key)
        if tool or _may_mask(found, key, shapes):
            found.aside[key] = found.tensors.pop(key)
            if not bool((tensor == 1).all()):
                seen.setdefault(tool, []).append(key)
    if keys := binaries_beside_weights(found.tensors):
        found.aside |= {key: found.tensors.pop(key) for key in keys}
        verb = "hold" if len(keys) > 1 else "holds"
        text = f"{list_some(keys)} {verb} only 0 and 1, in the shape of a weight beside, as masks do; not used"
        found.doubts.append(Doubt(text, tuple(keys), _RENAME_HINT))
    for tool, keys in seen.items():
        found.doubts.append(_doubt(found, tool, tuple(keys)))
    alone = tuple(key for key in found.tensors if _COMPUTED.fullmatch(key) and key not in found.plain_names)
    alone = tuple(key for key in alone if _is_all_that_computes(found.tensors, key, key))
    if alone:
        found.doubts.append(Doubt(_WITHOUT_MASKS.format(printable(alone[0])), alone, _SQUASH_HINT))


def _tool_of(key: str) -> str:
    """The one tool that names masks so; empty if there is none, or several might."""
    if _IN_NNCF.fullmatch(key):
        return "NNCF"
    tools = {tool for tool, _ in _readings(key)} - {"", "torch.nn.utils.prune"}
    return tools.pop() if len(tools) == 1 else ""


def _may_mask(found: Masked, key: str, shapes: set[tuple[int, ...]]) -> bool:
    tensor = found.tensors[key]
    if not _CALLED_MASK.search(key) and not (_AMONG_MASKS.search(key) and is_binary(tensor)):
        return False
    return tuple(tensor.shape) in shapes or _spreads(found, key)


def _spreads(found: Masked, key: str) -> bool:
    """Whether it could be the mask of whole channels of the weight beside it."""
    mask = found.tensors[key]
    weight = next((found.tensors[name] for _, name in _readings(key) if name in found.tensors), None)
    if weight is None or weight.dim() < 2 or mask.dim() not in (1, weight.dim()) or not is_binary(mask):
        return False
    shape = mask.shape if mask.dim() > 1 else (*mask.shape, *weight.shape[1:])
    return all(size in (1, full) for size, full in zip(shape, weight.shape, strict=True))


def _doubt(found: Masked, tool: str, keys: tuple[str, ...]) -> Doubt:
    of = f" of {tool}" if tool else ""
    which = f"'{printable(keys[0])}'" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
    verb = "look" if len(keys) > 1 else "looks"
    weights = {key: [found.tensors[name] for _, name in _readings(key) if name in found.tensors] for key in keys}
    has_weights = all(any(weight.shape == found.aside[key].shape for weight in weights[key]) for key in keys)
    why = _NOT_BINARY if has_weights and not all(is_binary(found.aside[key]) for key in keys) else _NO_SUCH_WEIGHT
    return Doubt(f"{which} {verb} like masks{of}, not used: {why}", keys)
