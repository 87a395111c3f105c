"""What a checkpoint itself can add to what the user said about it: its architecture, and its usual input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgerecover.errors import BadInputError, MissingError
from edgerecover.models.libraries import LIBRARIES, build_from_library, default_input, library_of
from edgerecover.models.load import Checkpoint, read_checkpoint
from edgerecover.models.recognise import recognise, recognise_narrower
from edgerecover.models.records import printable
from edgerecover.models.spec import ModelSpec
from edgerecover.models.whole_modules import WholeModule

_NUM_CLASSES_SHOWN = 4


def completed(spec: ModelSpec, checkpoint: Checkpoint, *, trust_pickle: bool = False) -> ModelSpec:
    """`spec` with what a trusted pickle, the checkpoint's keys and a library's own weights can add.

    In this order, what is first wins: what the user said; the module itself, with `trust_pickle`; exact keys and
    shapes; the name that a training script left, when the keys are those of it; the keys of a wider network.
    """
    if spec.architecture is None and trust_pickle:
        spec = with_module(spec, checkpoint)
    if spec.architecture is None and (recognised := recognise(checkpoint.tensors)):
        spec = replace(spec, architecture=recognised, architecture_source="recognised from keys and shapes")
    if spec.architecture is None and (named := _named(checkpoint)):
        spec = replace(spec, architecture=named, architecture_source="named in the file")
    if spec.architecture is None and (recognised := recognise_narrower(checkpoint.tensors)):
        spec = replace(spec, architecture=recognised, architecture_source="recognised from keys, channel-pruned")
    if spec.input is None and spec.architecture and (usual := default_input(spec.architecture)):
        spec = replace(spec, input=usual, input_source=f"{library_of(spec.architecture)}'s own weights")
    return spec


def with_module(spec: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """`spec` with the checkpoint's own module as its architecture, or else the teacher's; as it is if both are none."""
    whole = _whole_module(checkpoint, spec)
    if whole is None:
        return spec
    name = f"pickle:{printable(whole.class_name)}"
    return replace(spec, architecture=name, architecture_source="--trust-pickle", module=whole)


def no_architecture(checkpoint: Checkpoint) -> BadInputError:
    """What to say when nothing tells how to build the network."""
    hint = 'name it with --arch file.py:factory, or in model.toml beside it: architecture = "file.py:factory"'
    if not checkpoint.classes:
        named = f"; the file calls it {checkpoint.arch}" if checkpoint.arch else ""
        return BadInputError(
            f"{checkpoint.path}: no architecture is named for it, and it is none of torchvision's classifiers{named}",
            hint=hint,
        )
    classes = [name for name in checkpoint.classes if not name.startswith("torch.nn.")] or list(checkpoint.classes)
    shown = ", ".join(classes[:_NUM_CLASSES_SHOWN])
    more = len(classes) - _NUM_CLASSES_SHOWN
    return BadInputError(
        f"{checkpoint.path}: is a whole module, whose classes were not imported, because unpickling can run any code: "
        f"{shown}{f' and {more} more' if more > 0 else ''}",
        hint=f"{hint}; or, if you trust whoever made the file, let it run with --trust-pickle",
    )


def _whole_module(checkpoint: Checkpoint, spec: ModelSpec) -> WholeModule | None:
    """The pickled module that can serve as the architecture: the model's, else the teacher's."""
    candidate = checkpoint
    if not checkpoint.classes and spec.teacher_path is not None and spec.teacher_path.is_file():
        candidate = read_checkpoint(spec.teacher_path)
    return WholeModule(candidate.path, candidate.under, candidate.classes[0]) if candidate.classes else None


def _named(checkpoint: Checkpoint) -> str | None:
    """The library's classifier of the name in the file, when it has the checkpoint's keys."""
    import torch

    for library in LIBRARIES if checkpoint.arch else ():
        name = f"{library}:{checkpoint.arch}"
        try:
            with torch.device("meta"):  # a small file may name a network of gigabytes
                network = build_from_library(name, None, None)
        except (BadInputError, MissingError):
            continue
        if _keys(network.state_dict()) == _keys(checkpoint.tensors):
            return name
    return None


def _keys(state: Mapping[str, object]) -> set[str]:
    return {key for key in state if not key.endswith("num_batches_tracked")}
