import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec
from edgerecover.compute import PLAIN, Compute, choose_compute, fit_compute, judged_at_once
from edgerecover.errors import BadInputError, MissingError
from edgerecover.models.network.examples import example_images

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize(
    ("capabilities", "dtype", "precision"),
    [
        ({}, torch.float32, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32, "fp32"),
        ({"avx512_bf16": True}, torch.bfloat16, "bf16"),
        ({"amx_bf16": True}, torch.bfloat16, "bf16"),
    ],
)
def test_the_cpu_computes_in_bf16_where_it_multiplies_so(monkeypatch, capabilities, dtype, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    compute = choose_compute("cpu")
    assert compute.device.type == "cpu"
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert str(compute) == f"cpu ({torch.get_num_threads()} threads, {precision})"


def test_a_pytorch_that_cannot_tell_what_the_cpu_does_gets_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_compute("cpu").amp_dtype is None


def test_networks_and_images_are_placed_in_one_memory_format():
    compute = choose_compute("cpu")
    network = torch.nn.Conv2d(3, 4, 3)
    assert compute.place(network) is network
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    pixels_NCHW = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    for given in (pixels_NCHW, torch.from_numpy(pixels_NCHW)):
        images_NCHW = compute.images(given)
        assert images_NCHW.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(images_NCHW.numpy(), pixels_NCHW)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_cuda_auto_is_the_cpu_and_cuda_is_missing():
    assert choose_compute("auto") == choose_compute("cpu")
    with pytest.raises(MissingError, match="finds no CUDA device") as caught:
        choose_compute("cuda")
    assert "--device cpu" in caught.value.hint


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_cuda_computes_in_mixed_precision(asked):
    compute = choose_compute(asked)
    ones = torch.ones(2, 2, device=compute.device)
    with compute.autocast():
        assert (ones @ ones).dtype == torch.bfloat16
    assert str(compute).startswith("cuda (")


# --- what the networks allow ---------------------------------------------------------------------------------


IMAGES_NCHW = example_images(InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3), 2)
FAST = Compute(torch.device("cpu"), torch.bfloat16, torch.channels_last)


class Notes:
    def __init__(self):
        self.lines = []

    def note(self, message, **_numbers):
        self.lines.append(message)


class Net(nn.Module):
    """Two convolutions, and a classifier on what `between` makes of their features (N, 4, 8, 8)."""

    def __init__(self, between=lambda x: x.mean((2, 3)), width=4):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
        self.fc = nn.Linear(width, 5)
        self.between = between

    def forward(self, x):
        return self.fc(self.between(self.convs(x)))


def fit(network, compute=FAST):
    notes = Notes()
    return fit_compute(compute, {"the teacher": network.eval()}, IMAGES_NCHW, notes), notes.lines


def test_what_the_hardware_likes_is_kept_where_the_network_can_be_computed_so():
    network = Net()
    assert fit(network) == (FAST, [])
    assert network.convs[0].weight.is_contiguous(), "the trial is of a copy"


def test_features_that_are_viewed_are_computed_in_the_plain_memory_format():
    compute, notes = fit(Net(lambda x: x.view(x.size(0), -1), 4 * 8 * 8))
    assert (compute.memory_format, compute.amp_dtype) == (torch.contiguous_format, torch.bfloat16)
    (note,) = notes
    assert note.startswith("channels-last is not used: the teacher fails in it with RuntimeError: view size")


def test_another_result_in_channels_last_speaks_against_it():
    def by_strides(x):
        return torch.as_strided(x, (2, 8), (256, 1))

    compute, notes = fit(Net(by_strides, 8))
    assert compute.memory_format is torch.contiguous_format
    assert notes == ["channels-last is not used: the teacher gives another result in it"]


def test_an_operator_without_a_bf16_kernel_is_named_and_float32_taken():
    def resize(x):
        return F.interpolate(x, size=(5, 5), mode="bilinear", antialias=True).flatten(1)

    compute, notes = fit(Net(resize, 100))
    if compute.amp_dtype is None:  # a later PyTorch may have the kernel
        assert compute == Compute(torch.device("cpu"), None, torch.channels_last)
        assert notes[0].startswith("bf16 is not used: ")
        assert notes[0].endswith("has no bfloat16 kernel on this CPU")


def test_numbers_that_overflow_or_drown_in_bf16_are_computed_in_float32():
    def cancel(x):
        return (x.mean((2, 3)) + 1e5) - 1e5

    class Cancelling(Net):
        def forward(self, x):
            return 4096 * cancel(self.convs(x))

    compute, notes = fit(Cancelling())
    assert compute.amp_dtype is None
    assert notes == ["bf16 is not used: the teacher gives another result in it"]


def test_kernels_of_five_dimensions_stay_as_they_lie():
    class Bands(nn.Module):
        def __init__(self):
            super().__init__()
            self.bands, self.conv, self.fc = nn.Conv3d(1, 4, 3, padding=(0, 1, 1)), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(self.conv(self.bands(x[:, None]).squeeze(2)).mean((2, 3)))

    network = Bands()
    compute, notes = fit(network)
    assert (compute, notes) == (FAST, [])
    compute.place(network)
    assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert network.bands.weight.is_contiguous()


def test_a_network_placed_anew_takes_the_format_it_is_placed_in():
    network = FAST.place(Net())
    PLAIN.place(network)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_a_network_that_gives_no_gradient_is_compared_by_its_logits():
    class Detached(Net):
        def forward(self, x):
            return super().forward(x).detach()

    assert fit(Detached())[0].memory_format is torch.channels_last


def test_inputs_may_be_changed_in_place():
    class InPlace(Net):
        def forward(self, x):
            return super().forward(x.sub_(0.1))

    assert fit(InPlace()) == (FAST, [])


def test_what_fails_in_plain_float32_is_refused():
    class Failing(Net):
        def forward(self, x):
            raise ZeroDivisionError("of my own")

    with pytest.raises(BadInputError, match=r"the teacher: .* fail with ZeroDivisionError: of my own"):
        fit(Failing())


def test_gradients_that_are_not_finite_are_refused():
    class Rooted(Net):
        def forward(self, x):
            return super().forward(x) + (x - x).sqrt().mean()

    with pytest.raises(BadInputError, match="their gradients, are NaN or infinite"):
        fit(Rooted())


def test_a_depthwise_convolution_with_strides_computes_in_float32_where_bf16_is_slow(cpu):
    network = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    images = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    in_bf16 = dataclasses.replace(cpu, amp_dtype=torch.bfloat16)
    seen = []
    handles = [layer.register_forward_hook(lambda _l, _i, output: seen.append(output.dtype)) for layer in network]
    with in_bf16.without_slow_kernels(network), in_bf16.autocast():
        network(images.bfloat16())
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]
    seen.clear()
    with in_bf16.without_slow_kernels(network), in_bf16.autocast():
        with pytest.raises(RuntimeError):
            network(images[:, :3])
        assert torch.is_autocast_enabled("cpu")
    for handle in handles:
        handle.remove()
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in network)


def test_few_large_images_or_many_small_ones_are_judged_at_once():
    assert [judged_at_once((3, side, side)) for side in (8, 32, 224, 4096)] == [128, 128, 16, 1]
