"""The activations at which teacher and student are compared, found in any architecture."""

# ruff: noqa: TID253 - works on modules throughout; only the recovery stage imports it

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.network.sparsity import prunable_weights

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)


def block_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose outputs are compared, in the order of the network.

    A block is an outermost module, not a plain container, whose class occurs more than once: BasicBlock of a ResNet,
    InvertedResidual of a MobileNet, EncoderBlock of a ViT. A network without any (VGG, LeNet) is matched at its
    normalisation layers, and failing those at the modules that hold its weights, but the last.
    """
    if blocks := repeated_blocks(network):
        return blocks
    carrying = batch_norms_of(network)
    if norms := tuple(name for name, m in network.named_modules() if name in carrying or isinstance(m, _NORMS)):
        return norms
    weighted = dict.fromkeys(_holder(weight) for weight in prunable_weights(network))
    return tuple(name for name in list(weighted)[:-1] if name)


def repeated_blocks(network: nn.Module) -> tuple[str, ...]:
    """Names of the outermost modules, not plain containers, whose class occurs more than once, in their order."""
    return tuple(_outermost(network, "", Counter(type(m) for m in network.modules() if _is_compound(m))))


def _holder(weight: str) -> str:
    """The module whose output a weight contributes to; for a parametrised weight, its layer."""
    return re.sub(r"(^|\.)(parametrizations\..+|[^.]+)$", "", weight)


def stage_ends(student: nn.Module, teacher: nn.Module, images_NCHW: Tensor) -> dict[str, str]:
    """Pair a student's blocks with those of a teacher of another architecture, by the student's block names.

    Of all blocks of one output shape, the last one ends a stage: the student's last is paired with the teacher's last.
    (Pairing networks of different depths by name is worse than not pairing: docs/adr/0013.)

    Args:
        student: in eval mode.
        teacher: in eval mode, on the same device.
        images_NCHW: images that both are run on.
    """
    ends_s, ends_t = (_last_by_shape(network, images_NCHW) for network in (student, teacher))
    return {name: ends_t[shape] for shape, name in ends_s.items() if shape in ends_t}


@torch.no_grad()
def _last_by_shape(network: nn.Module, images_NCHW: Tensor) -> dict[torch.Size, str]:
    with capture_outputs(network, block_names(network)) as outputs:
        network(images_NCHW)
    return {output.shape: name for name, output in outputs.items()}


def _is_compound(module: nn.Module) -> bool:
    return type(module) not in CONTAINERS and any(True for child in module.children() for _ in child.parameters())


def _outermost(module: nn.Module, prefix: str, classes: Counter[type[nn.Module]]) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if _is_compound(child) and classes[type(child)] > 1:
            yield path
        else:
            yield from _outermost(child, f"{path}.", classes)


@contextmanager
def capture_outputs(network: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Capture the outputs of the named modules inside the block; each forward replaces those of the last.

    Where the network then overwrites such an output in place, as VGG's activations overwrite their norms', the captured
    one is overwritten too: it is what the next layer sees, in teacher and student alike, with its gradient.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]  # type: ignore[arg-type]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
