"""Unpickling a whole module, which runs whatever code the file names: only with `--trust-pickle`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import importable
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


def load_module(whole: WholeModule) -> nn.Module:
    """Unpickle the module, on the CPU, in float32; the folder of its file is on `sys.path` meanwhile.

    Wrappers for training (DataParallel, torch.compile, weight averaging) are removed, and masks of
    torch.nn.utils.prune are made permanent, so that the keys are those of `read_checkpoint`.

    Raises:
        BadInputError: the file's classes cannot be imported, fail, or make something other than a module.
    """
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
    from edgerecover.models.network.train_modes import let_eval_return, take_off_compilation

    module = let_eval_return(take_off_compilation(_unwrap(content)).cpu().float())
    _make_masks_permanent(module)
    return module


def _unwrap(module: nn.Module) -> nn.Module:
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

    while True:
        inner = module.module if isinstance(module, nn.DataParallel | AveragedModel) else None
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
