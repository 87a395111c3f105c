import pytest
import torch
from torch import nn

from edgerecover.synthesis.record.nodes import node_layers, read_nodes
from edgerecover.synthesis.statistics import watch_places


class Tokens(nn.Module):
    """Linear layers on a grid of tokens and on a sequence; one is called twice."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, 2)
        self.on_grid = nn.Linear(4, 6)
        self.on_sequence = nn.Linear(6, 5)
        self.twice = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        grid = self.on_grid(self.patches(x).permute(0, 2, 3, 1))
        sequence = self.on_sequence(grid.flatten(1, 2))
        return self.head(self.twice(self.twice(sequence)).mean(1))


def read(network, layers, images):
    with watch_places(network, [layer.place for layer in layers]) as seen, torch.no_grad():
        network(images)
        return read_nodes(layers, seen), dict(seen)


def test_layers_stand_in_the_order_of_the_forward_and_shared_ones_are_left_out():
    layers = node_layers(Tokens(), (3, 8, 8), max_cells=4, max_nodes=10_000)
    assert [layer.name for layer in layers] == ["patches", "on_grid", "on_sequence", "head"]
    assert [(layer.channels, layer.rows, layer.columns) for layer in layers] == [
        (4, 4, 4),
        (6, 4, 4),
        (5, 1, 1),
        (3, 1, 1),
    ]


def test_nodes_are_channels_averaged_over_cells():
    network = Tokens()
    layers = node_layers(network, (3, 8, 8), max_cells=2, max_nodes=10_000)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    nodes, seen = read(network, layers, images)
    assert nodes.shape == (5, sum(layer.num_nodes for layer in layers))
    conv = seen[layers[0].place][0]
    torch.testing.assert_close(nodes[:, 1], conv[:, 0, :2, 2:].mean((1, 2)))
    on_grid = seen[layers[1].place][0]
    torch.testing.assert_close(nodes[:, 16 + 4], on_grid[:, :2, :2, 1].mean((1, 2)))
    torch.testing.assert_close(nodes[:, -8:-3], seen[layers[2].place][0].mean(1))


@pytest.mark.parametrize(("max_nodes", "cells"), [(10_000, 4), (60, 2), (18, 1), (1, 1)])
def test_the_grid_is_coarse_enough_for_the_number_of_nodes(max_nodes, cells):
    layers = node_layers(Tokens(), (3, 8, 8), max_cells=7, max_nodes=max_nodes)
    assert layers[0].rows == layers[0].columns == cells


def test_the_network_is_left_without_hooks(teacher):
    node_layers(teacher, (3, 8, 8), max_cells=2, max_nodes=100)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())
