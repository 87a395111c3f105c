import copy
import itertools

import pytest
import torch
from torch import nn

from edgerecover.recovery.units import input_of, units_of
from tests.pairs import pair_of

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, scale=1.0):
        return x + scale * self.conv(x).relu_()


class Residual(nn.Module):
    """Blocks between a stem and a head, with functions between some of them."""

    def __init__(self, *, glue=False, **named):
        super().__init__()
        self.stem, self.norm, self.activation = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)
        self.glue, self.named = glue, named

    def forward(self, images):
        x = self.activation(self.norm(self.stem(images)))
        for block in self.blocks:
            x = block(x, **self.named)
            if self.glue:
                x.mul_(0.5)
        return self.head(self.pool(x).flatten(1))


def found(student, teacher=None, images=IMAGES):
    student = student.eval().requires_grad_(False)
    return units_of(pair_of(student, (teacher or copy.deepcopy(student)).eval()), images)


def names(units):
    return ["+".join(unit.names) for unit in units]


def test_blocks_stand_alone_and_layers_go_with_their_weights():
    units, left_out = found(Residual())
    assert names(units) == ["stem+norm+activation", "blocks.0", "blocks.1", "blocks.2", "pool"]
    assert [unit.follows for unit in units] == [False, True, True, True, True]
    assert left_out == {}
    assert units[0].values_per_image == 6 * 8 * 8


def test_a_plain_network_is_taken_apart_at_its_weights_but_the_last(teacher):
    units, _ = found(teacher)
    assert names(units) == ["0+1+2", "3+4+5", "6+7+8+9+10"]


def test_units_run_as_the_network_runs_them(teacher):
    for network in (Residual(scale=0.3).eval(), teacher):
        units, _ = found(network)
        with torch.no_grad():
            x = IMAGES.clone()
            for unit, following in itertools.pairwise(units):
                x = unit.run(network, x)
                torch.testing.assert_close(x, input_of(network, following, IMAGES))
                x = x.clone()


def test_what_is_written_into_between_two_blocks_breaks_the_chain():
    units, _ = found(Residual(glue=True))
    assert [unit.follows for unit in units] == [False, True, False, False, False]


def test_what_cannot_be_run_alone_is_named():
    network = Residual()
    network.blocks[1].forward = lambda x: (x, x)[0]
    network.blocks[2] = network.blocks[0]
    units, left_out = found(network)
    assert names(units) == ["stem+norm+activation", "blocks.1", "pool"]
    assert left_out == {"blocks.0": "it is used more than once"}
    assert [unit.follows for unit in units] == [False, False, False]


def test_a_block_that_takes_two_tensors_is_left_out():
    network = Residual(scale=torch.ones(1))
    units, left_out = found(network)
    assert names(units) == ["stem+norm+activation", "pool"]
    assert set(left_out) == {"blocks.0", "blocks.1", "blocks.2"}


def test_a_teacher_that_runs_it_differently_is_not_compared():
    units, left_out = found(Residual(scale=0.5), Residual())
    assert names(units) == ["stem+norm+activation", "pool"]
    assert set(left_out.values()) == {"the teacher runs it in a different way"}


def test_blocks_that_share_a_weight_are_left_out():
    network = Residual()
    network.blocks[2].conv.weight = network.blocks[0].conv.weight
    units, left_out = found(network)
    assert names(units) == ["stem+norm+activation", "blocks.1", "pool"]
    assert set(left_out) == {"blocks.0", "blocks.2"}


def test_a_network_that_catches_everything_is_stopped_all_the_same():
    class Stubborn(Residual):
        def forward(self, images):
            try:
                return super().forward(images)
            except Exception:
                return torch.zeros(len(images), 4)

    network = Stubborn().eval()
    units, _ = found(network)
    with torch.no_grad():
        assert input_of(network, units[2], IMAGES).shape == (2, 6, 8, 8)
    assert not network.blocks[1]._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
def test_a_traced_network_shows_no_units():
    network = Residual().eval()
    assert found(torch.jit.trace(network, IMAGES), network)[0] == []
