"""Merging PEFT's low-rank adapters (LoRA) into the weights: W + s·B·A, where a pickled module tells s.

Shapes: A (r, in, *kernel), B (out, r) or (out, r, 1, 1), W (out, in, *kernel). A state_dict alone has no s = alpha / r.
Source: Hu et al., LoRA (2021), section 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_KEY = re.compile(r"(?P<path>.*)\.lora_(?P<part>A|B)\.(?P<adapter>[^.]+)\.weight")
_PREFIX = "base_model.model."
_BASE = ".base_layer."


def merge_adapters(tensors: Mapping[str, Tensor], scales: Mapping[tuple[str, str], float]) -> dict[str, Tensor] | None:
    """The network's tensors with every adapter merged; None if one cannot be merged.

    Args:
        tensors: all tensors of the module, by name.
        scales: s, by the layer's path and the adapter's name.
    """
    import torch

    parts = {(match["path"], match["adapter"], match["part"]): key for key in tensors if (match := _KEY.fullmatch(key))}
    merged = {key: tensor for key, tensor in tensors.items() if key not in parts.values()}
    for path, adapter, part in parts:
        if part == "B":
            continue
        down = tensors[parts[path, adapter, "A"]]
        up_key, weight_key = parts.get((path, adapter, "B")), f"{path}{_BASE}weight"
        if up_key is None or weight_key not in merged or (path, adapter) not in scales:
            return None
        up, weight = tensors[up_key].flatten(1), merged[weight_key]
        if down.dim() < 2 or up.shape != (weight.shape[0], down.shape[0]) or down.shape[1:] != weight.shape[1:]:
            return None
        change = torch.einsum("or,r...->o...", up.double(), down.double())
        merged[weight_key] = (weight.double() + scales[path, adapter] * change).to(weight.dtype)
    if any(".lora_" in key for key in merged):
        return None
    return {key.removeprefix(_PREFIX).replace(_BASE, "."): tensor for key, tensor in merged.items()}
