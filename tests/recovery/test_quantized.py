import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from edgerecover.export.onnx import export
from edgerecover.export.precision import SCHEMES
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.quantized import distil_for_int8, fake_int8, rounded_weight
from tests.conftest import INPUT
from tests.pairs import pair_of


def exported(student, tmp_path):
    return export(student, INPUT, tmp_path / "float32.onnx", opset=18, batch=None)


def test_it_learns_in_fewer_steps_and_leaves_the_student_alone(student_and_masks, teacher, sets, recovery, cpu):
    student, masks = student_and_masks
    before = {name: value.clone() for name, value in student.state_dict().items()}
    pair = pair_of(student, teacher, masks)
    found = distil_for_int8(
        pair, sets.train, recovery.model_copy(update={"num_steps": 4}), SCHEMES["tensorrt"], Execution(cpu), seed=0
    )
    assert found.num_steps == 4
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    weights = dict(found.student.named_parameters())
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())
    assert any(not torch.equal(weights[name], before[name]) for name in masks)


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
