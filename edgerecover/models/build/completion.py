"""Completing what the user said with what the checkpoint itself tells: its architecture and its usual input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError, MissingError
from edgerecover.models.build.architectures import build
from edgerecover.models.build.transformers_folders import with_module_names
from edgerecover.models.build.whole_modules import WholeModule
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.name.libraries import LIBRARIES, default_input, is_detector, library_of, transformers_folder
from edgerecover.models.name.recognise import recognise, recognise_narrower
from edgerecover.models.name.spec import OWN_TRANSFORM, ModelSpec
from edgerecover.models.read.cards import CARD_FILE, Card
from edgerecover.models.read.folders import home_of, is_usual_name
from edgerecover.models.read.load import Checkpoint, read_checkpoint
from edgerecover.models.read.records import printable

if TYPE_CHECKING:
    from torch import nn

_MAX_GROWTH, _MAX_GROWTH_FREE = 64, 16_000_000
"""How many more values than the file a card's network may have: this many times as many, plus this number."""

_NUM_CLASSES_SHOWN = 4


def complete(spec: ModelSpec, checkpoint: Checkpoint, flags: ModelFlags) -> ModelSpec:
    """Fill the gaps of `spec` from a trusted pickle, cards, the checkpoint's keys and a library's own weights.

    The first that names the architecture wins: the user; the module itself, with `--trust-pickle`; the card beside the
    weights; exact keys and shapes; the name that a training script saved, if its keys match; keys and shapes of a wider
    network.

    Raises:
        BadInputError: the card describes something other than an image classifier, or another network.
        MissingError: the card needs a library that is not installed.
    """
    if spec.architecture is None and flags.trust_pickle:
        spec = with_module(spec, checkpoint)
    spec = with_card(spec, checkpoint)
    if spec.architecture is None and (recognised := recognise(checkpoint.tensors)):
        spec = replace(spec, architecture=recognised, architecture_source="recognised from keys and shapes")
    if spec.architecture is None and (named := _find_named(checkpoint)):
        spec = replace(spec, architecture=named, architecture_source="named in the file")
    if spec.architecture is None and (recognised := recognise_narrower(checkpoint.tensors)):
        spec = replace(spec, architecture=recognised, architecture_source="recognised from keys, channel-pruned")
    own = checkpoint.card
    if spec.classes is None and own and own.classes:
        spec = replace(spec, classes=own.classes, classes_source=own.source)
    return _with_input(spec, next((card for card in (spec.card, own) if card and card.input), None))


def _with_input(spec: ModelSpec, card: Card | None) -> ModelSpec:
    """Fill in the input from a card, and what the card leaves open from the library's own weights.

    Of a detector of torchvision, the network's own transform says what inputs are.
    """
    if spec.architecture is None:
        return spec
    if is_detector(spec.architecture) and (spec.input is None or spec.assumes_scale):
        return _as_transformed(spec)
    if spec.input is not None:
        return _with_scale(spec, spec.input, card)
    library = f"{library_of(spec.architecture)}'s own weights"
    if card is None or card.input is None:
        usual = default_input(spec.architecture)
        if usual is None:
            return spec
        return replace(spec, input=usual, input_source=f"assumed: {library}", assumed_of=spec.architecture)
    usual = None if card.input.is_whole else default_input(spec.architecture)
    joined = card.input.complete(usual)
    if joined is None:
        return spec
    rest = f", and {library}" if usual else ""
    return replace(spec, input=joined, input_source=f"{card.input_source}{rest}")


def _with_scale(spec: ModelSpec, input: InputSpec, card: Card | None) -> ModelSpec:
    """Where the user gave the shape alone, mean and std are the card's, if it has them; else those assumed."""
    said = card.input if card is not None else None
    if said is None or said.mean is None or said.std is None or not spec.assumes_scale or input.range != (0.0, 1.0):
        return spec
    joined = replace(said, shape=input.shape).complete(None)
    if joined is None or card is None:  # of another number of channels
        return spec
    source = f"{spec.input_source}; mean and std of {card.input_source}"
    return replace(spec, input=joined, input_source=source, assumes_scale=False)


def _as_transformed(spec: ModelSpec) -> ModelSpec:
    assert spec.architecture is not None
    own = default_input(spec.architecture)
    assert own is not None
    if spec.input is None:
        return replace(spec, input=own, input_source=OWN_TRANSFORM)
    source = f"{spec.input_source}; mean and std of {OWN_TRANSFORM}"
    scaled = replace(own, shape=spec.input.shape)
    return replace(spec, input=scaled, input_source=source, assumes_scale=False)


# --- cards --------------------------------------------------------------------------------------------------


def with_card(spec: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """Fill in architecture, options and classes from the card; drop the card if it belongs to another file.

    Raises:
        BadInputError: the card describes something other than an image classifier, or another network.
        MissingError: the card needs a library that is not installed.
    """
    card = spec.card
    if card is None or card.architecture is None:
        return spec
    if spec.architecture is None:
        if not _describes(card, checkpoint):
            return replace(spec, card=None)
        source, folder = card.source, card.base_dir
        spec = replace(spec, architecture=card.architecture, architecture_source=source, base_dir=folder)
    is_its_architecture = _names_one(spec, card)
    if not is_its_architecture and not _is_beside(card, checkpoint):
        return replace(spec, card=None)
    if is_its_architecture:
        spec = replace(spec, options=card.options)
    if spec.classes is None and card.classes:
        spec = replace(spec, classes=card.classes, classes_source=CARD_FILE)
    return spec


def _describes(card: Card, checkpoint: Checkpoint) -> bool:
    """Whether a card belongs to this file: by the file's usual name, or because the keys match.

    Raises:
        BadInputError, MissingError: it does by the file's name, and the network cannot be built.
    """
    assert card.architecture is not None
    try:
        network = _without_storage(card.architecture, card.base_dir, card.options)
        _refuse_much_larger(card, network, checkpoint)
    except (BadInputError, MissingError):
        if _is_beside(card, checkpoint):
            raise
        return False
    if _is_beside(card, checkpoint):
        return True
    keys = _keys(network.state_dict())
    folder = transformers_folder(card.architecture, card.base_dir)
    return keys == _keys(with_module_names(folder, checkpoint.tensors) if folder else checkpoint.tensors)


def _is_beside(card: Card, checkpoint: Checkpoint) -> bool:
    """Whether a library would load this file as the weights of the card."""
    folder = home_of(checkpoint.path).resolve()
    return is_usual_name(checkpoint.path) and any(path.parent.resolve() == folder for path in card.files)


def _refuse_much_larger(card: Card, network: nn.Module, checkpoint: Checkpoint) -> None:
    num_described = sum(parameter.numel() for parameter in network.parameters())
    num_held = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    if num_described > _MAX_GROWTH * num_held + _MAX_GROWTH_FREE:
        raise BadInputError(
            f"{checkpoint.path}: holds {num_held:,} values, {card.source} describes a network of {num_described:,}",
            hint="name the architecture of the weights with --arch",
        )


def _without_storage(architecture: str, base_dir: Path, options: Mapping[str, Any]) -> nn.Module:
    import torch

    with torch.device("meta"):  # a small file may describe a network of gigabytes
        return build(architecture, base_dir, None, None, options)


def _names_one(spec: ModelSpec, card: Card) -> bool:
    """Whether both name the same folder or the same timm network; timm's names may end with a dot and a tag."""
    own = transformers_folder(spec.architecture, spec.base_dir)
    its = transformers_folder(card.architecture, card.base_dir)
    if own and its:
        return own.resolve() == its.resolve()
    return (spec.architecture or "").partition(".")[0] == (card.architecture or "").partition(".")[0]


# --- modules, and names in the file ---------------------------------------------------------------------------


def with_module(spec: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """Make the checkpoint's module the architecture, or else the teacher's; `spec` itself if neither is a module."""
    whole = _whole_module(checkpoint, spec)
    if whole is None:
        return spec
    name = f"pickle:{printable(whole.class_name)}"
    return replace(spec, architecture=name, architecture_source="--trust-pickle", module=whole)


def no_architecture(checkpoint: Checkpoint) -> BadInputError:
    """The error for a checkpoint whose architecture is unknown."""
    hint = 'name it with --arch file.py:factory, or in model.toml beside it: architecture = "file.py:factory"'
    if not checkpoint.classes:
        named = f"; the file calls it {checkpoint.arch}" if checkpoint.arch else ""
        return BadInputError(
            f"{checkpoint.path}: no architecture is given for it, and it is none of torchvision's classifiers{named}",
            hint=hint,
        )
    classes = [name for name in checkpoint.classes if not name.startswith("torch.nn.")] or list(checkpoint.classes)
    shown = ", ".join(classes[:_NUM_CLASSES_SHOWN])
    more = len(classes) - _NUM_CLASSES_SHOWN
    return BadInputError(
        f"{checkpoint.path}: is a whole module, whose classes were not imported, because unpickling can run any code: "
        f"{shown}{f' and {more} more' if more > 0 else ''}",
        hint=f"{hint}; or, if you trust whoever made the file, unpickle it with --trust-pickle",
    )


def _whole_module(checkpoint: Checkpoint, spec: ModelSpec) -> WholeModule | None:
    """The pickled module that can serve as the architecture: the student's, or else the teacher's."""
    candidate = checkpoint
    if not checkpoint.classes and spec.teacher_path is not None and spec.teacher_path.is_file():
        candidate = read_checkpoint(spec.teacher_path)
    return WholeModule(candidate.path, candidate.under, candidate.classes[0]) if candidate.classes else None


def _find_named(checkpoint: Checkpoint) -> str | None:
    """The library's classifier with the name in the file, if it has the checkpoint's keys."""
    for library in LIBRARIES if checkpoint.arch else ():
        name = f"{library}:{checkpoint.arch}"
        try:
            network = _without_storage(name, Path(), {})
        except (BadInputError, MissingError):
            continue
        if _keys(network.state_dict()) == _keys(checkpoint.tensors):
            return name
    return None


def _keys(state: Mapping[str, object]) -> set[str]:
    return {key for key in state if not key.endswith("num_batches_tracked")}
