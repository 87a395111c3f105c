"""Reading a checkpoint into plain float32 tensors, whatever wrapped them, and never running code from it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import sha256_of
from edgerecover.errors import BadInputError
from edgerecover.models.formats import (
    MAX_EXPANSION,
    MAX_EXPANSION_FREE_BYTES,
    SAVE_HINT,
    Container,
    detect,
)

if TYPE_CHECKING:
    from torch import Tensor

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""Where training scripts put the state_dict, most specific first."""

WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What DataParallel, torch.compile and Lightning modules put before every key."""

_MAX_NESTING = 4


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds: CPU tensors, floating ones as float32, under the keys of a plain state_dict."""

    path: Path
    sha256: str
    size_bytes: int
    format: str
    """For people; see `ModelFacts.format`."""
    tensors: dict[str, Tensor]
    """Masks of torch.nn.utils.prune are applied: X = X_orig * X_mask."""
    masks: dict[str, Tensor]
    """Explicit masks by weight key: bool, True where the weight is kept."""
    dense_tensors: dict[str, Tensor] | None
    """The teacher inside: X = X_orig, when that is not zero somewhere under the mask."""
    prefixes: tuple[str, ...] = ()
    """Prefixes that all keys shared and that were taken off, outermost first."""

    def with_prefix(self, prefix: str) -> Checkpoint:
        """The same with `prefix` before every key."""
        dense = self.dense_tensors
        return replace(
            self,
            tensors=_prefixed(self.tensors, prefix),
            masks=_prefixed(self.masks, prefix),
            dense_tensors=_prefixed(dense, prefix) if dense is not None else None,
            prefixes=(),
        )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a state_dict from safetensors or from what torch.save wrote (told by content, not by suffix).

    Raises:
        BadInputError: no such file, not a checkpoint, holds Python objects (never executed) or no tensors;
            NaN or infinite weights, negative BN variances; sparse, quantized, complex or absurdly large ones.
    """
    container = detect(path)
    content = _read_safetensors(path) if container is Container.SAFETENSORS else _read_torch(path)
    state, wording = _unwrap(path, content, "safetensors" if container is Container.SAFETENSORS else "state_dict")
    _check_storage(path, state)
    tensors, was_cast = _plain(state)
    tensors, prefixes = _without_prefixes(tensors)
    if prefixes:
        wording += f", prefix '{''.join(prefixes)}'"
    if was_cast:
        wording += f", {was_cast} read as float32"
    _check_values(path, tensors)
    pruned, masks, dense = _bake_masks(tensors)
    if masks:
        wording += ", with pruning masks"
    return Checkpoint(path, sha256_of(path), path.stat().st_size, wording, pruned, masks, dense, prefixes)


# --- from bytes to Python -------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except Exception as error:  # hostile bytes raise anything
        raise BadInputError(
            f"{path}: the safetensors file is damaged ({_first_line(error)})",
            hint="was it copied or downloaded completely?",
        ) from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless_globals()):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile bytes raise anything
        raise _load_error(path, error) from error


def _harmless_globals() -> list[Any]:
    """What training scripts leave beside the weights without meaning to: arguments and numpy's numbers."""
    from argparse import Namespace

    import numpy as np

    scalar_dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int64")]
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    return [
        Namespace,
        np.dtype,
        *scalar_dtypes,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]


def _load_error(path: Path, error: Exception) -> BadInputError:
    named = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", str(error))
    if named:
        return BadInputError(
            f"{path}: holds a Python object ({named[1]}), not only tensors; "
            "it was not opened, because unpickling objects can run any code",
            hint=SAVE_HINT,
        )
    return BadInputError(
        f"{path}: cannot be read as a checkpoint; it is damaged, cut short or not one "
        f"({type(error).__name__}: {_first_line(error)})",
        hint=f"was it copied or downloaded completely? If so, {SAVE_HINT}",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- from Python to a flat dictionary of tensors --------------------------------------------------------


def _unwrap(path: Path, content: Any, wording: str) -> tuple[dict[str, Tensor], str]:
    under: list[str] = []
    while len(under) < _MAX_NESTING:
        inner = _inner_key(path, content)
        if inner is None:
            break
        under.append(inner)
        content = content[inner]
    state = _tensors_of(content)
    if not state:
        raise BadInputError(
            f"{path}: no weights inside ({_kind_of(content)} was found, a dictionary of tensors expected)",
            hint=SAVE_HINT,
        )
    if under:
        wording += f" under '{'.'.join(under)}'"
    return state, wording


def _inner_key(path: Path, content: Any) -> str | None:
    """Key of the state_dict inside `content`; None when `content` is one itself."""
    if not isinstance(content, Mapping):
        return None
    holding = [key for key, value in content.items() if isinstance(key, str) and _holds_tensors(value)]
    for key in STATE_KEYS:
        if key in holding:
            return key
    if _tensors_of(content) or not holding:
        return None
    if len(holding) > 1:
        raise BadInputError(
            f"{path}: several sets of weights inside ({', '.join(map(repr, sorted(holding)[:6]))}), "
            "and none is called state_dict or model",
            hint="save the one to use on its own with torch.save",
        )
    return holding[0]


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, Mapping):
        return False
    if _tensors_of(value):
        return True
    return depth < _MAX_NESTING and any(
        key in STATE_KEYS and _holds_tensors(inner, depth + 1) for key, inner in value.items()
    )


def _tensors_of(content: Any) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, Mapping):
        return {}
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def _kind_of(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(repr(str(key)[:40]) for key in list(content)[:4]) or 'nothing'}"
    return f"an object of type {type(content).__name__}"


def _without_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    taken: list[str] = []
    while prefix := next((p for p in WRAPPER_PREFIXES if all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        taken.append(prefix)
    return tensors, tuple(taken)


def _prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


# --- plain, sound tensors -------------------------------------------------------------------------------


def _check_storage(path: Path, state: dict[str, Tensor]) -> None:
    import torch

    for key, tensor in state.items():
        fault = (
            "is sparse (compressed) storage"
            if tensor.layout is not torch.strided
            else "is quantized"
            if tensor.is_quantized
            else "is complex"
            if tensor.is_complex()
            else "has no data (device meta)"
            if tensor.is_meta
            else ""
        )
        if fault:
            raise BadInputError(f"{path}: tensor {key!r} {fault}; ordinary float tensors are expected", hint=SAVE_HINT)
    claimed_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed_bytes > MAX_EXPANSION * path.stat().st_size + MAX_EXPANSION_FREE_BYTES:
        largest = max(state, key=lambda key: state[key].numel())
        raise BadInputError(
            f"{path}: {path.stat().st_size:,} bytes claim to hold tensors of {claimed_bytes:,} bytes; "
            f"the largest, {largest!r}, has shape {list(state[largest].shape)}",
            hint=SAVE_HINT,
        )


def _plain(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Detached float32 copies, and the names of other floating types that were met."""
    import torch

    met = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    plain = {
        key: tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in state.items()
    }
    return plain, " and ".join(sorted(met))


def _check_values(path: Path, tensors: dict[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        is_finite = tensor.isfinite()
        if not bool(is_finite.all()):
            num_bad = tensor.numel() - int(is_finite.count_nonzero())
            raise BadInputError(
                f"{path}: {num_bad:,} of the {tensor.numel():,} values of {key!r} are NaN or infinite",
                hint="use a checkpoint from before the training diverged",
            )
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise BadInputError(
                f"{path}: {key!r} holds negative variances (lowest {float(tensor.min()):.3g}), "
                "so its normalisation cannot be computed",
                hint="use an intact checkpoint",
            )


def _bake_masks(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor] | None]:
    """Pruned tensors, masks, and the dense tensors when they are all there."""
    masks = _explicit_masks(tensors)
    if not masks:
        return tensors, {}, None
    plain_keys = {f"{name}_orig": name for name in masks}
    mask_keys = {f"{name}_mask" for name in masks}
    dense = {plain_keys.get(key, key): tensor for key, tensor in tensors.items() if key not in mask_keys}
    pruned = {key: tensor * masks[key] if key in masks else tensor for key, tensor in dense.items()}
    has_dense_weights = any(bool((dense[key][~mask] != 0).any()) for key, mask in masks.items())
    return pruned, masks, dense if has_dense_weights else None


def _explicit_masks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors called X_mask that hold only 0 and 1, in the shape of X_orig or X."""
    masks = {}
    for key, mask in tensors.items():
        name = key.removesuffix("_mask")
        weight = tensors.get(f"{name}_orig", tensors.get(name))
        if name == key or weight is None or weight.shape != mask.shape or not weight.is_floating_point():
            continue
        if bool(((mask == 0) | (mask == 1)).all()):
            masks[name] = mask != 0
    return masks
