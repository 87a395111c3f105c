import numpy as np
import pytest
import torch

from edgerecover.device import choose_compute
from edgerecover.errors import MissingError

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
