"""Undoing what factories add to networks for training.

A `train()` that does not return the network, as many that freeze batch norm; torch.compile, which would compile every
trial of a few images and hides layers from observers.
"""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from edgerecover.models.network.subclasses import become


def let_eval_return(network: nn.Module) -> nn.Module:
    """Make `eval()` and `train()` return the network; if they did not, its class is replaced by a subclass."""
    was_training = network.training
    own = type(network)
    returned = network.eval()
    network.train(was_training)
    if returned is network:
        return network

    class Returning(own):  # type: ignore[valid-type, misc]
        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            return self

        def eval(self) -> nn.Module:
            super().eval()
            return self

    become(network, Returning)
    return network


def take_off_compilation(network: nn.Module) -> nn.Module:
    """Remove torch.compile's wrappers around the network and its parts, in place."""
    compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is None:  # importing it takes a second, and nothing was compiled without it
        return network
    while isinstance(network, compiler.OptimizedModule):
        network = network._orig_mod
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, compiler.OptimizedModule):
                setattr(part, name, take_off_compilation(child))
    return network
