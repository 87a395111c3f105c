"""Image classifiers of Hugging Face transformers, from a folder that save_pretrained wrote.

The network is built from `config.json` by the installed library alone: nothing is downloaded, code in the folder is
never run, and its weights are parsed here. ViT, Swin and others name weights in files differently from their modules;
the library's own loading translates the names.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
)
from edgerecover.models.read.cards import CARD_FILE, read_config, require_classifier

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_from_folder(folder: Path) -> nn.Module:
    """Build the classifier of a folder with fresh weights; its forward pass takes images and gives logits.

    Raises:
        BadInputError: the folder is not an image classifier's, or the installed transformers cannot build it.
        MissingError: transformers is not installed.
    """
    network_class, config = _class_and_config(folder)
    with _report_errors(folder), _quiet():
        # Plain matrix products: the exporter cannot decompose every network's fused attention.
        network: nn.Module = network_class._from_config(config, attn_implementation="eager")
    return network.float().eval()


def with_module_names(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from a transformers file to the names of the module; others are left as they are.

    Raises:
        BadInputError: their names are the folder's, but not their shapes.
        MissingError: transformers is not installed.
    """
    import torch

    network_class, config = _class_and_config(folder)
    with _report_errors(folder), _quiet():
        network, told = network_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    state: dict[str, Tensor] = network.state_dict()
    if tensors.keys() <= state.keys() or told["missing_keys"] or told["unexpected_keys"]:
        return dict(tensors)  # what differs is said by whoever loads them
    if told["mismatched_keys"]:
        name, found, described = min(told["mismatched_keys"])
        raise BadInputError(
            f"{folder / CARD_FILE}: describes {name} of shape {list(described)}, the weights have {list(found)}",
            hint="the config.json must be the one that was saved with the weights",
        )
    return state


def _class_and_config(folder: Path) -> tuple[Any, Any]:
    said = read_config(folder)
    name = require_classifier(folder, said)
    transformers = _transformers()
    network_class: Any = getattr(transformers, name, None)
    is_network: bool = inspect.isclass(network_class) and issubclass(network_class, transformers.PreTrainedModel)
    if not is_network:
        own = "; the folder names code of its own (auto_map), which is never run" if "auto_map" in said else ""
        raise BadInputError(
            f"{folder / CARD_FILE}: transformers {transformers.__version__} has no class {name}{own}",
            hint="name the network's own factory with --arch file.py:factory",
        )
    with _report_errors(folder):
        config = network_class.config_class.from_dict(said)
    return _with_logits(network_class), config


@functools.cache
def _with_logits(network_class: Any) -> Any:
    """A subclass whose forward pass returns the logits; names of modules and parameters stay."""

    def forward(self: Any, pixel_values: Tensor) -> Tensor:
        logits_NK: Tensor = network_class.forward(self, pixel_values=pixel_values, return_dict=True).logits
        return logits_NK

    return type(network_class.__name__, (network_class,), {"forward": forward, "__module__": network_class.__module__})


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingError(
            "a folder of Hugging Face transformers needs that library, which is not installed",
            hint=pip_line("install 'edgerecover[transformers]'"),
        ) from error
    return transformers


@contextlib.contextmanager
def _report_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except BadInputError:
        raise
    except Exception as error:  # some hundred constructors, each with its own demands on its configuration
        line = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInputError(
            f"{folder / CARD_FILE}: transformers cannot build the network: {type(error).__name__}: {line}",
            hint="was it saved by a newer transformers? See `transformers_version` in it",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bars and reports of keys; we report what matters."""
    from transformers.utils import logging as its_logging

    was_level, had_bar = its_logging.get_verbosity(), its_logging.is_progress_bar_enabled()
    its_logging.set_verbosity(logging.CRITICAL)
    its_logging.disable_progress_bar()
    try:
        yield
    finally:
        its_logging.set_verbosity(was_level)
        if had_bar:
            its_logging.enable_progress_bar()
