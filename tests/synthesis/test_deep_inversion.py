import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.synthesis.deep_inversion import (
    Aim,
    dream,
    evidence_of,
    reads_patches_as_tokens,
    total_variation,
)
from edgerecover.synthesis.image_set import PixelScale
from edgerecover.synthesis.statistics import open_tap
from tests.conftest import INPUT, convnet, vit
from tests.pairs import objective_of_classes

SHAPE = (16, 3, 8, 8)
TARGETS = torch.arange(16) % 4


def dreams(teacher, spec, settings, cpu, *, targets=TARGETS, seed=0, losses=None):
    bounds = tuple(torch.tensor(edge) for edge in spec.bounds())
    random = torch.Generator().manual_seed(seed)
    on_step = losses.append if losses is not None else lambda loss: None
    with open_tap(teacher, evidence_of(teacher, settings)) as tap:
        return dream(teacher, tap, bounds, SHAPE, Aim(objective_of_classes(4), targets), settings, random, cpu, on_step)


def bn_distance(teacher, images, settings):
    with open_tap(teacher, evidence_of(teacher, settings)) as tap, torch.no_grad():
        tap.draw([len(images)], None, torch.Generator())
        teacher(images)
        return float(tap.distance())


def noise_inside(spec, seed=0):
    low, high = (torch.tensor(edge).view(1, 3, 1, 1) for edge in spec.bounds())
    return low + (high - low) * torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_real_images_are_nearer_to_the_stored_statistics_than_noise(teacher, synthesis, real_images, input_spec):
    noise = noise_inside(input_spec)
    assert bn_distance(teacher, real_images[0], synthesis) < 0.5 * bn_distance(teacher, noise, synthesis)


def test_dreaming_brings_statistics_near_the_stored_ones(teacher, synthesis, cpu, input_spec):
    losses = []
    images = dreams(teacher, input_spec, synthesis, cpu, losses=losses)
    assert len(losses) == synthesis.num_steps
    assert images.shape == SHAPE
    assert images.dtype == torch.float32
    assert bn_distance(teacher, images, synthesis) < 0.5 * bn_distance(teacher, noise_inside(input_spec), synthesis)
    assert losses[-1] < 0.6 * losses[0]


def test_dreams_are_of_the_class_they_were_made_for(teacher, synthesis, cpu, input_spec):
    images = dreams(teacher, input_spec, synthesis, cpu)
    assert (teacher(images).argmax(1) == TARGETS).float().mean() > 0.9


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec((3, 8, 8), (0.45, 0.5, 0.55), (0.2, 0.25, 0.3), (0.0, 1.0)),
        InputSpec((3, 8, 8), (120.0, 110.0, 100.0), (60.0, 50.0, 1.0), (0.0, 255.0)),
    ],
    ids=["unit pixels", "bytes"],
)
def test_pixels_stay_inside_the_range_of_the_preprocessing(teacher, synthesis, cpu, spec):
    # A rate that would leave the range at once if nothing held it.
    settings = synthesis.model_copy(update={"lr": 2.0, "num_steps": 5})
    images = dreams(teacher, spec, settings, cpu).numpy()
    low, high = (np.array(edge, np.float32)[:, None, None] for edge in spec.bounds())
    slack = 1e-5 * (high - low)
    assert (images >= low - slack).all()
    assert (images <= high + slack).all()
    encoded = PixelScale(*spec.bounds()).encode(images)
    assert encoded.min() == 0
    assert encoded.max() == 255


def test_a_number_clamps_the_network_input_itself(teacher, synthesis, cpu, input_spec):
    settings = synthesis.model_copy(update={"lr": 2.0, "num_steps": 5, "clamp": 0.75})
    assert float(dreams(teacher, input_spec, settings, cpu).abs().max()) == pytest.approx(0.75)


def test_the_entropy_term_makes_the_teacher_sure(teacher, synthesis, cpu, input_spec):
    settings = synthesis.model_copy(
        update={"class_term": "entropy", "class_weight": 1.0, "start": "noise", "clamp": 3.0, "lr": 0.05}
    )

    def entropy(images):
        p = F.softmax(teacher(images), 1)
        return float(-(p * p.clamp_min(1e-9).log()).sum(1).mean())

    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    images = dreams(teacher, input_spec, settings, cpu, targets=None)
    assert entropy(images) < 0.5 * entropy(start)


def test_a_network_without_batch_norm_can_be_dreamt_from(teacher_without_bn, synthesis, cpu, input_spec):
    images = dreams(teacher_without_bn, input_spec, synthesis, cpu)
    assert (teacher_without_bn(images).argmax(1) == TARGETS).float().mean() > 0.9


def test_the_seed_decides_the_images(teacher, synthesis, cpu, input_spec):
    settings = synthesis.model_copy(update={"num_steps": 5, "flip": True})
    state = torch.random.get_rng_state()
    first = dreams(teacher, input_spec, settings, cpu, seed=7)
    torch.manual_seed(99)  # not a source of randomness here
    again = dreams(teacher, input_spec, settings, cpu, seed=7)
    torch.random.set_rng_state(state)
    other = dreams(teacher, input_spec, settings, cpu, seed=8)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().mean() > 0.1


def test_smoothness_is_asked_for_by_total_variation(teacher, synthesis, cpu, input_spec):
    rough = dreams(teacher, input_spec, synthesis.model_copy(update={"bn_weight": 0.0}), cpu)
    smooth = dreams(teacher, input_spec, synthesis.model_copy(update={"bn_weight": 0.0, "tv_weight": 5.0}), cpu)
    assert total_variation(smooth, "mean") < 0.5 * total_variation(rough, "mean")


def test_total_variation_of_a_step():
    x = torch.zeros(2, 1, 4, 4)
    x[:, :, :, 2:] = 3.0
    assert total_variation(x, "sum") == 2 * 4 * 3.0
    assert total_variation(x, "mean") == pytest.approx(3.0 / 3)


def test_the_teacher_is_left_as_it_was(teacher, synthesis, cpu, input_spec):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    dreams(teacher, input_spec, synthesis.model_copy(update={"num_steps": 2}), cpu)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_fractal_starts_differ_in_brightness_and_colour_little(teacher, input_spec, synthesis, cpu):
    still = synthesis.model_copy(update={"num_steps": 1, "lr": 1e-9, "jitter_fraction": 0.0})
    spread, colour = {}, {}
    for start in ("fractal", "low-frequency"):
        images = dreams(teacher, input_spec, still.model_copy(update={"start": start}), cpu)
        spread[start] = float(images.mean((1, 2, 3)).std() / images.std())
        colour[start] = float((images - images.mean(1, keepdim=True)).std() / images.std())
    assert spread["fractal"] > 2 * spread["low-frequency"]
    assert colour["fractal"] < 0.8 * colour["low-frequency"]


def test_starts_from_shapes_have_the_pixel_statistics_of_the_input(teacher, input_spec, synthesis, cpu):
    still = synthesis.model_copy(update={"num_steps": 1, "lr": 1e-9, "jitter_fraction": 0.0, "start": "shapes"})
    images = dreams(teacher, input_spec, still, cpu)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), atol=0.1, rtol=0)


def test_the_pixel_term_brings_dreams_to_the_mean_and_std_of_the_input(teacher_without_bn, input_spec, synthesis, cpu):
    def gap(weight):
        settings = synthesis.model_copy(update={"pixel_weight": weight, "num_steps": 20})
        images = dreams(teacher_without_bn, input_spec, settings, cpu)
        return float(images.mean((0, 2, 3)).norm() + (images.var((0, 2, 3)) - 1).norm())

    assert gap(20.0) < 0.5 * gap(0.0)


def test_a_class_temperature_asks_for_wider_margins(teacher_without_bn, input_spec, synthesis, cpu):
    def margin(temperature):
        settings = synthesis.model_copy(update={"class_temperature": temperature})
        top = teacher_without_bn(dreams(teacher_without_bn, input_spec, settings, cpu)).topk(2, dim=1).values
        return float((top[:, 0] - top[:, 1]).median())

    assert margin(8.0) > 1.1 * margin(1.0)


def test_a_teacher_that_attends_to_patches_dreams_without_jitter(synthesis, cpu):
    """Its dreams are the same whatever shift the profile asks for; a convolutional teacher's are not."""
    patches_alone = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(), nn.Linear(32, 4)).requires_grad_(False)
    convolutional = convnet(norm=False).eval().requires_grad_(False)
    for teacher, is_same in ((vit(size=8), True), (patches_alone, False), (convolutional, False)):
        assert reads_patches_as_tokens(teacher) == is_same
        shifted, still = (
            dreams(teacher, INPUT, synthesis.model_copy(update={"jitter_fraction": part, "num_steps": 3}), cpu)
            for part in (0.25, 0.0)
        )
        assert torch.equal(shifted, still) == is_same


def test_the_first_steps_are_coarse(teacher, input_spec, synthesis, cpu):
    sides = []
    handle = teacher.register_forward_pre_hook(lambda _layer, inputs: sides.append(inputs[0].shape[-1]))
    made = dreams(teacher, input_spec, synthesis.model_copy(update={"num_steps": 5, "coarse_fraction": 0.4}), cpu)
    handle.remove()
    assert sides == [4, 4, 8, 8, 8]
    assert made.shape == SHAPE


def test_a_batch_goes_through_the_teacher_in_pieces(teacher, input_spec, synthesis, cpu):
    sizes, losses = [], []
    handle = teacher.register_forward_pre_hook(lambda _layer, inputs: sizes.append(len(inputs[0])))
    settings = synthesis.model_copy(update={"images_at_once": 7, "bn_distance": "relative", "bn_weight": 10.0})
    made = dreams(teacher, input_spec, settings, cpu, losses=losses)
    handle.remove()
    assert sizes[:6] == [6, 6, 4, 6, 6, 4]
    assert len(losses) == settings.num_steps
    assert losses[-1] < 0.7 * losses[0]
    assert float((teacher(made).argmax(1) == TARGETS).float().mean()) > 0.8
    starts = dreams(teacher, input_spec, settings.model_copy(update={"num_steps": 1, "lr": 1e-6}), cpu)
    assert bn_distance(teacher, made, settings) < 0.5 * bn_distance(teacher, starts, settings)
