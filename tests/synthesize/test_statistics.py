import copy

import pytest
import torch
from torch import nn

from edgerecover.synthesize.statistics import (
    BatchNormStatistics,
    Place,
    Weighted,
    _BatchStatistics,
    batch_statistics,
    tapped,
    watched,
)


def bn_distance(teacher, images, kind):
    with tapped(teacher, [Weighted(1.0, BatchNormStatistics(teacher, kind))]) as tap, torch.no_grad():
        tap.draw(len(images), None, torch.Generator())
        teacher(images)
        return float(tap.distance())


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (2, 3, 4, 5)])
def test_statistics_and_their_gradient_are_those_of_autograd(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1
    dims = [d for d in range(len(shape)) if d != 1]
    mean, var = batch_statistics(x)
    torch.testing.assert_close(mean, x.mean(dims))
    torch.testing.assert_close(var, x.var(dims, unbiased=False))
    assert torch.autograd.gradcheck(_BatchStatistics.apply, x.double().requires_grad_())


def test_statistics_of_a_constant_are_not_negative():
    _, var = batch_statistics(torch.full((3, 2, 5, 5), 1234.567))
    assert (var >= 0).all()


@pytest.mark.parametrize("distance", ["l2", "relative"])
def test_the_bn_term_is_its_formula(teacher, real_images, distance):
    images = real_images[0][:32]
    first = teacher[1]
    x = teacher[0](images)
    mean_gap = (x.mean((0, 2, 3)) - first.running_mean).norm()
    var_gap = (x.var((0, 2, 3), unbiased=False) - first.running_var).norm()
    if distance == "relative":
        mean_gap, var_gap = mean_gap / first.running_var.sqrt().norm(), var_gap / first.running_var.norm()
    # One layer, watched alone.
    alone = nn.Sequential(teacher[0], teacher[1])
    assert bn_distance(alone, images, distance) == pytest.approx(float(mean_gap + var_gap), rel=1e-3)


def test_the_relative_bn_term_does_not_see_the_scale_of_the_pixels(teacher, real_images):
    """A network on raw bytes and its twin on normalised pixels dream alike."""
    images = real_images[0][:32]
    scaled = copy.deepcopy(nn.Sequential(teacher[0], teacher[1]))
    scaled[1].running_mean.mul_(50)
    scaled[1].running_var.mul_(50**2)
    alone = bn_distance(nn.Sequential(teacher[0], teacher[1]), images, "relative")
    assert bn_distance(scaled, 50 * images, "relative") == pytest.approx(alone, rel=1e-2)


def test_the_bn_term_adds_layers_up(teacher, real_images):
    names = BatchNormStatistics(teacher, "relative").places
    assert [place.side for place in names] == ["input"] * sum(isinstance(m, nn.BatchNorm2d) for m in teacher.modules())
    images = real_images[0][:32]
    only = []
    for kept in names:
        one = copy.deepcopy(teacher)
        for place in names:
            if place != kept:
                one.get_submodule(place.layer).running_mean = None
                one.get_submodule(place.layer).running_var = None
                one.get_submodule(place.layer).forward = teacher.get_submodule(place.layer).forward
        only.append(bn_distance(one, images, "relative"))
    assert bn_distance(teacher, images, "relative") == pytest.approx(sum(only), rel=1e-3)


def test_weights_multiply_and_terms_add(teacher, real_images):
    term = BatchNormStatistics(teacher, "relative")
    images = real_images[0][:32]
    with tapped(teacher, [Weighted(2.0, term), Weighted(0.5, term)]) as tap, torch.no_grad():
        tap.draw(32, None, torch.Generator())
        teacher(images)
        assert float(tap.distance()) == pytest.approx(2.5 * bn_distance(teacher, images, "relative"), rel=1e-4)


def test_nothing_known_is_no_distance(teacher_without_bn, real_images):
    with tapped(teacher_without_bn, []) as tap:
        tap.draw(4, None, torch.Generator())
        teacher_without_bn(real_images[0][:4])
        assert tap.distance() == 0


def test_inputs_and_outputs_are_seen(teacher, real_images):
    images = real_images[0][:4]
    with watched(teacher, [Place("0", "input"), Place("0")]) as seen:
        teacher(images)
    torch.testing.assert_close(seen[Place("0", "input")], images)
    torch.testing.assert_close(seen[Place("0")], teacher[0](images))


def test_hooks_are_removed_after_an_error_too(teacher):
    with pytest.raises(RuntimeError), tapped(teacher, [Weighted(1.0, BatchNormStatistics(teacher, "relative"))]):
        teacher(torch.zeros(1, 5, 8, 8))
    assert not any(module._forward_pre_hooks for module in teacher.modules())
