import torch
from torch import nn

from edgerecover.synthesis.record.nodes import node_layers
from edgerecover.synthesis.record.spectral import _adjacency, spectral_basis


def layers_of(network, shape, cells):
    return node_layers(network, shape, max_cells=cells, max_nodes=10_000)


def test_edges_of_linear_layers_are_their_weights_sizes():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    adjacency = _adjacency(network, layers_of(network, (1, 2, 2), 1))
    assert adjacency.shape == (5, 5)
    torch.testing.assert_close(adjacency[3:, :3], network[3].weight.detach().abs().double())
    torch.testing.assert_close(adjacency, adjacency.T)
    assert not adjacency[:3, :3].any()
    assert not adjacency[3:, 3:].any()


def test_a_convolution_joins_channels_of_the_same_cell():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 4, 3, padding=1, groups=2))
    adjacency = _adjacency(network, layers_of(network, (1, 4, 4), 2))
    edges = adjacency[8:, :8].view(4, 4, 2, 4)
    strength = network[2].weight.detach().abs().sum((2, 3)).double()
    for cell in range(4):
        torch.testing.assert_close(edges[:2, cell, 0, cell], strength[:2, 0])
        torch.testing.assert_close(edges[2:, cell, 1, cell], strength[2:, 0])
        assert not edges[:2, cell, 1].any()
        assert not edges[0, cell, 0, (cell + 1) % 4]


def test_a_flattened_feature_map_keeps_its_channels_apart():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 5))
    adjacency = _adjacency(network, layers_of(network, (1, 4, 4), 2))
    edges = adjacency[12:, :12].view(5, 3, 2, 2)
    maps = network[2].weight.detach().abs().double().view(5, 3, 4, 4)
    torch.testing.assert_close(edges[:, :, 0, 1], maps[:, :, :2, 2:].mean((2, 3)))


def test_layers_that_do_not_feed_each_other_have_no_edges():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.head((self.left(x) + self.right(x)[:, :4]).mean((2, 3)))

    network = Branches()
    adjacency = _adjacency(network, layers_of(network, (3, 4, 4), 1))
    assert not adjacency.any()


def test_the_basis_is_orthonormal_and_diagonalises_the_graph(teacher):
    layers = layers_of(teacher, (3, 8, 8), 1)
    basis = spectral_basis(teacher, layers).double()
    torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis)).double(), atol=1e-5, rtol=0)
    spectrum = basis.T @ _adjacency(teacher, layers) @ basis
    assert (spectrum - spectrum.diagonal().diag()).abs().max() < 1e-4 * spectrum.abs().max()
