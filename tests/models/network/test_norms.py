import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from edgerecover.models.network.norms import (
    Normalisation,
    adapts,
    batch_norms_of,
    normalising,
    stored_by,
    unused_statistics_of,
)


class ByHand(nn.Module):
    """Batch norm as one writes it: statistics in the shape of a feature map, an activation behind."""

    def __init__(self, size):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, size, 1, 1))
        self.register_buffer("running_mean", torch.zeros(1, size, 1, 1))
        self.register_buffer("running_var", torch.ones(1, size, 1, 1))

    def forward(self, x):
        return F.silu(self.scale * (x - self.running_mean) * torch.rsqrt(self.running_var + 1e-3))


class FrozenByItself(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class DividesByTheVariance(ByHand):
    def forward(self, x):
        return (x - self.running_mean) / self.running_var


def switched_off():
    layer = nn.BatchNorm2d(6)
    nn.init.zeros_(layer.weight)
    return layer


def once_lazy():
    layer = nn.LazyBatchNorm2d()
    layer(torch.zeros(2, 6, 3, 3))
    return layer


@pytest.mark.parametrize(
    ("layer", "follows"),
    [
        (nn.BatchNorm1d(6), True),
        (nn.BatchNorm2d(6, affine=False), True),
        (nn.BatchNorm2d(6, momentum=None), True),
        (nn.BatchNorm3d(6), True),
        (nn.SyncBatchNorm(6), True),
        (switched_off(), True),
        (once_lazy(), True),
        (FrozenByItself(6), False),
        (FrozenBatchNorm2d(6), False),
        (FrozenBatchNorm2d(3), False),  # as wide as one of the images' sides that it is tried on
        (ByHand(6), False),
        (nn.InstanceNorm2d(6, track_running_stats=True), False),
    ],
)
def test_layers_are_told_by_what_they_do(layer, follows):
    network = nn.Sequential(nn.Identity(), layer)
    before = copy.deepcopy(layer.state_dict())
    assert list(batch_norms_of(network)) == ["1"]
    assert adapts(layer) == follows
    assert unused_statistics_of(network) == ()
    assert layer.training
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_layer_without_memory_is_told_too():
    network = nn.Sequential(nn.BatchNorm2d(6), FrozenBatchNorm2d(6)).to("meta")
    assert list(batch_norms_of(network)) == ["0", "1"]


def test_timms_layers_are_batch_norm_with_an_activation():
    norm_act = pytest.importorskip("timm.layers.norm_act")
    for kind, follows in ((norm_act.BatchNormAct2d, True), (norm_act.FrozenBatchNormAct2d, False)):
        layer = kind(6)
        assert list(batch_norms_of(layer)) == [""]
        assert adapts(layer) == follows


def test_what_stores_nothing_carries_nothing():
    network = nn.Sequential(nn.BatchNorm2d(6, track_running_stats=False), nn.InstanceNorm2d(6), nn.LayerNorm(6))
    assert batch_norms_of(network) == {}
    assert unused_statistics_of(network) == ()


def test_statistics_that_are_used_in_another_way_are_named():
    network = nn.Sequential(nn.BatchNorm2d(6), DividesByTheVariance(6))
    assert list(batch_norms_of(network)) == ["0"]
    assert unused_statistics_of(network) == ("1",)


def test_stored_statistics_can_be_written():
    layer = ByHand(6)
    mean_C, var_C = stored_by(layer)
    mean_C.copy_(torch.arange(6.0))
    var_C.fill_(4.0)
    assert layer.running_mean.flatten().tolist() == list(range(6))
    assert bool((layer.running_var == 4).all())


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(6), FrozenBatchNorm2d(6), ByHand(6)])
@pytest.mark.parametrize("by_keyword", [False, True])
def test_a_forward_by_other_statistics_leaves_its_own_alone(layer, by_keyword):
    x = torch.randn((4, 6, 3, 3), generator=torch.Generator().manual_seed(0))
    layer = copy.deepcopy(layer).train()
    own, keyword = layer.running_mean, "input" if isinstance(layer, nn.BatchNorm2d) else "x"
    mean_C, var_C = torch.arange(6.0), torch.full((6,), 4.0)
    with normalising(layer, lambda x_NC: Normalisation(2 * x_NC, mean_C, var_C)):
        made = layer(**{keyword: x}) if by_keyword else layer(x)
        assert layer.running_mean is own
    expected = copy.deepcopy(layer).eval()
    for stored, values_C in zip(stored_by(expected), (mean_C, var_C), strict=True):
        stored.copy_(values_C)
    torch.testing.assert_close(made, expected(2 * x))
    assert layer.training
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_a_layer_that_fails_is_itself_again():
    layer = nn.BatchNorm2d(6).train()
    own = layer.running_mean
    with pytest.raises(RuntimeError), normalising(layer, lambda x: Normalisation(x, torch.zeros(6), torch.ones(6))):
        layer(torch.zeros(2, 5, 3, 3))
    assert layer.running_mean is own
    assert layer.training
