"""Batch norm over a batch that processes share is that of one process with the whole batch."""

import copy

import pytest
import torch
from torch import nn

from edgerecover.ranks import ALONE, Ranks
from edgerecover.recover.shared_norms import _Normalise, _pooled, shared_norms
from tests.processes import in_processes


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5, momentum=None),
    ).train()  # fmt: skip


def images():
    return 3 + 2 * torch.randn((7, 3, 10, 10), generator=torch.Generator().manual_seed(1))


def learn(ranks):
    """Two steps on a batch of seven, which no number of processes divides: weights and statistics afterwards."""
    net, batch = network(), images()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rows = ranks.rows(len(batch))
    with shared_norms(net, ranks):
        for _ in range(2):
            optimizer.zero_grad()
            out = net(batch[rows.start : rows.stop])
            (out.square().mean() * len(rows) / len(batch) + 0.1 * out[:, 0].sum()).backward()
            ranks.add_up([parameter.grad for parameter in net.parameters()])
            optimizer.step()
    assert not any("forward" in vars(module) for module in net.modules())
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def test_normalisation_is_pytorchs_in_one_process():
    torch.manual_seed(0)
    x = torch.randn((5, 4, 3, 3), dtype=torch.float64)
    layer = nn.BatchNorm2d(4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    mean_C, var_C, count = _pooled(ours, ALONE)
    twin = copy.deepcopy(layer)
    made = _Normalise.apply(ours, twin.weight, twin.bias, mean_C.double(), var_C.double(), count, layer.eps, ALONE)
    expected = layer(theirs)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
    wanted = torch.randn_like(expected)
    (made * wanted).sum().backward()
    (expected * wanted).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(twin.weight.grad, layer.weight.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twin.bias.grad, layer.bias.grad, rtol=1e-5, atol=1e-5)


def test_one_process_keeps_pytorchs_layers():
    net = network()
    with shared_norms(net, ALONE):
        assert not any("forward" in vars(module) for module in net.modules())


def test_layers_in_eval_mode_use_what_they_stored():
    net = network().eval()
    expected = net(images())
    with shared_norms(net, Ranks(0, 2)):  # nothing is said to the other process, which does not exist
        torch.testing.assert_close(net(images()), expected, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_processes_learn_what_one_would(size, tmp_path):
    pytest.importorskip("accelerate")
    expected = learn(ALONE)
    for found in in_processes(size, __file__, "learn", tmp_path):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
