"""Making a network's layers as narrow as a channel-pruned checkpoint's tensors, from the shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgerecover.models.network.sparsity import prunable_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


def narrow_to(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Shrink Conv, Linear and batch norm layers, in place, to the shapes of `tensors`; values are not copied.

    Depthwise convolutions stay depthwise. Nothing changes if the classifier's outputs differ, or if a layer would have
    to grow or change its kernel: then the checkpoint is of another architecture.

    Args:
        network: as its factory builds it.
        tensors: a state_dict for it.

    Returns:
        Names of the layers that are narrower now.
    """
    layers = {name: layer for name, layer in network.named_modules() if _differs(name, layer, tensors)}
    weights = list(prunable_weights(network).items())
    if not weights or not all(_can_shrink(name, layer, tensors) for name, layer in layers.items()):
        return ()
    classifier, weight = weights[-1]
    if classifier not in tensors or tensors[classifier].shape[0] != weight.shape[0]:
        return ()
    for name, layer in layers.items():
        _shrink(name, layer, tensors)
    return tuple(layers)


def is_narrower(tensors: Mapping[str, Tensor], wide: Mapping[str, Tensor]) -> bool:
    """Whether `tensors` belong to a network with the same layers as `wide` but fewer channels."""
    names, wide_names = ({key for key in state if not key.endswith("num_batches_tracked")} for state in (tensors, wide))
    pairs = [(tensors[key].shape, wide[key].shape) for key in names & wide_names]
    fit = all(
        len(narrow) == len(full) and all(a <= b for a, b in zip(narrow, full, strict=True)) for narrow, full in pairs
    )
    return names == wide_names and fit and any(narrow != full for narrow, full in pairs)


def _own_tensors(name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Present and wanted sizes of a layer, by attribute."""
    own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
    prefix = f"{name}." if name else ""
    return {key: (tensor, tensors[prefix + key]) for key, tensor in own.items() if prefix + key in tensors}


def _differs(name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    return any(has.shape != wanted.shape for has, wanted in _own_tensors(name, layer, tensors).values())


def _can_shrink(name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    from torch import nn

    from edgerecover.models.network.norms import batch_norms_of

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.modules.batchnorm._BatchNorm)
    return (isinstance(layer, kinds) or "" in batch_norms_of(layer)) and all(
        has.dim() == wanted.dim()
        and has.shape[2:] == wanted.shape[2:]
        and all(0 < after <= before for before, after in zip(has.shape, wanted.shape, strict=True))
        for has, wanted in _own_tensors(name, layer, tensors).values()
    )


def _shrink(name: str, layer: Any, tensors: Mapping[str, Tensor]) -> None:
    import torch
    from torch import nn

    for key, (has, wanted) in _own_tensors(name, layer, tensors).items():
        empty = torch.zeros(wanted.shape, dtype=has.dtype)
        setattr(layer, key, nn.Parameter(empty) if isinstance(has, nn.Parameter) else empty)
    if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
        if hasattr(layer, "num_features"):
            layer.num_features = len(layer.running_mean if layer.weight is None else layer.weight)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.ConvTranspose2d):
        layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
    else:
        outputs, inputs_per_group = layer.weight.shape[:2]
        if layer.groups == layer.in_channels > 1:
            layer.groups = outputs // max(1, layer.out_channels // layer.in_channels)
        layer.out_channels, layer.in_channels = outputs, inputs_per_group * layer.groups


def failing_layer(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[str, Exception] | None:
    """Name of the layer at which a forward pass of a zero image fails, and the error; None if it succeeds."""
    import torch

    entered: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda _layer, _inputs, name=name: entered.append(name))
        for name, layer in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(torch.zeros(1, *input_shape))
    except Exception as error:  # layers that do not fit together raise anything
        return entered[-1] if entered else "", error
    finally:
        for handle in handles:
            handle.remove()
    return None
