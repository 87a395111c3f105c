"""What factories leave on networks for training does not cost the recovery."""

import copy

import torch
from torch import nn

from edgerecover.models.network.train_modes import let_eval_return, take_off_compilation


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


def test_compiled_parts_are_plain_again_under_their_plain_names():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Linear(2, 2)))
    keys = list(network.state_dict())
    network[1][1] = torch.compile(network[1][1])
    network[1] = torch.compile(network[1])
    whole = torch.compile(network)
    assert list(whole.state_dict()) != keys
    assert take_off_compilation(whole) is network
    assert list(network.state_dict()) == keys
    assert type(network[1][1]) is nn.Linear
