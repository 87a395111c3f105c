"""Where tensors are computed: the device, its mixed precision and its memory format, chosen once per run."""

# ruff: noqa: TID253 - the vocabulary of torch devices; the CLI's help never imports it

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgerecover.errors import MissingError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Compute:
    """A device and how to use it."""

    device: torch.device
    amp_dtype: torch.dtype | None
    """Mixed precision; None computes in float32."""
    memory_format: torch.memory_format
    num_processes: int = 1
    """That share the work, each on such a device."""

    def autocast(self) -> AbstractContextManager[object]:
        """The block in which the network's forward runs in mixed precision."""
        if self.amp_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network here, in place."""
        network.to(device=self.device)
        return network.to(memory_format=self.memory_format)  # torch's own signature takes one or the other

    def images(self, images_NCHW: Tensor | NDArray[numpy.float32]) -> Tensor:
        """Images as a tensor here."""
        tensor = images_NCHW if isinstance(images_NCHW, Tensor) else torch.from_numpy(images_NCHW)
        return tensor.to(self.device, memory_format=self.memory_format)

    @property
    def arithmetic(self) -> str:
        """What results depend on: kind of device and precision, such as "cpu torch.bfloat16"."""
        return f"{self.device.type} {self.amp_dtype}"

    def __str__(self) -> str:
        precision = "fp32" if self.amp_dtype is None else "bf16"
        several = f", {self.num_processes} processes" if self.num_processes > 1 else ""
        if self.device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self.device)}, {precision}{several})"
        return f"cpu ({torch.get_num_threads()} threads, {precision}{several})"


def choose_compute(device: str) -> Compute:
    """`auto` takes CUDA when it is there. Channels-last everywhere (a tenth faster on CPUs too).

    bf16 wherever the hardware multiplies in it: on CUDA, and on CPUs with AVX-512 BF16, where a distillation step takes
    0.6 of its time in float32.

    Raises:
        MissingError: CUDA was asked for by name and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "--device cuda: this PyTorch finds no CUDA device",
            hint="check `nvidia-smi`, or use --device cpu (slower, same result up to rounding)",
        )
    if device == "cpu" or not torch.cuda.is_available():
        return Compute(torch.device("cpu"), torch.bfloat16 if _cpu_multiplies_bf16() else None, torch.channels_last)
    return Compute(torch.device("cuda"), torch.bfloat16, torch.channels_last)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, NumPy or Python asked for memory, of the device or of this machine, and did not get it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
"""Of the CPU's allocator on Linux and on Windows, of CUDA, of C++, and of cuBLAS and cuDNN."""


def release_memory() -> None:
    """Give back what is kept for later: to be called where memory has run out, outside the handler of the error."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _cpu_multiplies_bf16() -> bool:
    # Newer than the oldest PyTorch allowed.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
