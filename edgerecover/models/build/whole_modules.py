"""Networks that are not built from a name: unpickled, which runs code and needs `--trust-pickle`, or in memory."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import importable
from edgerecover.models.name.flags import LiveNetwork
from edgerecover.models.read.records import printable

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class WholeModule:
    """Where a pickled module is: the file, the keys that lead to it, and its class."""

    path: Path
    under: tuple[str, ...]
    """Keys that lead to it in the file."""
    class_name: str


def load_module(whole: WholeModule | LiveNetwork) -> nn.Module:
    """Unpickle the module, or copy the one in memory; on the CPU, in float32.

    Wrappers for training (DataParallel, torch.compile, weight averaging) are removed, and masks of
    torch.nn.utils.prune are made permanent, so that the keys are those of `read_checkpoint`. While a file is unpickled,
    its folder is on `sys.path`.

    Raises:
        BadInputError: the file's classes cannot be imported, fail, or make something other than a module; or the
            module in memory cannot be copied.
    """
    from edgerecover.models.network.train_modes import let_eval_return, take_off_compilation

    own = _copy(whole) if isinstance(whole, LiveNetwork) else _unpickle(whole)
    module = let_eval_return(take_off_compilation(unwrap(own)).cpu().float())
    _make_masks_permanent(module)
    return module


def _unpickle(whole: WholeModule) -> nn.Module:
    import torch
    from torch import nn

    what = f"{whole.path}: unpickling {printable(whole.class_name)}"
    try:
        with warnings.catch_warnings(), importable(whole.path.parent):
            warnings.simplefilter("ignore")
            # The user gave --trust-pickle; without it nothing comes here.
            content: Any = torch.load(whole.path, map_location="cpu", weights_only=False)
            for key in whole.under:
                content = content[key] if isinstance(content, Mapping) else getattr(content, key)
    except (Exception, SystemExit) as error:  # the file's code raises anything
        raise BadInputError(
            f"{what} failed with {type(error).__name__}: {error}",
            hint="put the Python files that define its classes beside it, under their original names",
        ) from error
    if not isinstance(content, nn.Module):
        raise BadInputError(
            f"{what} made an object of type {type(content).__name__}, not a torch.nn.Module",
            hint="save the network, or its state_dict()",
        )
    return content


def _copy(live: LiveNetwork) -> nn.Module:
    from torch import Tensor

    # Weights that hooks compute (weight_norm, masks of torch.nn.utils.prune) have a graph, which deepcopy refuses.
    computed = (
        value
        for module in live.network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    )
    try:
        return copy.deepcopy(live.network, {id(tensor): tensor.detach().clone() for tensor in computed})
    except Exception as error:  # the user's network raises anything
        raise BadInputError(
            f"{live.name}: the network cannot be copied: {type(error).__name__}: {error}",
            hint="copy.deepcopy must work on it, so that yours stays unchanged; or give its checkpoint and --arch",
        ) from error


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside wrappers for training: DataParallel, torch.compile, weight averaging."""
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
    while True:
        inner = module.module if isinstance(module, wrappers) else None
        inner = inner or getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _make_masks_permanent(network: nn.Module) -> None:
    from torch.nn.utils.prune import BasePruningMethod

    for module in network.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, BasePruningMethod):
                hook.remove(module)
                del module._forward_pre_hooks[key]
