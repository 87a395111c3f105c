"""Whether the zeros of pruned parameters reach the operators that multiply by them.

A forward pass of one image is watched operator by operator. A parameter that a convolution or a matrix product uses
directly keeps its zeros. One that is transformed first may lose them: weight standardisation subtracts the mean, an
orthogonal parametrisation mixes all entries; weight_norm and masks keep them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.models.network.zeros import num_not_zero

if TYPE_CHECKING:
    from torch import Tensor, nn

_MULTIPLY = frozenset(
    ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "mm", "addmm", "bmm", "baddbmm",
     "matmul", "linear", "addmv", "mv", "_scaled_mm", "lstm", "gru")
)  # fmt: skip

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Use:
    """How a forward pass uses one parameter."""

    is_used: bool
    """Whether the outputs depend on it; a head whose output is left out is not used."""
    num_lost: int
    """Number of its pruned entries that are not zero in the tensor that the network multiplies by."""


def uses_of(network: nn.Module, masks: Mapping[str, Tensor], shape_CHW: tuple[int, int, int]) -> dict[str, Use]:
    """Watch one forward pass.

    Args:
        network: on the CPU, in eval mode, zero wherever `masks` say so.
        masks: bool, by parameter name, True where kept; of any shape.
        shape_CHW: shape of an input.

    Returns:
        Uses by the masks' names. None are counted as lost if the tensor multiplied by has another number of entries.
    """
    import torch

    watch = _watch(network)
    with torch.no_grad(), watch:
        outputs = network(watch.mark(torch.zeros(1, *shape_CHW)))
    used = watch.parameters_of(outputs)
    parameters = dict(network.named_parameters())
    found = {}
    for name, mask in masks.items():
        own = parameters[name].untyped_storage().data_ptr()
        found[name] = Use(own in used, 0 if own in watch.multiplied or mask.dim() < 2 else watch.num_lost(mask))
    return found


def _watch(network: nn.Module) -> Any:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.weak import WeakIdKeyDictionary

    stored = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        """Separates tensors that depend on the input from those that depend on parameters alone."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.multiplied: set[int] = set()
            """Storages that were multiplied by as they are."""
            self._behind: dict[int, frozenset[int]] = {storage: frozenset((storage,)) for storage in stored}
            """By storage of a tensor, those of the parameters that it depends on."""
            self._computed: dict[tuple[int, ...], list[Any]] = {}
            """Where something that was computed from parameters is zero, as it was multiplied by, by its shape."""
            self._from_input: Any = WeakIdKeyDictionary()

        def mark(self, tensor: Tensor) -> Tensor:
            self._from_input[tensor] = True
            return tensor

        def parameters_of(self, value: Any) -> frozenset[int]:
            behind = (self._behind.get(tensor.untyped_storage().data_ptr(), _NOTHING) for tensor in _tensors(value))
            return _NOTHING.union(*behind)

        def num_lost(self, mask: Tensor) -> int:
            gone = ~mask.cpu().numpy()
            arrays = (array for same in self._computed.values() for array in same)
            counts = [count for array in arrays if (count := num_not_zero(gone, array)) is not None]
            return min(counts, default=0)

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = list(_tensors((args, kwargs or {})))
            result = operator(*args, **(kwargs or {}))
            multiplies = operator.overloadpacket.__name__ in _MULTIPLY
            for tensor in given:
                storage = tensor.untyped_storage().data_ptr()
                if not multiplies or tensor in self._from_input:
                    continue
                if storage in stored:
                    self.multiplied.add(storage)
                elif tensor.dim() >= 2:
                    self._computed.setdefault(tuple(tensor.shape), []).append((tensor == 0).cpu().numpy())
            behind = self.parameters_of(given)  # of views and what is changed in place: those before, too
            for tensor in _tensors(result):
                self._behind[tensor.untyped_storage().data_ptr()] = behind
            if any(tensor in self._from_input for tensor in given):
                for tensor in _tensors(result):
                    self._from_input[tensor] = True
            return result

    return Watch()


def _tensors(value: Any) -> Iterator[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def warning_of(uses: Mapping[str, Use]) -> str | None:
    """A warning that names the parameters whose zeros are lost; None if there are none."""
    lost = {name: use.num_lost for name, use in uses.items() if use.num_lost}
    if not lost:
        return None
    named = ", ".join(list(lost)[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    return (
        f"{sum(lost.values()):,} pruned weights of {named} are not zero where the network multiplies by them: it "
        "computes what it uses from the stored weights (weight standardisation does, by w - mean(w)), and the exported "
        "file will not be sparse there; prune what the layer uses, or apply the mask last in its forward"
    )
