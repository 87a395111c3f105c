"""Finding the outputs that carry a task among those of networks that return more than one tensor in eval mode.

Shapes: N images, K classes, H×W pixels.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgerecover.errors import BadInputError
from edgerecover.models.network.subclasses import become

_NAMES_OF_MAPS = ("logits", "out")
_FOR_TRAINING = ("aux", "aux_logits", "loss")
_FEATURES = ("features", "pooler_output", "last_hidden_state", "hidden_states")
"""Names of what a head is given, where a head's own outputs are beside it."""
_INPUT = "input"
"""What files call their images."""
_LAST_AXES = object()
"""In place of a key: the output is a single tensor of logits with trailing axes of size 1."""
_MOST_NAMED = 6


@torch.no_grad()
def return_task_outputs(network: nn.Module, images_NCHW: Tensor, weights: Mapping[str, float] | None = None) -> None:
    """Make a network with several outputs return those alone that carry a task, in place: a tensor, or a tuple of them.

    These are all rows of numbers, (N, K) or (N,), and maps (N, K, H, W) as large as the images, except: the softmax or
    sigmoid of another one (as ultralytics' classifiers return), what is for training alone (`aux`), and features beside
    the outputs of a head. Where there is no row, it is one tensor (N, K, H, W), or an entry `logits` or `out` of that
    shape, as torchvision's segmentation networks return; where neither is, one tensor (N, V, A) of candidates, as
    ultralytics' detectors return beside their maps. A single tensor (N, K, 1, 1), as fully convolutional networks
    return, loses its last axes. What lies in a list or a dictionary among the outputs is taken where a user names it,
    or where there is no tensor beside it. Names of parameters and layers stay. In training mode such networks may
    return something else; a single tensor is left as it is.

    Args:
        network: in eval mode.
        images_NCHW: to try it on.
        weights: what the user says of outputs by name: one of 0 is left out, any other one is taken.

    Raises:
        BadInputError: the user names an output that there is not, or that no task can have.
    """
    weights = weights or {}
    try:
        returned = network(images_NCHW.clone())
    except Exception:  # the check of the forward pass reports the failure
        return
    own = type(network)
    if hasattr(own, "__deepcopy__"):
        return
    entries = {} if isinstance(returned, Tensor) else _entries_of(returned)
    if isinstance(returned, Tensor):
        keys = [_LAST_AXES] if _has_last_axes(returned, len(images_NCHW)) else []
    else:
        keys = _chosen(entries, images_NCHW, weights)
    if not keys:
        return
    refused = [name for name, weight in weights.items() if weight == 0]
    others = {name: value for name, value in _others_than(keys, entries).items() if name not in refused}
    # What a detector returns beside its candidates are the maps that it decodes.
    has_candidates = keys[0] is not _LAST_AXES and entries[keys[0]].dim() == 3

    def can_be_another(value: Any) -> bool:
        return not has_candidates and _can_have_task(value, len(images_NCHW))

    class Chosen(own):  # type: ignore[valid-type, misc]
        reads_logits = True  # `outputs.own_network` takes it off
        output_names = () if keys[0] is _LAST_AXES else _names_of(keys)
        left_out = tuple(f"{name} {list(value.shape)}" for name, value in others.items())
        another = next((name for name, value in others.items() if can_be_another(value)), None)

        # The images by a name of their own: torch.export takes open axes of `*args` for those of a tuple.
        def forward(self, images_NCHW: Tensor, *args: Any, **kwargs: Any) -> Any:
            outputs = super().forward(images_NCHW, *args, **kwargs)
            if isinstance(outputs, Tensor):
                return outputs.flatten(1) if keys[0] is _LAST_AXES else outputs
            entries = _entries_of(outputs)
            return entries[keys[0]] if len(keys) == 1 else tuple(entries[key] for key in keys)

    become(network, Chosen)


def names_of_outputs(network: nn.Module) -> tuple[str, ...]:
    """Names of what `return_task_outputs` made a network return, in order; empty where it is as it was."""
    names: tuple[str, ...] = getattr(type(network), "output_names", ())
    return names


def warning_of(network: nn.Module) -> str | None:
    """What is lost of a network that `return_task_outputs` has changed; None where nothing is."""
    left_out: tuple[str, ...] = getattr(type(network), "left_out", ())
    if not left_out:
        return None
    names, another = names_of_outputs(network), getattr(type(network), "another", None)
    taken = "one is" if len(names) <= 1 else f"{len(names)} are"
    more = f" and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
    said = (
        f"the network has several outputs, of which {taken} recovered and exported; left out: "
        f"{', '.join(left_out[:_MOST_NAMED])}{more}"
    )
    if another is None:
        return said
    return (
        f"{said}. A table [outputs.{another}] with its task in model.toml, or --task {another}=TASK, takes another one "
        "too"
    )


def _others_than(keys: list[Any], entries: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Other outputs that hold something else, by name: no softmax of those chosen, and not for training alone."""
    chosen = [entries[key] for key in keys if key is not _LAST_AXES]
    return {
        name: value
        for (key, value), name in zip(entries.items(), _names_of([*entries]), strict=True)
        if isinstance(value, Tensor) and key not in keys and _outer(key) not in _FOR_TRAINING
        if not any(_is_made_of(value, one) for one in chosen)
    }


def _can_have_task(value: Any, num_images: int) -> bool:
    """Whether an output may be named as one to recover."""
    is_batch = isinstance(value, Tensor) and 1 <= value.dim() <= 4 and len(value) == num_images
    return is_batch and value.is_floating_point()


def _is_made_of(value: Tensor, scores: Tensor) -> bool:
    """Whether a tensor is the softmax or the sigmoid of another one."""
    if value.shape != scores.shape or not (value.is_floating_point() and scores.is_floating_point()):
        return False
    made = [scores.sigmoid(), *([scores.softmax(1)] if scores.dim() > 1 else [])]
    return any(torch.allclose(value, one.to(value.dtype), atol=1e-5) for one in made)


def _names_of(keys: Sequence[Any]) -> tuple[str, ...]:
    """Names for people and files; an output's place, where it has none; "levels_0" of what lies in `levels`."""
    names: list[str] = []
    for key in keys:
        first, *inner = key if isinstance(key, tuple) else (key,)
        outer = first if isinstance(first, str) else f"output_{first}"
        name = re.sub(r"[^\w.-]", "_", "_".join([outer, *map(str, inner)]))
        names.append(f"output_{name}" if name == _INPUT or not name or name in names else name)
    return tuple(names)


def _chosen(entries: Mapping[Any, Any], images_NCHW: Tensor, weights: Mapping[str, float]) -> list[Any]:
    """Keys of the outputs that carry a task, in the network's order; none where that is not clear."""
    named = dict(zip(_names_of([*entries]), entries, strict=True))
    batches = {key: value for key, value in entries.items() if _can_have_task(value, len(images_NCHW))}
    for name in weights:
        if named.get(name, _LAST_AXES) not in batches:
            raise BadInputError(
                f"output {name!r} is named, and the network's outputs for {len(images_NCHW)} images are "
                f"{_listed(named, entries)}",
                hint="name floating-point outputs with a first axis of images, as the network calls them: a key, a "
                "field, or output_0 by its place",
            )
    taken = {named[name] for name, weight in weights.items() if weight != 0}
    refused = {named[name] for name, weight in weights.items() if weight == 0}
    found = {*_clear(batches, images_NCHW), *taken} - refused
    if refused and not found:
        raise BadInputError(
            f"every output that carries a task has weight 0; the network's outputs for {len(images_NCHW)} images are "
            f"{_listed(named, entries)}",
            hint="give one of them a weight above 0: [outputs.NAME] in model.toml",
        )
    return [key for key in entries if key in found]


def _listed(named: Mapping[str, Any], entries: Mapping[Any, Any]) -> str:
    values = ((name, entries[key]) for name, key in named.items())
    return ", ".join(
        f"{name} {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        if isinstance(value, Tensor)
        else f"{name} ({type(value).__name__})"
        for name, value in values
    )


def _clear(batches: Mapping[Any, Tensor], images_NCHW: Tensor) -> list[Any]:
    """Keys of the outputs that carry a task where nobody names them."""
    batches = {key: value for key, value in batches.items() if not isinstance(key, tuple)} or batches
    batches = {key: value for key, value in batches.items() if _outer(key) not in _FOR_TRAINING} or batches
    rows = {key: value for key, value in batches.items() if value.dim() <= 2}
    made = {
        key
        for key, value in rows.items()
        if any(other is not value and _is_made_of(value, other) for other in rows.values())
    }
    heads = [key for key in rows if key not in made and _outer(key) not in _FEATURES] or [
        key for key in rows if key not in made
    ]
    if heads:
        of_images = [
            key
            for key, value in batches.items()
            if value.dim() == 4 and value.shape[2:] == images_NCHW.shape[2:] and value.shape != images_NCHW.shape
        ]
        return [*heads, *of_images]
    maps = {key: value for key, value in batches.items() if value.dim() == 4}
    if len(maps) > 1:
        return [name for name in _NAMES_OF_MAPS if name in maps][:1]
    scores = maps or {key: value for key, value in batches.items() if value.dim() == 3}
    return [*scores] if len(scores) == 1 else []


def _has_last_axes(returned: Tensor, num_images: int) -> bool:
    return returned.dim() > 2 and returned.shape[2:].numel() == 1 and len(returned) == num_images


def outputs_by_name(returned: Any) -> dict[str, Any]:
    """All that a network returned, as a user may name it."""
    entries = _entries_of(returned)
    return dict(zip(_names_of([*entries]), entries.values(), strict=True))


def _outer(key: Any) -> Any:
    """Of what lies in a list or a dictionary among the outputs, the key of that."""
    return key[0] if isinstance(key, tuple) else key


def _entries_of(returned: Any) -> Mapping[Any, Any]:
    """Several outputs by key, field name or position; by a tuple of these, what lies in a container among them.

    A list of dictionaries, one for each image as torchvision's detectors return, is not entered.
    """
    entries: dict[Any, Any] = {}
    is_by_image = isinstance(returned, Sequence) and all(isinstance(one, Mapping) for one in returned)
    for key, value in _own_entries_of(returned).items():
        inner = {} if isinstance(value, Tensor | str | bytes) else _entries_of(value)
        if inner and not is_by_image:
            entries |= {(key, *(path if isinstance(path, tuple) else (path,))): one for path, one in inner.items()}
        else:
            entries[key] = value
    return entries


def _own_entries_of(returned: Any) -> Mapping[Any, Any]:
    if isinstance(returned, Mapping):
        return returned
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return dict(zip(returned._fields, returned, strict=True))
    if isinstance(returned, Sequence):
        return dict(enumerate(returned))
    if is_dataclass(returned) and not isinstance(returned, type):
        return {field.name: getattr(returned, field.name) for field in fields(returned)}
    return {}
