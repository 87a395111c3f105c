"""A `train()` that returns nothing does not cost the network."""

import copy

from torch import nn

from edgerecover.models.train_modes import let_eval_return


class Frozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval()


def test_eval_returns_the_network_and_its_own_train_is_still_called():
    network = let_eval_return(Frozen(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert network.training
    assert network.train() is network
    assert network[0].training
    assert not network[1].training
    assert copy.deepcopy(network).eval() is not network
    assert network.eval() is network
    assert not network.training
    assert type(network).__name__ == "Frozen"


def test_an_ordinary_network_stays_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    assert let_eval_return(network) is network
    assert type(network) is nn.Sequential
    assert not network.training
