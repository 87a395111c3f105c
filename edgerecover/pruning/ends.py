"""Up to which layers channels can be followed, where what comes after mixes them."""

# ruff: noqa: TID253 - walks the graph of a forward pass; only stages and commands that prune import it

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from edgerecover.models.network.detectors import gives_candidates
from edgerecover.models.network.outputs import as_rows


def known_ends(network: nn.Module, images_NCHW: Tensor) -> tuple[str, ...]:
    """Names of a torchvision detector's convolutions whose outputs become boxes and scores; empty for other networks.

    Their channels are not followed further: decoding mixes each of them with all anchors.
    """
    return last_convolutions(network, images_NCHW) if gives_candidates(network) else ()


def last_convolutions(network: nn.Module, images_NCHW: Tensor) -> tuple[str, ...]:
    """Names of the convolutions after which a network has no weights; empty where another layer's weights are last.

    Args:
        network: on the CPU, in eval mode; not changed.
        images_NCHW: images to run it on.
    """
    waiting, names = _follow(network, images_NCHW)
    seen, found = set[Any](), dict[str, None]()
    for node in waiting:
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [other for other, _ in node.next_functions]
        if node.name().startswith("ConvolutionBackward"):
            weight = getattr(before[1], "variable", None)  # of normalised weights there is none
            if id(weight) not in names:
                return ()
            found[names[id(weight)]] = None
        elif hasattr(node, "variable"):
            return ()
        else:
            waiting += before
    return tuple(found)


def layers_of_outputs(network: nn.Module, images_NCHW: Tensor) -> frozenset[str]:
    """Names of the layers whose outputs are the network's, or become so without another matrix or kernel of weights.

    Args:
        network: on the CPU, in eval mode; not changed.
        images_NCHW: images to run it on.
    """
    waiting, names = _follow(network, images_NCHW)
    seen, found = set[Any](), set[str]()
    for node in waiting:
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [other for other, _ in node.next_functions]
        own = {
            names[id(weight)] for weight in map(_weight_behind, before) if weight is not None and id(weight) in names
        }
        found |= own
        waiting += [] if own else before
    return frozenset(found)


def _follow(network: nn.Module, images_NCHW: Tensor) -> tuple[list[Any], dict[int, str]]:
    """The last nodes of a forward pass in autograd's graph, and each weight's layer by the weight's id."""
    followed = copy.deepcopy(network).requires_grad_(True)  # of frozen weights autograd knows no layer
    names = {id(weight): name.removesuffix(".weight") for name, weight in followed.named_parameters()}
    with torch.enable_grad():
        return [as_rows(followed(images_NCHW)).grad_fn], names


def _weight_behind(node: Any) -> Tensor | None:
    """A parameter of two or more dimensions that a node hands on as it is, or transposed."""
    while node is not None and node.name().startswith(("TBackward", "TransposeBackward")):
        node = node.next_functions[0][0]
    weight: Tensor | None = getattr(node, "variable", None)
    return weight if weight is not None and weight.dim() >= 2 else None
