"""What can be known of networks in seconds, before anything is made from them: a trial on a few images.

Everything after it assumes that a network gives the same result twice, the same for an image alone as in company, and a
gradient that reaches the image. Where that is not so, it is said here, with what to change.
"""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - runs networks; only what calls the stages imports it

from __future__ import annotations

import copy
import math
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgerecover.artifacts import Activation, InputSpec, Sparsity, TaskKind
from edgerecover.compute import Compute, fit_compute, is_out_of_memory
from edgerecover.errors import BadInputError
from edgerecover.models.network.examples import example_images
from edgerecover.models.network.outputs import declared_output
from edgerecover.models.read.leftovers import list_some
from edgerecover.progress import SILENT, Progress

TEACHER = "the teacher"
STUDENT = "the student"
_SAME = 1e-3
"""Relative difference: of other kernels for another size of batch, and no other result."""
_NUM_CONNECTION_DRAWS = 3
_NUM_DRAWS = 20
"""More forward passes of what draws random numbers, before it counts as deterministic."""


_OF_LISTS = (
    "layers in a plain list or dictionary are not registered: put them in nn.ModuleList or nn.ModuleDict, and single "
    "tensors into nn.ParameterList or attributes of their own"
)
_OF_HOOKS = (
    "a forward hook that refers to `self` keeps that network's tensors when the network is copied: let it take them "
    "from the module that it is called with, or compute this in forward; layers in a plain list belong in nn.ModuleList"
)


@dataclass(frozen=True)
class Probed:
    """What a trial of the networks showed."""

    compute: Compute
    """As all of them can be computed."""
    by_batch: str = ""
    """Which network decides by the images beside one in the batch, and where that begins; empty where none does."""
    warnings: tuple[str, ...] = ()


def probe_networks(
    networks: Mapping[str, nn.Module], input: InputSpec, compute: Compute, progress: Progress = SILENT
) -> Probed:
    """Try networks on two images, forward and backward, alone and in a batch.

    Args:
        networks: by the name that messages give them, on the CPU, in eval mode; of `TEACHER`, decisions are asked too.
        input: of all of them.
        compute: as the hardware would have it.
        progress: where to say what was found.

    Raises:
        BadInputError: a network cannot be used, and why: it gives another result each time, drops the axis of a batch
            of one, or lets no gradient through.
    """
    images_NCHW = example_images(input, 2)
    by_batch, warnings = "", []
    for name, network in networks.items():
        _check_gradient(name, network, images_NCHW, is_teacher=name == TEACHER)
        pair_NK = _logits(network, images_NCHW)
        _check_deterministic(name, network, images_NCHW, pair_NK)
        alone_NK = _check_single_image(name, network, images_NCHW, pair_NK)
        if _differ(alone_NK[0], pair_NK[0]):
            where = _first_difference(network, images_NCHW[:1], images_NCHW)
            by_batch = by_batch or f"{name} lets the images of a batch affect each other, first in {where}"
        warnings += _outputs_in_words(name, network, progress)
    if by_batch:
        warnings.append(
            f"{by_batch}. Dreams and distillation ran in batches; the judgement ran on one image at a time, as the "
            "file does"
        )
    return Probed(fit_compute(compute, networks, images_NCHW, progress), by_batch, tuple(warnings))


def check_connected(network: nn.Module, masks: Mapping[str, Tensor], sparsity: Sparsity, input: InputSpec) -> None:
    """Refuse a student in which nothing of an image can reach the logits, whatever values its kept weights take.

    Args:
        network: the student; left as it is.
        masks: by name of the weight, True where a weight is kept.
        sparsity: of the student; only where a layer has no weight left, it is tried.
        input: of the student.

    Raises:
        BadInputError: a layer without weights has nothing beside it.
    """
    empty = sparsity.empty_layers
    if not empty or any(_reaches(network, masks, input, draw) for draw in range(_NUM_CONNECTION_DRAWS)):
        return
    verb = "has" if len(empty) == 1 else "have"
    raise BadInputError(
        f"{STUDENT}: {list_some(empty)} {verb} no weight left, and nothing bypasses it: its logits are the same for "
        "all images, and no recovery under this mask can change that",
        hint="prune again to the same share in every layer (--pattern layerwise), or to less",
    )


def _reaches(network: nn.Module, masks: Mapping[str, Tensor], input: InputSpec, seed: int) -> bool:
    """Whether the logits depend on the image where kept weights are drawn at random, at He's scale."""
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if weight.dim() >= 2:
            drawn = torch.randn(weight.shape, generator=generator) * math.sqrt(2 / max(1, weight[0].numel()))
            weight.data = (drawn * masks.get(name, weight != 0)).to(weight.dtype)
    images_NCHW = example_images(input, 2).requires_grad_()
    with torch.enable_grad():
        logits_NK = network(images_NCHW.clone())
        (gradient,) = torch.autograd.grad(logits_NK.logsumexp(1).sum() + logits_NK[:, 0].sum(), images_NCHW)
    return bool(gradient.any())


# --- one question each ----------------------------------------------------------------------------------------


@torch.no_grad()
def _logits(network: nn.Module, images_NCHW: Tensor) -> Tensor:
    logits_NK: Tensor = network(images_NCHW.clone())
    return logits_NK


def _check_deterministic(name: str, network: nn.Module, images_NCHW: Tensor, pair_NK: Tensor) -> None:
    """Stochastic depth at a low rate gives the same twice more often than not; that it draws numbers can be seen."""
    state, buffers = _random_state(), {key: buffer.clone() for key, buffer in network.named_buffers()}
    runs_NK = [_logits(network, images_NCHW)]
    changed = [key for key, buffer in network.named_buffers() if key in buffers and not buffer.equal(buffers[key])]
    if _random_state() != state:
        runs_NK += [_logits(network, images_NCHW) for _ in range(_NUM_DRAWS)]
    differs = any(_differ(pair_NK, run_NK) for run_NK in runs_NK)
    if differs and changed:
        raise BadInputError(
            f"{name}: writes into its buffer {changed[0]!r} in eval mode, and gives another result each time",
            hint="update buffers under `if self.training` alone",
        )
    if differs:
        where = _first_difference(network, images_NCHW, images_NCHW)
        raise BadInputError(
            f"{name}: is random in eval mode, first in {where}",
            hint="F.dropout needs training=self.training, and noise belongs under `if self.training`",
        )


def _random_state() -> tuple[bytes, object, bytes]:
    """Of the generators that a forward may draw from: torch's, Python's and NumPy's."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), pickle.dumps(np.random.get_state())


def _check_single_image(name: str, network: nn.Module, images_NCHW: Tensor, pair_NK: Tensor) -> Tensor:
    """Logits (1, K): the device runs one image, and a batch of one is where an axis gets lost."""
    try:
        logits_NK = _logits(network, images_NCHW[:1])
    except Exception as error:  # the user's network raises anything
        if is_out_of_memory(error):
            raise
        raise BadInputError(
            f"{name}: works on two images, but fails on one with {type(error).__name__}: {error}",
            hint="a device runs one image: look for .squeeze(), which drops the axis of a batch of one, and for batch "
            "norm without running statistics",
        ) from error
    if logits_NK.shape != pair_NK[:1].shape:
        raise BadInputError(
            f"{name}: its logits of a single image have shape {list(logits_NK.shape)} instead of "
            f"{list(pair_NK[:1].shape)}",
            hint="a device runs one image: .squeeze() drops the axis of a batch of one; .flatten(1) does not",
        )
    return logits_NK


def _check_gradient(name: str, network: nn.Module, images_NCHW: Tensor, *, is_teacher: bool) -> None:
    inputs_NCHW = images_NCHW.clone().requires_grad_()
    with torch.enable_grad():
        logits_NK = _logits_with_gradient(name, network, inputs_NCHW)
        _check_weights(name, network, logits_NK, inputs_NCHW)
        weights_NK = torch.linspace(-1, 1, logits_NK.numel()).view(logits_NK.shape)
        gradient = None
        if logits_NK.requires_grad:
            gradient = _gradient_of(name, (logits_NK * weights_NK).sum(), inputs_NCHW)
    if gradient is None:
        raise BadInputError(
            f"{name}: no gradient flows from its logits back to the image in eval mode",
            hint="dreams and distillation need it: remove torch.no_grad, torch.inference_mode, "
            "set_grad_enabled, .detach() and argmax from its forward",
        )
    if is_teacher and not bool(gradient.any()):
        if bool((logits_NK[0] == logits_NK[1]).all()):
            raise BadInputError(
                f"{name}: its logits are the same for two different images, so there is nothing to recover from it",
                hint="try it on a few real images: it may be untrained, or a layer may be all zeros",
            )
        raise BadInputError(
            f"{name}: the gradient of its logits is zero in every pixel of the image",
            hint="dreams need it: round, sign, floor and comparisons have none; pass it through "
            "(x + (round(x) - x).detach())",
        )


def _logits_with_gradient(name: str, network: nn.Module, inputs_NCHW: Tensor) -> Tensor:
    try:
        logits_NK: Tensor = network(inputs_NCHW.clone())
    except Exception as error:  # the user's network raises anything
        if is_out_of_memory(error):
            raise
        raise BadInputError(
            f"{name}: its forward works under torch.no_grad alone, and fails with gradients: {type(error).__name__}: "
            f"{error}",
            hint="make what it caches with torch.no_grad instead of torch.inference_mode"
            if "nference" in str(error)
            else "dreams and distillation need gradients: look for .numpy() and values that are changed in place",
        ) from error
    return logits_NK


def _gradient_of(name: str, value: Tensor, inputs_NCHW: Tensor) -> Tensor | None:
    try:
        (gradient,) = torch.autograd.grad(value, inputs_NCHW, allow_unused=True)
    except Exception as error:  # the user's functions raise anything
        if is_out_of_memory(error):
            raise
        raise BadInputError(
            f"{name}: its forward works in eval mode, but its backward fails with {type(error).__name__}: {error}",
            hint="let torch.utils.checkpoint run with use_reentrant=False, or only if self.training"
            if "reentrant" in str(error)
            else "dreams and distillation need gradients: look for values that are changed in place (x += y) and "
            "functions without a backward",
        ) from error
    return gradient


def _check_weights(name: str, network: nn.Module, logits_NK: Tensor, inputs_NCHW: Tensor) -> None:
    """Refuse layers in a plain list: they are in no state_dict, so each build has other weights."""
    known = {id(inputs_NCHW), *(id(parameter) for parameter in network.parameters())}
    strange = [leaf for leaf in _leaves(logits_NK) if id(leaf) not in known]
    if strange:
        raise BadInputError(
            f"{name}: {len(strange)} tensors in its computation are not among its parameters (one has shape "
            f"{list(strange[0].shape)}): no checkpoint holds them, so they are random whenever the network is built",
            hint=_OF_HOOKS if any(map(_has_hooks, network.modules())) else _OF_LISTS,
        )


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _leaves(output: Tensor) -> list[Tensor]:
    """The tensors that require gradients and that an output was computed from."""
    waiting, seen = [output.grad_fn], set[Any]()
    found: list[Tensor] = []
    for node in waiting:
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.append(leaf)
        waiting.extend(following for following, _ in node.next_functions)
    return found


def _outputs_in_words(name: str, network: nn.Module, progress: Progress) -> list[str]:
    output = declared_output(network)
    if output is None:
        return []
    warnings = []
    for what, one in [(f"{name}, output {part.name},", part.output) for part in output.parts] or [(name, output)]:
        if one.activation is Activation.SIGMOID and one.task is TaskKind.ONE_LABEL:
            warnings.append(
                f"{what} ends in a sigmoid for each class: the highest score counts as its decision, as if one class "
                "is right; where several labels can be, give --task multi-label"
            )
        elif one.activation is not Activation.NONE:
            last = "softmax" if one.activation is Activation.SOFTMAX else "a sigmoid"
            progress.note(f"{what} ends in {last}: recovery works on the logits before it; the file keeps it")
    return warnings


# --- where two runs part --------------------------------------------------------------------------------------


def _first_difference(network: nn.Module, a_NCHW: Tensor, b_NCHW: Tensor) -> str:
    """The first layer in which the first image of two batches parts though it came in alike, in words."""
    calls = _run(network, a_NCHW)
    for _ in range(_NUM_DRAWS):  # what is random may agree with itself
        for a, b in zip(calls, _run(network, b_NCHW), strict=False):
            if a.name == b.name and not _differ(a.input, b.input) and _differ(a.output, b.output):
                return f"{a.name} ({a.kind})" if a.name else f"the forward of {a.kind} itself"
    return "an unknown place"


@dataclass(frozen=True)
class _Call:
    """Of one layer: what came in and went out for the first image; None where that cannot be told."""

    name: str
    kind: str
    input: Tensor | None
    output: Tensor | None


@torch.no_grad()
def _run(network: nn.Module, images_NCHW: Tensor) -> list[_Call]:
    """Calls in the order in which they end; the network's own is the last."""
    calls: list[_Call] = []
    size = len(images_NCHW)

    def record(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            coming_in = inputs[0] if inputs else None
            calls.append(_Call(name, type(layer).__name__, _first(coming_in, size), _first(output, size)))

        return hook

    handles = [layer.register_forward_hook(record(name)) for name, layer in network.named_modules()]
    try:
        network(images_NCHW.clone())
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _first(value: object, size: int) -> Tensor | None:
    """A copy: what comes after may compute in place."""
    is_batch = isinstance(value, Tensor) and value.dim() > 0 and len(value) == size and value.is_floating_point()
    return value[0].clone() if is_batch else None  # type: ignore[index]


def _differ(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return False
    return float((a - b).norm()) > _SAME * float(a.norm().clamp_min(1e-12))
