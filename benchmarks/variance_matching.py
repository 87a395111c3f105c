"""A training-free repair of 2026, as a baseline: channel-wise variance matching with shrinkage, then BN recalibration.

Zhan, Chen and Hu, "Adaptive Signal Resuscitation", arXiv 2605.21426. Written from its abstract, which is all that was
at hand: it gives the parts and their order, and no formula. What it leaves open is decided here, as plainly as we
could, so this is a reading of the method and not its authors' code:

    g_c = √(var_t,c / var_s,c)          what makes the student's output of channel c vary as the teacher's
    k_c = min(1, var_s,c / var_t,c)     how much of the signal pruning left; the shrinkage weighs it against the layer's
    w_c = k_c / (k_c + median k)
    channel c of the layer's weight is scaled by g_c ^ w_c, then batch norm is recalibrated

Layer after layer in one forward pass, so that each sees what the layers before it have become. Recalibration moves the
stored statistics with momentum, as BN in training mode does. It must: a plain average over the images would divide by
exactly what the channel was scaled by, and nothing would be left of the repair but where no batch norm follows.
"""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgerecover.compute import Compute
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.synthesis.image_set import ImageSet

_LAYERS = (nn.Conv2d, nn.Linear)
_NUM_MEASURED = 64
"""Images that variances are measured on, in one batch."""
_LEAST = 1e-12


@torch.no_grad()
def repair(student: nn.Module, teacher: nn.Module, images: ImageSet, batch_size: int, compute: Compute) -> nn.Module:
    """A copy of the student with every layer's channels scaled and its BN statistics recalibrated, on the CPU."""
    network = compute.place(copy.deepcopy(student)).eval()
    teacher = compute.place(copy.deepcopy(teacher)).eval()
    measured_NCHW = compute.images(images.images_of(range(min(_NUM_MEASURED, len(images)))))
    _scale_channels(network, _variances(teacher, measured_NCHW), measured_NCHW)
    for layer in batch_norms_of(network).values():
        layer.train()
    for batch_NCHW in images.batches(batch_size):
        network(compute.images(batch_NCHW))
    return network.cpu().eval()


def _variances(network: nn.Module, images_NCHW: Tensor) -> dict[str, Tensor]:
    """Of each layer's output channels, (C,)."""
    found: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            found[name] = _variance(output)

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in _layers(network)]
    network(images_NCHW)
    for handle in handles:
        handle.remove()
    return found


def _scale_channels(network: nn.Module, wanted: dict[str, Tensor], images_NCHW: Tensor) -> None:
    def scale(name: str):
        def hook(layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            factor_C = factors(_variance(output), wanted[name])
            layer.weight.mul_(factor_C.view(-1, *(1,) * (layer.weight.dim() - 1)))
            if layer.bias is not None:
                layer.bias.mul_(factor_C)
            return output * _as_channels(factor_C, output)

        return hook

    handles = [layer.register_forward_hook(scale(name)) for name, layer in _layers(network) if name in wanted]
    network(images_NCHW)
    for handle in handles:
        handle.remove()


def factors(var_s_C: Tensor, var_t_C: Tensor) -> Tensor:
    """g ^ w of each channel; 1 where pruning left nothing."""
    kept_C = (var_s_C / var_t_C.clamp_min(_LEAST)).clamp_max(1)
    gain_C = (var_t_C / var_s_C.clamp_min(_LEAST)).sqrt()
    weight_C = kept_C / (kept_C + kept_C.median()).clamp_min(_LEAST)
    return torch.where(var_s_C > _LEAST, gain_C**weight_C, torch.ones_like(gain_C))


def _layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, _LAYERS)]


def _variance(output: Tensor) -> Tensor:
    return output.transpose(0, 1).flatten(1).var(1, unbiased=False)


def _as_channels(values_C: Tensor, output: Tensor) -> Tensor:
    return values_C.view(1, -1, *(1,) * (output.dim() - 2))
