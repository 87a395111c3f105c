from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgerecover import demo
from edgerecover.artifacts import InputSpec, OutputSpec
from edgerecover.config import load_profile
from edgerecover.demo.network import DigitsNet
from edgerecover.synthesis.mirror import LEAST_CORRELATION, mirror_correlation
from edgerecover.synthesis.source import Source

GREY = InputSpec((1, 8, 8), (0.5,), (0.25,))


class Sides(nn.Module):
    """Class 0: brighter on the left than on the right; class 1: the other way round."""

    def forward(self, images_NCHW):
        left, right = images_NCHW[..., :4].mean((1, 2, 3)), images_NCHW[..., 4:].mean((1, 2, 3))
        return torch.stack([left, right], 1)


class Halves(nn.Module):
    """Class 0: brighter above; class 1: brighter below. To a mirror they are the same."""

    def forward(self, images_NCHW):
        above, below = images_NCHW[..., :4, :].mean((1, 2, 3)), images_NCHW[..., 4:, :].mean((1, 2, 3))
        return torch.stack([above, below], 1)


class Constant(nn.Module):
    def forward(self, images_NCHW):
        return 0 * images_NCHW[:, 0, 0, :2]


@pytest.fixture
def correlation_of(synthesis, cpu):
    def correlation_of(teacher, num_classes=2, input=GREY):
        # Shifts move bright sides around, which these toys do not survive.
        settings = synthesis.model_copy(update={"jitter_fraction": 0.0})
        return mirror_correlation(Source(teacher.eval(), input, OutputSpec.one_label(num_classes), cpu), settings)

    return correlation_of


def test_a_teacher_that_tells_left_from_right_is_turned_around(correlation_of):
    assert correlation_of(Sides()) == pytest.approx(-1)


def test_a_teacher_that_tells_above_from_below_sees_no_difference(correlation_of):
    assert correlation_of(Halves()) == pytest.approx(1)


def test_it_is_the_same_whatever_random_numbers_were_drawn_before(teacher, correlation_of, input_spec):
    torch.manual_seed(1)
    first = correlation_of(teacher, 4, input_spec)
    torch.manual_seed(2)
    assert correlation_of(teacher, 4, input_spec) == first


def test_digits_were_not_trained_on_mirrored_ones(cpu):
    """The demo's classifier, as the shipped profile dreams from it."""
    teacher = DigitsNet()
    weights = Path(demo.__file__).with_name("dense.safetensors")
    teacher.load_state_dict(load_file(weights))
    settings = load_profile("balanced").synthesis.model_copy(update={"start": "fractal", "coarse_fraction": 0.0})
    digits = InputSpec((1, 8, 8), (0.5,), (0.5,))
    source = Source(teacher.eval().requires_grad_(False), digits, OutputSpec.one_label(10), cpu)
    assert mirror_correlation(source, settings) < LEAST_CORRELATION


def test_a_teacher_that_tells_nothing_apart_has_no_correlation(correlation_of):
    assert correlation_of(Constant()) == 0
