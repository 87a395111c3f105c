import pytest
import torch
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.demo.example import demo_files
from edgerecover.models.network.input_scale import compare_scale, photograph_like
from edgerecover.models.network.norms import batch_norms_of

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNSCALED = (0.0,) * 3, (1.0,) * 3
BYTES = (0.0,) * 3, (1 / 255,) * 3
HALVES = (0.5,) * 3, (0.5,) * 3


def spec(scale, side=32):
    return InputSpec((3, side, side), *scale)


def trained_on(images_NCHW, *first):
    """A network whose batch norms have stored the statistics of these images."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(first or (nn.Conv2d(3, 16, 3, padding=1),)), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
    )
    norm = next(layer for layer in network if isinstance(layer, nn.BatchNorm2d))
    norm.momentum = 1.0
    with torch.no_grad():
        network.train()(images_NCHW)
    return network.eval()


def photographs(scale, side=32):
    """Other ones than those that are compared with: darker, with more contrast, blurred."""
    fields = torch.rand(16, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(1)) ** 1.5
    pixels = nn.functional.interpolate(fields, size=side, mode="bilinear")
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in scale)
    return (pixels - mean) / std


@pytest.mark.parametrize("scale", [IMAGENET, UNSCALED, BYTES, HALVES])
@pytest.mark.parametrize("first", [(), (nn.Conv2d(3, 16, 7, stride=2, bias=False),)], ids=["3x3", "7x7 stride 2"])
def test_the_right_scale_is_never_doubted(scale, first):
    found = compare_scale(trained_on(photographs(scale), *first), spec(scale))
    assert found is not None
    assert not found.is_another


@pytest.mark.parametrize(
    ("trained", "assumed"),
    [(IMAGENET, UNSCALED), (UNSCALED, IMAGENET), (BYTES, IMAGENET), (IMAGENET, BYTES), (UNSCALED, BYTES)],
)
def test_another_scale_is_noticed_and_told(trained, assumed):
    network = trained_on(photographs(trained))
    found = compare_scale(network, spec(assumed))
    assert found is not None
    assert found.is_another
    images = photographs(trained)
    assert found.trained_std == pytest.approx(float(images.std()), rel=0.6)
    close = float(images.std()) + found.mean_error
    assert found.trained_mean == pytest.approx(float(images.mean()), abs=close)


def test_a_shift_alone_is_noticed():
    shifted = (tuple(one + 0.55 for one in IMAGENET[0]), IMAGENET[1])
    found = compare_scale(trained_on(photographs(IMAGENET)), spec(shifted))
    assert found is not None
    assert 0.4 < found.contrast < 2.5
    assert found.is_another


def test_a_network_whose_first_layer_is_a_batch_norm_is_compared_too():
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=1.0), nn.Flatten(), nn.LazyLinear(10))
    with torch.no_grad():
        network.train()(photographs(IMAGENET))
    network.eval()
    assert not compare_scale(network, spec(IMAGENET)).is_another
    assert compare_scale(network, spec(UNSCALED)).is_another


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(10)),
        trained_on(photographs(IMAGENET), nn.Conv2d(3, 16, 3), nn.ReLU()),
        trained_on(photographs(IMAGENET), nn.InstanceNorm2d(3), nn.Conv2d(3, 16, 3)),
    ],
    ids=["no batch norm", "not trained", "not linear before it", "scales its input itself"],
)
def test_where_it_cannot_be_told_nothing_is_said(network):
    network.eval()(photographs(UNSCALED))  # materialises what is lazy
    assert compare_scale(network, spec(BYTES)) is None


def test_an_image_of_a_few_pixels_says_nothing():
    assert compare_scale(trained_on(photographs(IMAGENET)), InputSpec((3, 2, 2), *IMAGENET)) is None


def test_nothing_after_the_first_batch_norm_runs_and_no_hook_stays():
    network = trained_on(photographs(IMAGENET))
    network[-1].register_forward_hook(lambda *_: pytest.fail("it ran"))
    compare_scale(network, spec(IMAGENET))
    assert not any(module._forward_pre_hooks for module in batch_norms_of(network).values())


@pytest.mark.parametrize("side", [7, 32, 65])
def test_the_noise_looks_like_photographs(side):
    images = photograph_like(spec(UNSCALED, side), 8)
    assert images.shape == (8, 3, side, side)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert float(images.mean()) == pytest.approx(0.45, abs=0.05)
    assert float(images.std()) == pytest.approx(0.25, abs=0.05)
    assert torch.equal(images, photograph_like(spec(UNSCALED, side), 8))


def test_digits_are_not_taken_for_another_scale():
    """They are no photographs, and come nearest to a false alarm."""
    from safetensors.torch import load_file

    from edgerecover.demo.network import digits_net

    network = digits_net()
    network.load_state_dict(load_file(demo_files().dense))
    network.eval()
    found = compare_scale(network, InputSpec((1, 8, 8), (0.3052,), (0.3757,)))
    assert found is not None
    assert not found.is_another
    assert compare_scale(network, InputSpec((1, 8, 8), (0.0,), (1 / 255,))).is_another
