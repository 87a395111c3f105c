"""Whether a network was trained on inputs of the scale that is assumed: its first batch norm has recorded that.

Up to its first batch norm a network is usually linear, so the stored mean and variance say how the training inputs
were scaled. Photographs resemble each other enough in contrast and brightness, and in how both fall off with spatial
frequency (as 1/f: Field 1987), for noise with these properties to stand for them. docs/adr/0051 has what was measured
on trained networks whose scale is known, and with wrong ones.
"""

# Shapes: N images, C channels, P all values of one channel.
# ruff: noqa: TID253 - runs networks throughout

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgerecover.artifacts import InputSpec
from edgerecover.models.network.norms import batch_norms_of, first_tensor, stored_by

_NUM_IMAGES = 8
_SMALLEST_SIDE = 4
_BRIGHTNESS, _CONTRAST = 0.45, 0.25
"""Mean and standard deviation of pixels of photographs, where pixels go from 0 to 1."""
_COLOUR = 0.3
"""Contrast between the colours, relative to the contrast that they share."""
_FURTHEST_CONTRAST = 2.5
_FURTHEST_BRIGHTNESS = 1.6
"""Beyond either, the scale is another one."""
_EXPLAINED = 0.8
"""Share of the difference of means, squared, that must be due to brightness."""
_MEAN_ERROR = 0.15
"""Of the assumed inputs' standard deviation."""
_NONLINEAR = 1e-2
_NO_VARIANCE = 1e-6
"""Relative to the largest: channels that hardly vary say nothing."""


@dataclass(frozen=True)
class InputScale:
    """Inputs as they are assumed, against those that the first batch norm has seen."""

    layer: str
    """Name of that batch norm."""
    contrast: float
    """Standard deviation of assumed inputs over that of the ones it was trained on."""
    brightness: float
    """How far its training inputs' mean is above that of assumed ones, in standard deviations of the latter."""
    is_brightness: bool
    """Whether brightness explains how the means differ."""
    mean: float
    std: float
    """Of assumed inputs, over all channels."""

    @property
    def is_another(self) -> bool:
        """Whether the network was evidently trained on inputs of another scale."""
        far = self.is_brightness and abs(self.brightness) > _FURTHEST_BRIGHTNESS
        return far or not 1 / _FURTHEST_CONTRAST <= self.contrast <= _FURTHEST_CONTRAST

    @property
    def trained_mean(self) -> float:
        """Mean of the inputs that the network was trained on, over all channels, as far as can be told."""
        return self.mean + self.brightness * self.std

    @property
    def mean_error(self) -> float:
        """How far `trained_mean` may be off: colours differ in brightness."""
        return _MEAN_ERROR * self.std

    @property
    def trained_std(self) -> float:
        """Standard deviation of the inputs that the network was trained on, as far as can be told."""
        return self.std / self.contrast


def compare_scale(network: nn.Module, input: InputSpec) -> InputScale | None:
    """Compare assumed inputs with what the first batch norm has stored.

    Args:
        network: in eval mode, on the CPU.
        input: as it is assumed.

    Returns:
        None if this cannot be told: there is no batch norm, none that was trained, or the network is not linear up to
        the first one.
    """
    if min(input.shape[1:]) < _SMALLEST_SIDE or not (norms := batch_norms_of(network)):
        return None
    images = photograph_like(input, _NUM_IMAGES)
    step = images.std()
    seen = [_at_first(network, norms, images + number * step) for number in range(3)]
    name, layer_input = seen[0]
    if name is None or any(other != name for other, _ in seen):
        return None
    stored_mean, stored_var = (one.float() for one in stored_by(norms[name]))
    values = [_by_channel(one, len(stored_mean)) for _, one in seen]
    if layer_input is None or any(one is None for one in values) or _is_fresh(stored_mean, stored_var):
        return None
    means = [one.mean(1) for one in values if one is not None]
    bend, rise = (means[2] - 2 * means[1] + means[0]).norm(), (means[1] - means[0]).norm()
    of_channels = stored_var > _NO_VARIANCE * stored_var.max()
    if not torch.isfinite(rise) or bend > _NONLINEAR * rise or not bool(of_channels.any()):
        return None
    assert values[0] is not None
    stds = stored_var[of_channels].sqrt()
    by_step, missing = (
        (difference[of_channels] / stds) for difference in (means[1] - means[0], stored_mean - means[0])
    )
    brightness = float(by_step @ missing / (by_step @ by_step))
    rest = (missing - brightness * by_step).square().sum() / missing.square().sum()
    contrast = math.sqrt(float(values[0].var(1)[of_channels].sum() / stored_var[of_channels].sum()))
    if not (math.isfinite(brightness) and math.isfinite(contrast)) or contrast == 0:
        return None
    return InputScale(name, contrast, brightness, float(rest) < 1 - _EXPLAINED, float(images.mean()), float(step))


def photograph_like(input: InputSpec, num_images: int) -> Tensor:
    """Network inputs (N, C, H, W), float32, always the same ones: noise with a spectrum of 1/f."""
    channels, height, width = input.shape
    generator = torch.Generator().manual_seed(0)
    shared = _noise((num_images, 1, height, width), generator)
    of_channels = _noise((num_images, channels, height, width), generator) if channels > 1 else 0.0
    field = (shared + _COLOUR * of_channels) / (math.sqrt(1 + _COLOUR**2) if channels > 1 else 1.0)
    unit = (_BRIGHTNESS + _CONTRAST * field).clamp(0, 1)
    low, high = (torch.tensor(bound).view(1, -1, 1, 1) for bound in input.bounds())
    return low + (high - low) * unit


def typical_scale(mean: float, std: float, pixel_range: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float]:
    """Mean and standard deviation of photographs as network inputs, where pixels become (pixel - mean) / std."""
    low, high = pixel_range
    return (low + (high - low) * _BRIGHTNESS - mean) / std, (high - low) * _CONTRAST / std


def _noise(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    height, width = shape[2:]
    frequency = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width)[None].square()).sqrt()
    frequency[0, 0] = 1 / max(height, width)
    spectrum = torch.fft.rfft2(torch.randn(shape, generator=generator)) / frequency
    noise: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    noise /= noise.std()
    return noise


class _ReachedError(Exception):
    """The first batch norm was called: what comes after it need not run."""


def _at_first(network: nn.Module, norms: dict[str, nn.Module], images: Tensor) -> tuple[str | None, Tensor | None]:
    """The first batch norm that runs, and its input."""
    found: list[tuple[str, Tensor | None]] = []

    def hook_of(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            found.append((name, first_tensor(inputs, named)))
            raise _ReachedError

        return hook

    handles = [norm.register_forward_pre_hook(hook_of(name), with_kwargs=True) for name, norm in norms.items()]
    try:
        with torch.no_grad():
            network(images)
    except _ReachedError:
        return found[0]
    finally:
        for handle in handles:
            handle.remove()
    return None, None


def _by_channel(values: Tensor | None, num_channels: int) -> Tensor | None:
    """(C, P); None where channels are not the second dimension."""
    if values is None or values.ndim < 2 or values.shape[1] != num_channels:
        return None
    return values.float().transpose(0, 1).reshape(num_channels, -1)


def _is_fresh(mean_C: Tensor, var_C: Tensor) -> bool:
    """As a layer is made: it has not been trained."""
    return bool((mean_C == 0).all() and (var_C == 1).all())
