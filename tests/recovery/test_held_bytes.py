import torch
from torch import nn

from edgerecover.recovery.held_bytes import held_bytes


def test_the_widest_point_of_a_chain_is_an_input_and_its_output():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 32, 1), nn.Conv2d(32, 2, 1), nn.Conv2d(2, 2, 1))
    images = torch.zeros(2, 3, 8, 8)
    pixels = 2 * 8 * 8 * 4
    # What entered is held by whoever called; the first convolution's output has gone when the third is computed.
    assert held_bytes(network, images) == pixels * (3 + 4 + 32)


def test_what_a_shortcut_keeps_counts_as_long_as_it_is_kept():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rest = nn.Conv2d(3, 16, 1), nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1))

        def forward(self, images):
            x = self.first(images)
            return x + self.rest(x)

    assert held_bytes(Kept(), torch.zeros(1, 3, 8, 8)) == 8 * 8 * 4 * (3 + 16 * 3)


def test_views_and_changes_in_place_take_nothing():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 100), nn.ReLU(inplace=True), nn.Unflatten(1, (10, 10)))
    assert held_bytes(network, torch.zeros(5, 3, 2, 2)) == 5 * 4 * (12 + 100)
