import copy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from edgerecover.synthesis.statistics import (
    BatchNormStatistics,
    PixelStatistics,
    Place,
    Weighted,
    _BatchStatistics,
    batch_statistics,
    moments_of,
    open_tap,
    watch_places,
)


def bn_distance(teacher, images, kind):
    with open_tap(teacher, [Weighted(1.0, BatchNormStatistics(teacher, kind))]) as tap, torch.no_grad():
        tap.draw([len(images)], None, torch.Generator())
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


@pytest.mark.parametrize(("distance", "over_layers"), [("relative", np.mean), ("l2", np.sum)])
def test_the_bn_term_is_the_mean_over_layers_or_as_published_their_sum(teacher, real_images, distance, over_layers):
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
        only.append(bn_distance(one, images, distance))
    assert bn_distance(teacher, images, distance) == pytest.approx(over_layers(only), rel=1e-3)


def test_weights_multiply_and_terms_add(teacher, real_images):
    term = BatchNormStatistics(teacher, "relative")
    images = real_images[0][:32]
    with open_tap(teacher, [Weighted(2.0, term), Weighted(0.5, term)]) as tap, torch.no_grad():
        tap.draw([32], None, torch.Generator())
        teacher(images)
        assert float(tap.distance()) == pytest.approx(2.5 * bn_distance(teacher, images, "relative"), rel=1e-4)


def test_nothing_known_is_no_distance(teacher_without_bn, real_images):
    with open_tap(teacher_without_bn, []) as tap:
        tap.draw([4], None, torch.Generator())
        teacher_without_bn(real_images[0][:4])
        assert tap.distance() == 0


def test_inputs_and_outputs_are_seen(teacher, real_images):
    images = real_images[0][:4]
    with watch_places(teacher, [Place("0", "input"), Place("0")]) as seen:
        teacher(images)
    ((entering,), (leaving,)) = seen[Place("0", "input")], seen[Place("0")]
    torch.testing.assert_close(entering, images)
    torch.testing.assert_close(leaving, teacher[0](images))


def test_hooks_are_removed_after_an_error_too(teacher):
    with pytest.raises(RuntimeError), open_tap(teacher, [Weighted(1.0, BatchNormStatistics(teacher, "relative"))]):
        teacher(torch.zeros(1, 5, 8, 8))
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_the_pixel_term_is_the_gap_to_mean_0_and_variance_1():
    images = torch.randn((16, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), correction=0, keepdim=True)
    network = nn.Conv2d(3, 2, 3)
    with open_tap(network, [Weighted(1.0, PixelStatistics())]) as tap:
        tap.draw([16], None, torch.Generator())

        def distance(seen):
            network(seen)
            return float(tap.distance())

        assert distance(images) == pytest.approx(0, abs=1e-5)
        assert distance(images + 0.5) == pytest.approx(0.5, rel=1e-4)
        assert distance(images * 2) == pytest.approx(3.0, rel=1e-4)


def test_the_pixel_term_has_a_gradient_in_the_pixels():
    images = torch.full((2, 1, 4, 4), 3.0).requires_grad_()
    network = nn.Flatten()
    with open_tap(network, [Weighted(1.0, PixelStatistics())]) as tap:
        tap.draw([2], None, torch.Generator())
        network(images)
        tap.distance().backward()
    assert (images.grad > 0).all()


class Twice(nn.Module):
    """One layer for two feature maps of different sizes; called by keyword, too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return self.norm(images).mean((2, 3)) + self.norm(input=2 * images[:, :, ::3] + 1).mean((2, 3))


def test_a_layer_that_is_called_twice_is_held_to_the_moments_of_both_calls():
    images = torch.randn((4, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    network = Twice().eval()
    values_CV = torch.cat([x.movedim(1, 0).flatten(1) for x in (images, 2 * images[:, :, ::3] + 1)], 1)
    network.norm.running_mean.copy_(values_CV.mean(1))
    network.norm.running_var.copy_(values_CV.var(1, unbiased=False))
    assert bn_distance(network, images, "l2") == pytest.approx(0, abs=1e-4)
    assert bn_distance(network, images + 0.5, "l2") > 0.5


def test_each_forward_is_seen_alone():
    network, place = Twice(), Place("norm", "input")
    with watch_places(network, [place, Place("", "input")]) as seen:
        for num_images in (2, 4):
            network(images=torch.zeros(num_images, 3, 6, 6))
            assert [len(x) for x in seen[place]] == [num_images] * 2
            assert [len(x) for x in seen[Place("", "input")]] == [num_images]


def test_instance_norm_that_tracks_stores_the_variance_within_images():
    images = torch.randn((8, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    images += 3 * torch.randn((8, 3, 1, 1), generator=torch.Generator().manual_seed(1))
    layer = nn.InstanceNorm2d(3, track_running_stats=True, momentum=1.0)
    layer(images)
    found = moments_of(layer, images)
    torch.testing.assert_close(found.mean_C, layer.running_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.var_C * 36 / 35, layer.running_var, rtol=1e-3, atol=1e-4)
    plain = moments_of(nn.BatchNorm2d(3), images)
    assert bool((plain.var_C > 3 * found.var_C).all())


def test_frozen_layers_guide_dreams_as_their_twins_do(teacher, real_images):
    frozen = copy.deepcopy(teacher)
    for name, layer in teacher.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            twin = FrozenBatchNorm2d(layer.num_features, layer.eps)
            twin.load_state_dict(layer.state_dict())
            frozen[int(name)] = twin
    images = real_images[0][:32]
    expected = bn_distance(teacher, images, "relative")
    assert expected > 0
    assert bn_distance(frozen, images, "relative") == pytest.approx(expected, rel=1e-4)


def test_what_enters_a_layer_is_seen_although_it_computes_in_place():
    class InPlace(nn.BatchNorm2d):
        def forward(self, images):
            slope_C = torch.rsqrt(self.running_var + self.eps).view(1, -1, 1, 1)
            return images.sub_(self.running_mean.view(1, -1, 1, 1)).mul_(slope_C)

    images = 3 + 2 * torch.randn((4, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    layer = InPlace(3).eval()
    layer.running_mean.copy_(images.mean((0, 2, 3)))
    layer.running_var.copy_(images.var((0, 2, 3), unbiased=False))
    assert bn_distance(nn.Sequential(layer), images.clone(), "l2") == pytest.approx(0, abs=1e-3)


def test_a_piece_is_held_to_the_moments_of_its_batch(teacher, real_images):
    """Once all pieces were seen, distance and gradient of each are those of the whole batch at once."""
    teacher, images = teacher.requires_grad_(False), real_images[0][:30].clone()
    pieces = [slice(0, 10), slice(10, 20), slice(20, 30)]
    with open_tap(teacher, [Weighted(1.0, BatchNormStatistics(teacher, "relative"))]) as tap:
        whole = images.clone().requires_grad_()
        tap.draw([30], None, torch.Generator())
        teacher(whole)
        expected = tap.distance()
        (gradient,) = torch.autograd.grad(expected, whole)
        tap.draw([10, 10, 10], None, torch.Generator())
        for number in (0, 1, 2, 0, 1, 2):
            piece = images[pieces[number]].clone().requires_grad_()
            teacher(piece)
            found = tap.distance(number)
            (of_piece,) = torch.autograd.grad(found, piece)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_piece, 3 * gradient[pieces[2]], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_the_same_however_the_activation_lies(memory_format, dtype):
    x = 2 * torch.randn((4, 3, 9, 9), generator=torch.Generator().manual_seed(0)) + 1
    x = x.to(dtype).to(memory_format=memory_format).requires_grad_()
    mean, var = batch_statistics(x)
    assert mean.dtype == var.dtype == torch.float32
    expected = x.detach().float().requires_grad_()
    dims = (0, 2, 3)
    torch.testing.assert_close(mean, expected.mean(dims), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(var, expected.var(dims, unbiased=False), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad((mean * var).sum(), x)
    (wanted,) = torch.autograd.grad((expected.mean(dims) * expected.var(dims, unbiased=False)).sum(), expected)
    torch.testing.assert_close(gradient.float(), wanted, rtol=2e-2, atol=2e-4)
