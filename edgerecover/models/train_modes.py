"""Networks whose own `train()` forgets to return them, as many do that freeze batch norm in it."""

# ruff: noqa: TID253 - subclasses modules; what opens networks imports it when it has some

from __future__ import annotations

from torch import nn


def let_eval_return(network: nn.Module) -> nn.Module:
    """The network, whose `eval()` and `train()` return it from now on; where they did not, its class is subclassed."""
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

    Returning.__name__, Returning.__qualname__, Returning.__module__ = own.__name__, own.__qualname__, own.__module__
    network.__class__ = Returning
    return network
