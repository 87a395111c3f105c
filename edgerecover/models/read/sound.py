"""Making tensors plain (float32, contiguous), and refusing values that are not finite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.errors import BadInputError
from edgerecover.models.read.records import printable

if TYPE_CHECKING:
    from torch import Tensor


_OVERFLOW_HINT = "float16 ends at 65,504: save the network as float32 or bfloat16"
_NOT_INFINITE = re.compile(r"(weight|bias|running_mean|running_var|original\d*)(_orig|_[gv])?$")


def plain(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Detached tensors, floating ones as float32; and the names of other floating types among them."""
    import torch

    met = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    plain = {
        key: tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in state.items()
    }
    return plain, " and ".join(sorted(met))


def check_values(path: Path, tensors: dict[str, Tensor], cast_from: str = "") -> None:
    """Refuse values with which no forward pass can work.

    Infinities are refused in tensors named like a weight, a bias or a batch norm statistic. Elsewhere they may be
    intended, as in attention masks; the trial forward pass shows what they do.

    Args:
        path: the file, for messages.
        tensors: floating ones as float32.
        cast_from: the types that some of them had in the file, in words.

    Raises:
        BadInputError: NaN or infinite values, or negative variances of batch norm.
    """
    for key, tensor in tensors.items():
        is_finite = tensor.isfinite() if _NOT_INFINITE.search(key) else ~tensor.isnan()
        if not bool(is_finite.all()):
            num_bad = tensor.numel() - int(is_finite.count_nonzero())
            raise BadInputError(
                f"{path}: {num_bad:,} of the {tensor.numel():,} values of {printable(key)!r} are NaN or infinite",
                hint=_OVERFLOW_HINT
                if "float16" in cast_from.split(" and ") and not bool(tensor.isnan().any())
                else "use a checkpoint from before the training diverged",
            )
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise BadInputError(
                f"{path}: {printable(key)!r} holds negative variances (lowest {float(tensor.min()):.3g}), "
                "so batch norm cannot be computed",
                hint="use an intact checkpoint",
            )
