import copy
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgerecover.artifacts import Precision, RefusedVariant, Variant
from edgerecover.export.onnx import export
from edgerecover.export.precision import SCHEMES, Calibration, make_variants
from edgerecover.models.onnx.weights import weights_of
from edgerecover.recover.ladder import logits_on
from edgerecover.recover.quantized import distil_for_int8, fake_int8, rounded_weight
from tests.conftest import INPUT


def with_outlying_channels(teacher, factor):
    """The same function, but two channels that the last convolution reads are `factor` times as large as the others."""
    student = copy.deepcopy(teacher)
    norm, conv = student[4], student[6]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[:2] *= factor
        norm.bias[:2] *= factor
        conv.weight[:, :2] /= factor
    return student


def exported(student, tmp_path):
    return export(student, INPUT, tmp_path / "float32.onnx", opset=18, batch=None)


def test_distillation_reaches_what_quantisation_alone_does_not(teacher, sets, recovery, cpu, tmp_path):
    student = with_outlying_channels(teacher, 250.0)
    float32 = exported(student, tmp_path)
    calibration = Calibration(sets.calibration, logits_on(teacher, sets.calibration, cpu).numpy())
    scheme = SCHEMES["u8s8"]
    (alone,) = make_variants(float32, [Precision.INT8], scheme, calibration, INPUT, tmp_path)
    # A layer in float32 may save it; what all layers in int8 lose is asked here.
    assert min(one.points_lost for one in alone.tries if "kept" not in one.name) > 5
    before = {name: value.clone() for name, value in student.state_dict().items()}
    settings = recovery.model_copy(update={"num_steps": 150, "lr": 0.03})
    found = distil_for_int8(
        student, teacher, {}, sets, settings, scheme, calibration, float32, INPUT, tmp_path, seed=0, compute=cpu
    )
    assert isinstance(found.variant, Variant)
    assert found.variant.kept_higher == ()
    assert next(one.points_lost for one in found.variant.tries if one.chosen) <= 1
    assert "after 150 steps of quantisation-aware distillation" in found.variant.scheme
    assert Path(found.variant.file.path) == tmp_path / "int8.onnx"
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_zeros_under_the_mask_are_zeros_in_the_int8_file(student_and_masks, teacher, sets, recovery, cpu, tmp_path):
    student, masks = student_and_masks
    float32 = exported(student, tmp_path)
    calibration = Calibration(sets.calibration, logits_on(teacher, sets.calibration, cpu).numpy())
    found = distil_for_int8(
        student, teacher, masks, sets, recovery, SCHEMES["tensorrt"], calibration, float32, INPUT, tmp_path,
        seed=0, compute=cpu, max_points_lost=100.0,
    )  # fmt: skip
    stored = {
        weight.name.removesuffix("_quantized"): weight.is_zero
        for weight in weights_of(onnx.load(found.variant.file.path))
    }
    for name, mask in masks.items():
        assert torch.from_numpy(stored[name])[~mask].all()


def test_what_even_distillation_does_not_reach_is_refused_with_all_tries(teacher, sets, recovery, cpu, tmp_path):
    float32 = exported(teacher, tmp_path)
    calibration = Calibration(sets.calibration, logits_on(teacher, sets.calibration, cpu).numpy())
    found = distil_for_int8(
        teacher, teacher, {}, sets, recovery.model_copy(update={"num_steps": 1}), SCHEMES["u8s8"], calibration,
        float32, INPUT, tmp_path, seed=0, compute=cpu, max_points_lost=-100.0,
    )  # fmt: skip
    assert isinstance(found.variant, RefusedVariant)
    assert found.variant.reason.startswith("after 1 steps") or found.variant.reason.startswith("after 1 step")
    assert len(found.variant.tries) >= 4


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES.values() if scheme.name != "qnn"])
def test_the_fake_network_scores_as_the_exported_one(teacher, sets, cpu, tmp_path, scheme):
    """With the same ranges, rounding in the forward is what the file's Q/DQ do."""
    from edgerecover.export.precision.graph import prepare
    from edgerecover.export.precision.integers import quantize
    from edgerecover.export.precision.ranges import scan
    from edgerecover.runtime.session.onnxruntime import CPU, open_session

    float32 = exported(teacher, tmp_path)
    graph = prepare(Path(float32.path))
    images = torch.from_numpy(sets.calibration.images_of(range(64)))
    model = quantize(graph, scan(graph, sets.calibration, max_images=64), scheme)
    (tmp_path / "int8.onnx").write_bytes(model.SerializeToString())
    of_file = open_session(tmp_path / "int8.onnx", [CPU], num_threads=1, exact_int8=True).run(images.numpy())
    with fake_int8(teacher, scheme):
        of_fake = teacher(images)  # gradients are recorded: all 64 images set the ranges
    exact = teacher(images).detach()
    off_fake = float((of_fake.detach() - torch.from_numpy(of_file)).abs().mean())
    assert off_fake < 0.8 * float((exact - torch.from_numpy(of_file)).abs().mean())


def test_ranges_follow_while_gradients_are_recorded_and_then_stand_still(teacher):
    images = torch.randn(8, *INPUT.shape, generator=torch.Generator().manual_seed(0))
    with fake_int8(teacher, SCHEMES["u8s8"]):
        teacher(images)
        with torch.no_grad():
            first = teacher(images)
            teacher(100 * images)
            assert torch.equal(teacher(images), first)
        teacher(100 * images)
        with torch.no_grad():
            assert not torch.equal(teacher(images), first)
    assert torch.equal(teacher(images), copy.deepcopy(teacher)(images))


def test_an_error_in_the_forward_leaves_nothing_behind(teacher):
    with fake_int8(teacher, SCHEMES["u8s8"]), pytest.raises(RuntimeError):
        teacher(torch.zeros(1, 7, 8, 8))
    weight = teacher[0].weight
    images = torch.ones(1, *INPUT.shape)
    assert torch.equal(nn.functional.conv2d(images, weight), torch.conv2d(images, weight.detach()))


def test_a_layer_that_is_called_by_keyword_is_rounded_too(real_images):
    class Called(nn.Module):
        def __init__(self, call):
            super().__init__()
            self.kernel, self.call = nn.Parameter(torch.randn(4, 3, 3, 3)), call

        def forward(self, x):
            return self.call(x, self.kernel)

    plain = Called(lambda x, kernel: nn.functional.conv2d(x, kernel, None, 1, 1))
    named = Called(lambda x, kernel: nn.functional.conv2d(weight=kernel, padding=1, input=x))
    named.load_state_dict(plain.state_dict())
    images = real_images[0][:8]
    with torch.no_grad(), fake_int8(plain, SCHEMES["u8s8"]), fake_int8(named, SCHEMES["u8s8"]):
        rounded, expected = named(images), plain(images)
    assert torch.equal(rounded, expected)
    assert not torch.equal(rounded, named(images))


def test_sums_of_feature_maps_are_rounded_and_biases_are_not():
    class Shortcut(nn.Module):
        def forward(self, x):
            return x + x.flip(1) + torch.full((3, 1, 1), 0.123)

    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = Shortcut()
    with fake_int8(network, SCHEMES["u8s8"]):
        found = network(images)
    with fake_int8(network, SCHEMES["tensorrt"]):
        assert torch.equal(network(images), images + images.flip(1) + 0.123)
    low, high = min(0.0, float(images.min())), float(images.max())
    rounded = torch.round(images / ((high - low) / 255)) * ((high - low) / 255)
    torch.testing.assert_close(found, rounded + rounded.flip(1) + 0.123, atol=1e-5, rtol=0)


def test_weights_keep_their_zeros_and_pass_gradients():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    weight[2, 1] = 0
    weight.requires_grad_(True)
    for scheme in (SCHEMES["u8s8"], SCHEMES["u8s7"]):
        rounded = rounded_weight(weight, 0, scheme)
        assert torch.equal(rounded[weight == 0], weight[weight == 0])
        scale = weight.detach()[0].abs().max() / (64 if scheme.reduced_weights else 127)
        steps = rounded.detach()[0] / scale
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    (gradient,) = torch.autograd.grad(rounded.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight))
