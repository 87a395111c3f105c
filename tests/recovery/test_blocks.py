import pytest
import torch
import torchvision
from torch import nn

from edgerecover.recovery.blocks import block_names, capture_outputs, stage_ends


def on_meta(name):
    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet18", [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]),
        ("mobilenet_v2", [f"features.{i}" for i in range(19)]),
        ("vgg11_bn", [f"features.{i}" for i in (1, 5, 9, 12, 16, 19, 23, 26)]),
        ("vit_b_16", [f"encoder.layers.encoder_layer_{i}" for i in range(12)]),
        (
            "densenet121",
            [f"features.{kind}{i}" for i in (1, 2, 3) for kind in ("denseblock", "transition")]
            + ["features.denseblock4"],
        ),
        ("shufflenet_v2_x1_0", [f"stage{s}.{i}" for s, n in ((2, 4), (3, 8), (4, 4)) for i in range(n)]),
        ("wide_resnet50_2", [f"layer{s}.{i}" for s, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for i in range(n)]),
        ("alexnet", [f"features.{i}" for i in (0, 3, 6, 8, 10)] + ["classifier.1", "classifier.4"]),
    ],
)
def test_blocks_of_known_architectures(architecture, expected):
    assert list(block_names(on_meta(architecture))) == expected


def test_a_plain_network_is_matched_at_its_norms_or_at_its_weights(teacher, teacher_without_bn):
    assert block_names(teacher) == ("1", "4", "7")
    assert block_names(teacher_without_bn) == ("0", "2", "4")
    assert block_names(nn.SyncBatchNorm.convert_sync_batchnorm(teacher)) == ("1", "4", "7")


def test_weights_of_ones_own_are_matched_where_they_are_used():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(4, 3, 3, 3))

    normalised = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    network = nn.Sequential(Own(), normalised, nn.ConvTranspose2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    assert block_names(network) == ("0", "1", "2")


def test_stages_of_two_architectures_are_paired_at_their_ends():
    shallow, deep, other = (on_meta(name).eval() for name in ("resnet18", "resnet34", "squeezenet1_1"))
    images = torch.zeros(1, 3, 64, 64, device="meta")
    expected = {f"layer{stage}.1": f"layer{stage}.{end}" for stage, end in ((1, 2), (2, 3), (3, 5), (4, 2))}
    assert stage_ends(shallow, deep, images) == expected
    assert stage_ends(deep, shallow, images) == {teacher: student for student, teacher in expected.items()}
    assert stage_ends(shallow, other, images) == {}


def test_outputs_are_captured_and_hooks_removed(teacher, real_images):
    images = real_images[0][:4]
    with capture_outputs(teacher, ("1", "7")) as outputs:
        teacher(images[:1])
        logits = teacher(images)
    assert list(outputs) == ["1", "7"]
    assert {len(features) for features in outputs.values()} == {4}
    torch.testing.assert_close(teacher[11](outputs["7"].mean((2, 3))), logits)
    assert not any(module._forward_hooks for module in teacher.modules())


@pytest.mark.parametrize("inplace", [True, False])
def test_an_activation_in_place_changes_what_is_captured_and_the_gradient_follows(inplace):
    """An activation that overwrites a captured output is matched too: by value and by gradient, teacher as student."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=inplace), nn.Conv2d(4, 2, 3)).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = network[:2](images)
    expected = norm.relu() if inplace else norm
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), network[0].weight)
    with capture_outputs(network, ("1",)) as outputs:
        with torch.no_grad():
            network(images)
        torch.testing.assert_close(outputs["1"], expected)
        network(images)
        (gradient,) = torch.autograd.grad(outputs["1"].square().sum(), network[0].weight)
    torch.testing.assert_close(outputs["1"], expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_hooks_are_removed_after_an_error_too(teacher):
    with pytest.raises(RuntimeError), capture_outputs(teacher, ("1",)):
        teacher(torch.zeros(1, 5, 8, 8))
    assert not any(module._forward_hooks for module in teacher.modules())


def test_an_output_that_is_no_tensor_is_left_out():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    network = nn.Sequential(Pair())
    with capture_outputs(network, ("0",)) as outputs:
        network(torch.zeros(1))
    assert outputs == {}
