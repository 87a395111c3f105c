"""Opening one checkpoint in its architecture, with layers as narrow as its tensors."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgerecover.artifacts import InputSpec
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import build, load_into, mismatch
from edgerecover.models.build.completion import no_architecture
from edgerecover.models.build.misfits import fitting_prefixes, shared_prefix
from edgerecover.models.build.transformers_folders import with_module_names
from edgerecover.models.build.whole_modules import load_module
from edgerecover.models.build.widths import failing_layer, narrow_to
from edgerecover.models.name.libraries import classifier_key, transformers_folder
from edgerecover.models.name.recognise import num_torchvision_classes, without_auxiliary_heads
from edgerecover.models.name.spec import ModelSpec
from edgerecover.models.network.examples import example_images
from edgerecover.models.read.load import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_WITH_AUXILIARY_HEADS = ("torchvision:inception_v3", "torchvision:googlenet", "torchvision:fcn", "torchvision:deeplab")
"""How names of networks begin that are trained with further heads."""


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint and the network with its weights."""

    checkpoint: Checkpoint
    """The checkpoint, with its keys as the network spells them."""
    network: nn.Module
    dense: nn.Module | None
    """For a channel-pruned checkpoint, the network as its factory builds it, with fresh weights; else None."""


def require_architecture(checkpoint: Checkpoint, spec: ModelSpec) -> str:
    """The architecture that was named or recognised.

    Raises:
        BadInputError: none was.
    """
    if spec.architecture is None:
        raise no_architecture(checkpoint)
    return spec.architecture


def open_checkpoint(checkpoint: Checkpoint, spec: ModelSpec, role: str = "") -> OpenCheckpoint:
    """Build the network, make its layers as narrow as the checkpoint's tensors, and load them.

    Args:
        checkpoint: as read.
        spec: how to open it.
        role: `"teacher "` if messages should say so.

    Raises:
        BadInputError: no architecture is named, it cannot be built, or the checkpoint does not fit it.
    """
    architecture = require_architecture(checkpoint, spec)
    guess = _guess_num_classes(checkpoint, spec, architecture)
    network = _build(spec, architecture, guess)
    fitted = fit_keys(checkpoint, network, spec)
    if guess is not None and mismatch(network, fitted.tensors):
        # The guess may be wrong and the factory's own default right: try that.
        default = _build(spec, architecture, None)
        if not mismatch(default, fitted.tensors):
            network = default
    what = f"{role}{checkpoint.path} ({architecture})"
    dense = _narrow(network, fitted, spec.input, what) if mismatch(network, fitted.tensors) else None
    load_into(network, fitted.tensors, what=what, flag="--teacher-arch" if role else "--arch")
    if spec.input is not None:
        from edgerecover.models.network.detectors import check_detector
        from edgerecover.models.network.inputs import keep_images
        from edgerecover.models.network.several_outputs import return_task_outputs

        check_detector(network.eval(), spec.input, what)
        for one in (network, dense):
            if one is not None:
                said = {name: output.weight for name, output in spec.outputs.items()}
                keep_images(one.eval(), example_images(spec.input, 2))
                return_task_outputs(one, example_images(spec.input, 2), said)
    return OpenCheckpoint(fitted, network.eval(), dense)


def _build(spec: ModelSpec, architecture: str, num_classes: int | None) -> nn.Module:
    import torch

    network = (
        load_module(spec.module)
        if spec.module
        else build(architecture, spec.base_dir, num_classes, spec.input, spec.options)
    )
    from edgerecover.models.network.detectors import return_candidates

    return_candidates(network, architecture)
    kept = next((key for key, value in network.state_dict().items() if not isinstance(value, torch.Tensor)), None)
    if kept is not None:
        raise BadInputError(
            f"{architecture}: its state_dict holds {kept!r}, which is no tensor and is never read from a checkpoint",
            hint="keep what the forward needs in buffers, and let get_extra_state return a tensor or go",
        )
    scripted = [name for name, part in network.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        what = f"its part {scripted[0]!r}" if scripted[0] else "what it makes"
        raise BadInputError(
            f"{architecture}: {what} is a ScriptModule, whose layers can be neither observed nor trained",
            hint="let the factory return the nn.Module itself, without torch.jit.script or torch.jit.trace",
        )
    return network


def _narrow(network: nn.Module, checkpoint: Checkpoint, input: InputSpec | None, what: str) -> nn.Module | None:
    """Make layers as narrow as the checkpoint's, in place; returns a copy of the network before, None if none changed.

    Raises:
        BadInputError: the narrower layers do not fit together.
    """
    differences, dense = mismatch(network, checkpoint.tensors), copy.deepcopy(network).eval()
    if input is None or not narrow_to(network, checkpoint.tensors):
        return None
    if failure := failing_layer(network.eval(), input.shape):
        name, error = failure
        raise BadInputError(
            f"{what}: the checkpoint does not fit the architecture\n{differences}\n"
            f"  nor does it fit as a channel-pruned one: the forward pass fails at {name or 'the top'} ({error})",
            hint="name the architecture that the checkpoint was trained with (--arch or model.toml)",
        )
    return dense


def _guess_num_classes(checkpoint: Checkpoint, spec: ModelSpec, architecture: str) -> int | None:
    """Output size of the classifying layer; for a user's network, of the last layer in the checkpoint."""
    if architecture.startswith("torchvision:"):
        return num_torchvision_classes(checkpoint.tensors, architecture.partition(":")[2])
    if (key := classifier_key(architecture)) and key in checkpoint.tensors:
        return checkpoint.tensors[key].shape[0]
    if spec.classes:
        return len(spec.classes)
    sizes = [tensor.shape[0] for tensor in checkpoint.tensors.values() if tensor.dim() >= 2]
    return int(sizes[-1]) if sizes else None


def fit_keys(checkpoint: Checkpoint, network: nn.Module, spec: ModelSpec) -> Checkpoint:
    """Spell keys as the network does, and drop what only training and tools use.

    Keys of transformers' files are replaced by the names of the library's modules.

    Raises:
        BadInputError: the weights need something else to be complete, and the network does not have it.
    """
    keys = network.state_dict().keys()
    if folder := transformers_folder(spec.architecture, spec.base_dir):
        checkpoint = _with_module_names(checkpoint, folder)
    # TorchScript keeps buffers that state_dict() leaves out.
    checkpoint = checkpoint.without({name for name, _ in network.named_buffers() if name not in keys})
    for start in range(len(checkpoint.prefixes)):
        prefix = "".join(checkpoint.prefixes[start:])
        if keys and all(key.startswith(prefix) for key in keys):
            return checkpoint.with_prefix(prefix).as_spelled(keys)
    checkpoint = _under_its_prefix(checkpoint, network).as_spelled(keys)
    if not (spec.architecture or "").startswith(_WITH_AUXILIARY_HEADS):
        return checkpoint
    return checkpoint.without(checkpoint.tensors.keys() - without_auxiliary_heads(checkpoint.tensors).keys())


def _under_its_prefix(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """Remove a prefix that all keys share ("backbone."), or add the network's own, if every tensor then fits."""
    wanted, shared = network.state_dict(), shared_prefix(checkpoint.tensors)
    if shared and shared in fitting_prefixes(wanted, checkpoint.tensors):
        return checkpoint.without_prefix(shared)
    if checkpoint.is_of_lightning and mismatch(network, checkpoint.tensors):
        fitting = fitting_prefixes(wanted, checkpoint.tensors)
        return checkpoint.under_prefix(fitting[0]) if len(fitting) == 1 else checkpoint
    own = shared_prefix(wanted)
    if own and not mismatch(network, {own + key: tensor for key, tensor in checkpoint.tensors.items()}):
        return checkpoint.with_prefix(own)
    return checkpoint


def _with_module_names(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    import torch

    tensors = with_module_names(folder, checkpoint.tensors)
    if tensors.keys() == checkpoint.tensors.keys():
        return checkpoint
    kept = {key: checkpoint.masks.get(key, torch.ones_like(tensor)) for key, tensor in checkpoint.tensors.items()}
    masks = {name: mask != 0 for name, mask in with_module_names(folder, kept).items()} if checkpoint.masks else {}
    dense = checkpoint.dense_tensors
    return replace(
        checkpoint,
        tensors=tensors,
        masks={name: mask for name, mask in masks.items() if not bool(mask.all())},
        dense_tensors=with_module_names(folder, dense) if dense else None,
    )
