"""Finding the weights among what training scripts save: from a tree to one flat state_dict of records."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from edgerecover.models.read.arrays import is_array
from edgerecover.models.read.entries import STATE_KEYS, TORCH_PRUNING, holds_tensors, tensors_of, torch_pruning_module
from edgerecover.models.read.masks_beside import MAX_NESTING, Beside, find_masks, is_called_masks
from edgerecover.models.read.modules import (
    adapter_scales,
    classes_of,
    is_module,
    mask_attributes,
    owner_of_method,
    state_of,
)
from edgerecover.models.read.network_parts import join, parts_of, several_networks
from edgerecover.models.read.records import Made, entries_of, printable
from edgerecover.models.read.tensors import is_tensor
from edgerecover.models.read.torch_files import NoWeightsError
from edgerecover.models.read.unused import unused_in_words

EMA_KEYS = (
    "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "model_state_dict_ema", "ema_model_state_dict",
    "model_ema_state_dict", "ema", "ema_weights", "averaged_model", "swa_model", "swa_state_dict", "shadow",
)  # fmt: skip
"""Keys under which training scripts save a running average of the weights."""

_WHOLE = (*STATE_KEYS, *EMA_KEYS)

WRAPPER_PREFIXES = ("module.", "_orig_mod.", "nncf_module.", "model.", "net.", "network.")
"""Prefixes that DataParallel, torch.compile, older NNCF and Lightning modules add to every key."""

INNER_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_forward_module)\."
)
"""Names that DataParallel, torch.compile, FSDP, activation checkpointing and Fabric insert into keys, before the layers
that they wrap."""

_PARTS_OF_TRAINING = ("criterion", "loss", "loss_fn", "loss_func", "metric", "metrics", "train_", "val_", "test_")
"""How keys begin of tensors that Lightning modules hold besides the network's."""

_QUANTIZED_CLASSES = re.compile(r"torch\.(?:ao\.)?nn\.(?:intrinsic\.)?quantized\.(?!reference\.).*")

FLOAT_HINT = "give the float network, from before torch.ao.quantization.convert; edgerecover quantises what it exports"
ZERO_HINT = (
    "if DeepSpeed wrote it, join the weights with the script beside its files: python zero_to_fp32.py FOLDER OUT"
)
_LIST_HINT = (
    "copy them into the network (of an average: ema.copy_to(model.parameters())) and save model.state_dict(), "
    "which has the names and the statistics of batch norm"
)
_OPTIMIZER = {"state", "param_groups"}
_LEARNER = "fastai.learner.Learner"
_LIGHTNING = "pytorch-lightning_version"
COUNTER = "n_averaged"
"""The counter that AveragedModel adds to a state_dict."""


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file, not read yet."""

    state: dict[str, Any]
    """Records of tensors, or tensors."""
    under: tuple[str, ...]
    """Keys that lead to the weights in the file."""
    classes: tuple[str, ...] = ()
    """Classes of a whole module and its submodules, outermost first; none of them was imported."""
    kind: str = ""
    """The kind of wrapping in words, if it says more than the file's format: "Lightning checkpoint"."""
    scales: dict[tuple[str, str], float] = field(default_factory=dict)
    """Scales of low-rank adapters; see `modules.adapter_scales`."""
    own_keys: dict[str, str] = field(default_factory=dict)
    """How keys of joined parts are spelled in the parts, which may hold whole names."""


@dataclass(frozen=True)
class Found:
    """What a tree holds: `plain` weights, their `average`, or both."""

    plain: Weights | None
    average: Weights | None
    """A running average (EMA, SWA) of the same weights."""
    arch: str | None
    """Name of the architecture that the training script saved, as timm's does."""
    masks: tuple[Beside, ...] = ()
    """Entries beside the weights that may be their masks."""
    unused: tuple[str, ...] = ()
    """Words about other tensors in the file."""


def find_weights(root: Any) -> Found:
    """Find the weights in the content of a file.

    Raises:
        NoWeightsError: there are none, or several sets and nothing says which one is meant.
        PickleError: a module contains itself.
    """
    known: dict[int, bool] = {}
    if isinstance(root, Made) and root.maker == _LEARNER and isinstance(root.state, dict):
        root = root.state
    if isinstance(root, list | tuple):
        root = _by_name(root, known) or root
    content, average = root, None
    under: tuple[str, ...] = ()
    own_keys: dict[str, str] = {}
    parts: list[str] = []
    kind = "Lightning checkpoint" if _LIGHTNING in (entries_of(root) or {}) else ""
    while len(under) < MAX_NESTING:
        average = average or _average_in(content, under, known)
        if parts := parts_of(content, _WHOLE, known):
            content, own_keys = join(content, parts)
            kind = f"{kind or 'state_dict'} joined from {' and '.join(map(printable, parts[:4]))}"
            break
        inner = _inner_key(content, EMA_KEYS if average else (), known)
        if inner is None:
            break
        content, under = (entries_of(content) or {})[inner], (*under, inner)
    found = replace(_weights_of(content, under, kind), own_keys=own_keys)
    plain: Weights | None = found
    if not found.state or (average is not None and not under):  # beside an average, loose tensors are no weights
        plain = None
    elif COUNTER in found.state and average is None:
        plain, average = None, found
    if plain is None and average is None:
        raise _no_weights(root)
    if plain is not None and average is None:
        plain, average = _split(plain)
    if average is not None and _is_of_mmengine(root):
        own = {key: value for key, value in average.state.items() if key != "steps"}
        plain, average = replace(average, state=own), plain
    masks = find_masks(root, under)
    taken = (*parts, *(average.under if average else ()), *(TORCH_PRUNING if torch_pruning_module(content) else ()))
    unused = unused_in_words(root, under, taken)
    if attributes := mask_attributes(content):
        masks = (*masks, Beside("attributes of modules", attributes, is_certain=False))
    return Found(plain, average, _find_architecture(root), masks, tuple(unused))


def _by_name(elements: list[Any] | tuple[Any, ...], known: dict[int, bool]) -> dict[str, Any]:
    """What `(state_dict, optimizer)`, `[state_dict]` or `list(state_dict.items())` hold; empty for anything else."""
    pairs = [pair for pair in elements if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)]
    if pairs and len(pairs) == len(elements) and all(is_tensor(value) for _, value in pairs):
        return dict(pairs)
    return {str(index): element for index, element in enumerate(elements) if holds_tensors(element, known)}


def _is_of_mmengine(root: Any) -> bool:
    """Whether MMEngine's EMAHook may have saved it, which swaps the two: its `state_dict` is the average."""
    return {"meta", "message_hub", "ema_state_dict"} <= (entries_of(root) or {}).keys()


def _average_in(content: Any, under: tuple[str, ...], known: dict[int, bool]) -> Weights | None:
    entries = entries_of(content) or {}
    key = next((key for key in EMA_KEYS if key in entries and holds_tensors(entries[key], known)), None)
    if key is None:
        return None
    content, under = entries[key], (*under, key)
    while len(under) < 2 * MAX_NESTING and (inner := _inner_key(content, (), known)) is not None:
        content, under = (entries_of(content) or {})[inner], (*under, inner)
    return _weights_of(content, under, "")


def _weights_of(content: Any, under: tuple[str, ...], kind: str) -> Weights:
    content = owner_of_method(content) or content
    module = torch_pruning_module(content)
    if module is not None:
        return Weights(state_of(module), under, (), "state_dict of Torch-Pruning")
    if is_module(content):
        classes = classes_of(content)
        if int8 := next((name for name in classes if _QUANTIZED_CLASSES.fullmatch(name)), None):
            raise NoWeightsError(f"a network of int8 layers ({int8}), whose float weights are gone", FLOAT_HINT)
        return _drop_training_parts(
            Weights(state_of(content), under, classes, kind or "pickled module", adapter_scales(content))
        )
    if packed := next((key for key in entries_of(content) or {} if str(key).endswith("_packed_params")), None):
        shown = printable(packed)
        raise NoWeightsError(
            f"int8 layers of torch.ao.quantization ({shown!r}), whose float weights are gone", FLOAT_HINT
        )
    return _drop_training_parts(Weights(_masks_of(content) | tensors_of(content), under, (), kind))


def _drop_training_parts(weights: Weights) -> Weights:
    """Drop the tensors of a Lightning checkpoint that only training uses."""
    if not weights.kind.startswith("Lightning"):
        return weights
    own = {key: value for key, value in weights.state.items() if not key.startswith(_PARTS_OF_TRAINING)}
    return replace(weights, state=own or weights.state)


def _split(weights: Weights) -> tuple[Weights, Weights | None]:
    """Split a network and its average that are side by side in one state_dict, as in a Lightning module."""
    tops = {key.partition(".")[0] for key in weights.state}
    names = [name for name in EMA_KEYS if name in tops]
    if len(names) != 1 or len(tops) < 2:
        return weights, None
    prefix = f"{names[0]}."
    own = {key: value for key, value in weights.state.items() if not key.startswith(prefix)}
    rest = {key.removeprefix(prefix): value for key, value in weights.state.items() if key.startswith(prefix)}
    rest.pop(COUNTER, None)
    own_names, its_names = (sorted(plain_names(keys)[0].values()) for keys in (own, rest))
    if own_names != its_names:
        return weights, None
    plain = Weights(own, weights.under, weights.classes, weights.kind)
    return plain, Weights(rest, (*weights.under, names[0]), weights.classes, weights.kind)


def plain_names(keys: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The network's own name for each key of the file, and the prefixes that all keys shared.

    Prefixes that all keys share are removed, then wrappers inside keys, unless two keys would become the same.
    """
    names = {key: key for key in keys}
    taken: list[str] = []
    while names and (
        prefix := next((p for p in WRAPPER_PREFIXES if all(n.startswith(p) for n in names.values())), None)
    ):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
        taken.append(prefix)
    unwrapped = {key: INNER_WRAPPERS.sub("", name) for key, name in names.items()}
    return unwrapped if len(set(unwrapped.values())) == len(names) else names, tuple(taken)


def _inner_key(content: Any, ignored: Iterable[str], known: dict[int, bool]) -> str | None:
    """Key of the state_dict inside `content`; None if `content` is itself one."""
    entries = entries_of(content)
    if entries is None or torch_pruning_module(content) is not None:
        return None
    holding = [
        key
        for key, value in entries.items()
        if isinstance(key, str) and key not in ignored and not is_called_masks(key) and holds_tensors(value, known)
    ]
    for key in STATE_KEYS:
        if key in holding or parts_of(entries.get(key), _WHOLE, known):
            return key
    if not holding or tensors_of(content):
        return None
    if len(holding) > 1:
        raise several_networks(entries, holding)
    return holding[0]


def _masks_of(content: Any) -> dict[str, Any]:
    """NumPy arrays among the weights with a mask's name."""
    entries = entries_of(content) or {}
    if not tensors_of(content):
        return {}
    return {
        key: value
        for key, value in entries.items()
        if is_array(value) and isinstance(key, str) and is_called_masks(key)
    }


def _no_weights(root: Any) -> NoWeightsError:
    entries = entries_of(root) or {}
    hint = ZERO_HINT if "optimizer_state_dict" in entries else ""
    values = [value for value in entries.values() if isinstance(value, Made)]
    optimizers = [value for value in (root, *entries.values()) if (entries_of(value) or {}).keys() >= _OPTIMIZER]
    if optimizers:
        return NoWeightsError("it holds the state of an optimiser and no weights", hint)
    if values and all("numpy" in str(value.maker) for value in values):
        return NoWeightsError(
            "its weights are NumPy arrays, which are not read",
            "save them as tensors: "
            'torch.save({key: torch.from_numpy(array) for key, array in weights.items()}, "model.pt")',
        )
    named = next(((key, value) for key, value in (("", root), *entries.items()) if _is_list_of_tensors(value)), None)
    if named is not None:
        where = f" under '{printable(named[0])}'" if named[0] else ""
        num_tensors = len(named[1])
        return NoWeightsError(f"it holds a list of {num_tensors} tensors{where} without their names", _LIST_HINT)
    return NoWeightsError(f"no weights inside ({_kind_of(root)} was found, a dictionary of tensors expected)", hint)


def _is_list_of_tensors(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(is_tensor, value))


def _kind_of(content: Any) -> str:
    entries = entries_of(content)
    if entries is not None:
        shown = ", ".join(repr(printable(key, 40)) for key in list(entries)[:4])
        return f"a dictionary with {shown or 'nothing'}"
    if is_tensor(content):
        return "an object of type Tensor"
    if isinstance(content, Made):
        return f"a Python object made by {printable(content.by)}, which is never run,"
    return f"an object of type {type(content).__name__}"


def _find_architecture(root: Any) -> str | None:
    """Name of the architecture: timm saves `arch` beside the weights, it and torchvision's scripts their arguments."""
    entries = entries_of(root) or {}
    args = entries.get("args")
    told = args.state if isinstance(args, Made) and isinstance(args.state, dict) else entries_of(args) or {}
    candidates = (entries.get("arch"), told.get("model"), told.get("arch"))
    named = (value for value in candidates if isinstance(value, str))
    return next((value for value in named if re.fullmatch(r"[\w.-]{1,80}", value)), None)
