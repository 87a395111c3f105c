"""Where tensors are computed: the device, its mixed precision and its memory format, chosen once per run.

The hardware says what would be fastest, and a trial says what the networks of the run can be computed in.
"""

# Shapes: N images, C channels, H height, W width, K classes.

# ruff: noqa: TID253 - the vocabulary of torch devices; the CLI's help never imports it

from __future__ import annotations

import copy
import errno
import gc
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgerecover.errors import BadInputError, MissingError
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.machine.memory import keep_freed_memory, release_freed_memory

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_JUDGED_AT_ONCE = 128
_JUDGED_PIXELS = 16 * 224 * 224
"""Of all images in a batch together: a first layer turns more into hundreds of megabytes."""


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

    @contextmanager
    def without_slow_kernels(self, *networks: nn.Module) -> Iterator[None]:
        """Inside the block, layers whose kernel in mixed precision is the slow one compute in float32.

        On a CPU: depthwise convolutions with strides, dilation or a kernel above 5. oneDNN has no bf16 kernel for the
        backward pass of those but its reference: 5 to 10 times the time of float32, and two thirds of what all
        convolutions of EfficientNet-Lite0 take.
        """
        slow = [layer for network in networks for layer in network.modules() if _is_slow_in_bf16(layer)]
        handles = []
        if self.device.type == "cpu" and self.amp_dtype is not None:
            handles = [handle for layer in slow for handle in _in_float32(layer)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network here, in place.

        The memory format is for kernels of two-dimensional convolutions; any other tensor stays as it lies.
        """
        network.to(device=self.device)
        for name, parameter in network.named_parameters():
            if parameter.dim() == 4 and name.rpartition(".")[2] == "weight":
                parameter.data = parameter.data.contiguous(memory_format=self.memory_format)
        return network

    def images(self, images_NCHW: Tensor | NDArray[numpy.float32]) -> Tensor:
        """Images as a tensor here."""
        tensor = images_NCHW if isinstance(images_NCHW, Tensor) else torch.from_numpy(images_NCHW)
        return tensor.to(self.device, memory_format=self.memory_format)

    def on_cpu(self) -> Compute:
        """The CPU in float32, as results are judged; the memory format stays."""
        return replace(self, device=torch.device("cpu"), amp_dtype=None, num_processes=1)

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


def _is_slow_in_bf16(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or layer.groups == 1 or layer.groups != layer.in_channels:
        return False
    is_plain = layer.out_channels == layer.in_channels and {*layer.stride, *layer.dilation} == {1}
    return not (is_plain and max(layer.kernel_size) <= 5)


def _in_float32(layer: nn.Module) -> list[Any]:
    """Hooks, to be removed, that switch autocast off around each forward."""
    entered: list[torch.autocast] = []

    def before(_layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        entered.append(torch.autocast("cpu", enabled=False))
        entered[-1].__enter__()  # type: ignore[no-untyped-call]
        return tuple(map(_widen, inputs)), {name: _widen(value) for name, value in named.items()}

    def after(*_: object) -> None:
        if entered:
            entered.pop().__exit__(None, None, None)

    return [
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(after, always_call=True),
    ]


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


PLAIN = Compute(torch.device("cpu"), None, torch.contiguous_format)
"""In which every network can be computed."""


def choose_compute(device: str) -> Compute:
    """`auto` takes CUDA when it is there. What the hardware would like best: `fit_compute` says what networks allow.

    Channels-last everywhere (a tenth to a third faster on CPUs too). bf16 wherever the hardware multiplies in it: on
    CUDA, and on CPUs with AVX-512 BF16, where a distillation step takes 0.6 of its time in float32. On a CPU, the
    process keeps from here on what memory it frees.

    Raises:
        MissingError: CUDA was asked for by name and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "--device cuda: this PyTorch finds no CUDA device",
            hint="check `nvidia-smi`, or use --device cpu (slower, same result up to rounding)",
        )
    if device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return Compute(torch.device("cpu"), torch.bfloat16 if _cpu_multiplies_bf16() else None, torch.channels_last)
    return Compute(torch.device("cuda"), torch.bfloat16, torch.channels_last)


# --- what the networks allow --------------------------------------------------------------------------------


_LARGEST_DIFFERENCES = (0.02, 0.2)
"""Of logits and of gradients in another memory format: rounding (TF32's on CUDA), and no other result.

Like all differences here, the norm of the difference over the norm of what it should be.
"""
_LARGEST_DIFFERENCE_BF16 = 0.5
"""Of logits: coarse they may be, another result they may not."""


@dataclass(frozen=True)
class _Pass:
    """A forward and a backward pass."""

    logits: Tensor
    to_input: Tensor
    """Gradient of the input; empty where none came."""
    to_weights: Tensor
    """All gradients of parameters, one after the other."""

    @property
    def is_finite(self) -> bool:
        """Of those to weights nothing is asked: a norm of nothing but pruned weights has none."""
        return bool(self.logits.isfinite().all()) and bool(self.to_input.isfinite().all())


def fit_compute(
    compute: Compute, networks: Mapping[str, nn.Module], images_NCHW: Tensor, progress: Progress = SILENT
) -> Compute:
    """Compute as the networks can be computed: channels-last and bf16 only where a trial of them went well.

    Every network makes a forward and a backward pass in plain float32, and again in what was chosen. What raises, or
    gives another result, is left out, and the log says so. The networks are left as they are, where they are.

    Args:
        compute: as the hardware would have it.
        networks: by the name that messages give them, in eval mode.
        images_NCHW: a few network inputs.
        progress: where to say what is left out.

    Raises:
        BadInputError: a network cannot be copied, or a pass fails in plain float32 or gives what is not finite.
    """
    plain = replace(compute, memory_format=torch.contiguous_format, amp_dtype=None)
    references: dict[str, _Pass] = {}
    for name, network in networks.items():
        try:
            references[name] = _pass(network, images_NCHW, plain)
        except Exception as error:  # the user's network raises anything
            if is_out_of_memory(error):
                raise
            raise BadInputError(
                f"{name}: a forward and a backward pass of {len(images_NCHW)} images fail with {_first_line(error)}",
                hint="dreams and distillation go along gradients: the network must give them in eval mode, "
                "and copy.deepcopy must be able to copy it",
            ) from error
        if not references[name].is_finite:
            raise BadInputError(
                f"{name}: logits of {len(images_NCHW)} images, or their gradients, are NaN or infinite",
                hint="use a checkpoint from before the training diverged; check mean and std of the input; "
                "a square root or a division wants a small number under it",
            )
    fitting = plain
    if compute.memory_format == torch.channels_last:
        wished = replace(fitting, memory_format=torch.channels_last)
        if reason := _why_not(wished, networks, images_NCHW, references):
            progress.note(f"channels-last is not used: {reason}")
        else:
            fitting = wished
    if compute.amp_dtype is not None:
        wished = replace(fitting, amp_dtype=compute.amp_dtype)
        if reason := _why_not(wished, networks, images_NCHW, references):
            progress.note(f"bf16 is not used: {reason}")
        else:
            fitting = wished
    return fitting


def _why_not(
    compute: Compute, networks: Mapping[str, nn.Module], images_NCHW: Tensor, references: Mapping[str, _Pass]
) -> str:
    """The first thing that speaks against computing so; empty where nothing does."""
    for name, network in networks.items():
        try:
            tried = _pass(network, images_NCHW, compute)
        except Exception as error:  # as above
            if is_out_of_memory(error):
                raise
            return _without_kernel(error, compute) or f"{name} fails in it with {_first_line(error)}"
        if not tried.is_finite:
            return f"{name} gives numbers in it that are not finite"
        if _is_another(references[name], tried, in_bf16=compute.amp_dtype is not None):
            return f"{name} gives another result in it"
    return ""


def _pass(network: nn.Module, images_NCHW: Tensor, compute: Compute) -> _Pass:
    """Of a copy: hooks and buffers may remember what they have seen."""
    network = compute.place(copy.deepcopy(network)).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    inputs_NCHW = compute.images(images_NCHW).detach().clone().requires_grad_()
    with torch.enable_grad():
        with compute.autocast():
            logits_NK = network(inputs_NCHW.clone())  # a leaf could not be changed in place, as some networks do
        if not logits_NK.requires_grad:  # not for this module to judge
            return _Pass(logits_NK.float(), torch.zeros(0), torch.zeros(0))
        weights_NK = torch.linspace(-1, 1, logits_NK.numel(), device=compute.device).view(logits_NK.shape)
        wanted = (inputs_NCHW, *(parameter for parameter in network.parameters() if parameter.requires_grad))
        gradients = torch.autograd.grad((logits_NK.float() * weights_NK).sum(), wanted, allow_unused=True)
    to_input, *to_weights = (torch.zeros(0) if grad is None else grad.float().cpu().flatten() for grad in gradients)
    return _Pass(logits_NK.detach().float().cpu(), to_input, torch.cat(to_weights) if to_weights else torch.zeros(0))


def _is_another(expected: _Pass, found: _Pass, *, in_bf16: bool) -> bool:
    if in_bf16:
        return _difference(expected.logits, found.logits) > _LARGEST_DIFFERENCE_BF16
    of_logits, of_gradients = _LARGEST_DIFFERENCES
    return (
        _difference(expected.logits, found.logits) > of_logits
        or _difference(expected.to_input, found.to_input) > of_gradients
        or _difference(expected.to_weights, found.to_weights) > of_gradients
    )


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def _without_kernel(error: Exception, compute: Compute) -> str:
    """In words, where an operator has no kernel for the type."""
    found = re.search(r"\"(\w+)\" not implemented for 'BFloat16'", str(error))
    return f"{found[1]} has no bfloat16 kernel on this {compute.device.type.upper()}" if found else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, NumPy or Python asked for memory, of the device or of this machine, and did not get it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # from mmap
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    is_one_dnn = text.strip() == "could not create a primitive"  # all that oneDNN says where it gets no memory
    return isinstance(error, RuntimeError) and (is_one_dnn or any(words in text for words in _OUT_OF_MEMORY))


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
"""Of the CPU's allocator on Linux and on Windows, of CUDA, of C++, and of cuBLAS and cuDNN."""


def judged_at_once(shape_CHW: tuple[int, ...]) -> int:
    """Images per batch (C, H, W) where nothing is trained: fewer where they are large."""
    return max(1, min(_JUDGED_AT_ONCE, _JUDGED_PIXELS // math.prod(shape_CHW[1:])))


def release_memory() -> None:
    """Give back what is kept for later: to be called where memory has run out, outside the handler of the error."""
    gc.collect()
    release_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _cpu_multiplies_bf16() -> bool:
    # Newer than the oldest PyTorch allowed.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
