import pytest
import torch

from edgerecover.device import choose_compute
from edgerecover.errors import MissingError

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_the_cpu_computes_in_float32():
    compute = choose_compute("cpu")
    assert compute.device.type == "cpu"
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert str(compute) == f"cpu ({torch.get_num_threads()} threads)"


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
