"""Layer-wise least squares: what is left of a pruned layer's weights is fitted to what the teacher's layer puts out.

Layer by layer, in the order of the forward pass, on the inputs x_s that the student's own earlier layers deliver:

    min over w, b   E ‖y_t - w x_s - b‖² + λ ‖w - w₀‖²      w outside the mask stays zero

y_t is the output of the same layer in the teacher, x_s a patch of the student's input, w₀ the weights as they come.
The expectation needs only the covariances E x_s x_sᵀ and E y_t x_sᵀ, which are summed up batch by batch; all rows of w
are then solved together by conjugate gradients. (The reconstruction of Lazarevich et al. 2021, arXiv 2104.15023, with
the student's inputs instead of the teacher's, so that a layer also makes up for the errors of those before it.)
"""

# Shapes: N images, C channels, H height, W width, P positions, G groups, M samples, O outputs and I inputs of a group.
# ruff: noqa: TID253 - works on tensors throughout; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.device import Compute
from edgerecover.models.channels import SAME_CHANNELS, ChannelMap
from edgerecover.progress import SILENT, Progress
from edgerecover.recover.checkpoints import NO_CHECKPOINTS, Checkpoints, State, part_of
from edgerecover.recover.linear_maps import LinearMap, linear_maps_of, run_until
from edgerecover.recover.statistics import normalising_by_batch, repair_statistics
from edgerecover.synthesize.image_set import ImageSet
from edgerecover.synthesize.statistics import batch_norms_of

_MAX_IMAGES = 512
"""A bound on the time: every layer costs a forward of these, up to it, through both networks."""
_POSITIONS_PER_IMAGE = 16
"""Neighbouring patches of an image say nearly the same, so a few at random are enough."""
_RIDGE = 0.01
"""λ as a fraction of the inputs' mean square: keeps w where the images do not determine it, far above rounding."""
_MAX_ITERATIONS = 100
_MIN_ITERATIONS = 10
"""A layer that would get fewer is left as it is."""
_MAX_OPERATIONS = 5e11
"""In one layer's iterations, a bound on the time: their number falls for wide layers; 512 channels of 3×3 get 23."""
_TOLERANCE = 1e-8
"""Of the squared residual of every row, relative to the first."""
_TINY = 1e-30
"""Instead of a division by zero, where an input or a whole row is dead."""


def fit_layers(
    student: nn.Module,
    teacher: nn.Module,
    masks: Mapping[str, Tensor],
    images: ImageSet,
    batch_size: int,
    compute: Compute,
    channels: ChannelMap = SAME_CHANNELS,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    progress: Progress = SILENT,
) -> None:
    """Fit the student's linear maps to what the teacher's put out, then its BN statistics, in place.

    Linear maps are convolutions, linear layers and the projections of self-attention. One is left as it is when it has
    no weight left, when it runs more than once per forward or never, when it is too wide to be solved in reasonable
    time (4,096 inputs and as many outputs, say), when its output is narrower than the teacher's and `channels` does not
    know how, or when activations are not numbers. One without a mask may use all its weights.

    Args:
        student: on the device of `compute`, in eval mode; weights outside `masks` are zero and stay exactly zero.
        teacher: same architecture, as wide as the student or wider; same device, not changed.
        masks: weight name to kept positions, on the same device.
        images: synthetic train set; at most the first 512 fit the weights, all of them the statistics.
        batch_size: images per forward.
        compute: device; always float32, which normal equations need.
        channels: the teacher's channels that a narrower student has.
        checkpoints: where to go on from, and where to write how far it got.
        progress: where to report.
    """
    maps = _fittable(student, teacher, channels, compute.images(images.images_of(range(1))))
    random = torch.Generator().manual_seed(0)
    checkpoint, num_done = checkpoints.of("fitted-layers"), 0
    if state := checkpoint.read():
        student.load_state_dict(part_of(state, "student").tensors)
        random.set_state(state.tensors["generator"])
        num_done = state.facts["num_done"]
        progress.note(f"least squares go on after {num_done} of {len(maps)} layers")
    with progress.task("least squares", len(maps) - num_done, "layers") as task:
        for number, linear_map in enumerate(maps[num_done:], num_done):
            if checkpoint.is_due():
                tensors = {f"student/{name}": tensor for name, tensor in student.state_dict().items()}
                facts = {"student": {}, "num_done": number}
                checkpoint.write(State({**tensors, "generator": random.get_state()}, facts))
            weight = student.get_parameter(linear_map.weight)
            module = student.get_submodule(linear_map.module)
            moments = _Moments()
            with normalising_by_batch(student), normalising_by_batch(teacher):
                for batch in _batches(images, batch_size):
                    inputs, _ = run_until(student, linear_map, compute.images(batch))
                    _, taught = run_until(teacher, linear_map, compute.images(batch))
                    dim = 1 if isinstance(module, nn.Conv2d) else -1
                    outputs = channels.of_teacher(linear_map.module, taught, dim)
                    assert outputs is not None
                    moments.add(*_samples(module, inputs, outputs, random))
            bias = student.get_parameter(linear_map.bias) if linear_map.bias else None
            _fit(weight, bias, moments, masks.get(linear_map.weight, torch.ones_like(weight)))
            task.advance(1)
    if batch_norms_of(student):
        repair_statistics(student, teacher, images, batch_size, compute, channels, checkpoints, progress)
    checkpoint.discard()


def _fittable(student: nn.Module, teacher: nn.Module, channels: ChannelMap, image_1CHW: Tensor) -> list[LinearMap]:
    """The maps to fit, in the order in which a forward reaches them."""

    def is_fittable(linear_map: LinearMap) -> bool:
        weight, taught = (network.get_parameter(linear_map.weight) for network in (student, teacher))
        is_feasible = bool(weight.any()) and _num_iterations(weight) >= _MIN_ITERATIONS
        return is_feasible and _has_targets(linear_map, weight, taught, channels)

    return [linear_map for linear_map in linear_maps_of(student, image_1CHW) if is_fittable(linear_map)]


def _num_iterations(weight: Tensor) -> int:
    num_outputs, num_inputs = len(weight), weight[0].numel()
    return min(_MAX_ITERATIONS, int(_MAX_OPERATIONS / (2 * num_outputs * num_inputs**2)))


def _has_targets(linear_map: LinearMap, weight: Tensor, taught: Tensor, channels: ChannelMap) -> bool:
    if linear_map.role != "layer":
        return weight.shape == taught.shape  # which heads a narrower attention kept is not known
    rows = channels.of_teacher(linear_map.module, taught, dim=0)
    return rows is not None and len(rows) == len(weight)


def _batches(images: ImageSet, batch_size: int) -> Iterator[np.ndarray]:
    num_images = min(len(images), _MAX_IMAGES)
    # As in statistics repair, a short last batch is left out: its own statistics would be worse.
    batch_size = min(batch_size, num_images)
    for start in range(0, num_images - batch_size + 1, batch_size):
        yield images.images_of(range(start, start + batch_size))


def _samples(layer: nn.Module, inputs: Tensor, outputs: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (G, M, I) of the layer's weights and the outputs (G, M, O) wanted of them; few positions of images."""
    if not isinstance(layer, nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1]), outputs.reshape(1, -1, outputs.shape[-1])
    height, width = outputs.shape[2:]
    positions_P = torch.randperm(height * width, generator=random)[:_POSITIONS_PER_IMAGE].to(outputs.device)
    rows_P, columns_P = positions_P // width, positions_P % width
    outputs_NOP = outputs[:, :, rows_P, columns_P]
    return _by_group(_patches(layer, inputs, rows_P, columns_P), layer), _by_group(outputs_NOP.unsqueeze(-1), layer)


def _patches(layer: nn.Conv2d, inputs_NCHW: Tensor, rows_P: Tensor, columns_P: Tensor) -> Tensor:
    """What the kernel sees at the given output positions: (N, C, P, kernel height · width)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # The layer's own reading of its padding, which may also be "same".
    padded = F.pad(inputs_NCHW, layer._reversed_padding_repeated_twice, mode=mode)
    taps = [torch.arange(k, device=rows_P.device) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    rows = rows_P[:, None, None] * layer.stride[0] + taps[0][:, None]
    columns = columns_P[:, None, None] * layer.stride[1] + taps[1]
    return padded[:, :, rows, columns].flatten(3)


def _by_group(x_NCPK: Tensor, layer: nn.Conv2d) -> Tensor:
    """(G, N · P, C / G · K), with the last axis in the order of the weight's."""
    n, channels, positions, taps = x_NCPK.shape
    split = x_NCPK.reshape(n, layer.groups, channels // layer.groups, positions, taps)
    return split.permute(1, 0, 3, 2, 4).reshape(layer.groups, n * positions, -1)


class _Moments:
    """First and second moments of a layer's inputs x and wanted outputs y, summed up in float64."""

    def __init__(self) -> None:
        self._num_samples = 0
        self._sums: tuple[Tensor, ...] = ()

    def add(self, x_GMI: Tensor, y_GMO: Tensor) -> None:
        x_T = x_GMI.transpose(1, 2)
        new = [s.double() for s in (x_T @ x_GMI, (x_T @ y_GMO).transpose(1, 2), x_GMI.sum(1), y_GMO.sum(1))]
        self._sums = tuple(a + b for a, b in zip(self._sums, new, strict=True)) if self._sums else tuple(new)
        self._num_samples += x_GMI.shape[1]

    def means(self) -> tuple[Tensor, Tensor]:
        """Of x (G, I) and of y (G, O)."""
        return self._sums[2] / self._num_samples, self._sums[3] / self._num_samples

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Cov(x, x) (G, I, I) and Cov(y, x) (G, O, I)."""
        x_GI, y_GO = self.means()
        xx_GII, yx_GOI = self._sums[0] / self._num_samples, self._sums[1] / self._num_samples
        return xx_GII - x_GI[:, :, None] * x_GI[:, None, :], yx_GOI - y_GO[:, :, None] * x_GI[:, None, :]

    def mean_square(self) -> Tensor:
        """Of the inputs, by group: (G, 1, 1)."""
        return (self._sums[0].diagonal(dim1=1, dim2=2) / self._num_samples).mean(1)[:, None, None]


@torch.no_grad()
def _fit(weight: Tensor, bias: Tensor | None, moments: _Moments, mask: Tensor) -> None:
    xx_GII, yx_GOI = moments.covariances()
    start_GOI = weight.reshape(yx_GOI.shape).double()
    mask_GOI = mask.reshape(yx_GOI.shape).to(xx_GII)
    weight_GOI = _masked_least_squares(
        xx_GII, yx_GOI, start_GOI, mask_GOI, _RIDGE * moments.mean_square(), _num_iterations(weight)
    )
    if not weight_GOI.isfinite().all():
        return
    weight.copy_(weight_GOI.reshape(weight.shape))
    if bias is not None:
        x_GI, y_GO = moments.means()
        bias.copy_((y_GO - (weight_GOI @ x_GI.unsqueeze(2)).squeeze(2)).flatten())


def _masked_least_squares(
    xx_GII: Tensor, yx_GOI: Tensor, start_GOI: Tensor, mask_GOI: Tensor, ridge_G11: Tensor, max_iterations: int
) -> Tensor:
    """Rows w that minimise w xx wᵀ - 2 w yxᵀ + ridge ‖w - start‖², zero outside the mask.

    Conjugate gradients, preconditioned by the diagonal, on all rows at once: each row has a support of its own, and
    would need a factorisation of its own. The objective falls with every iteration, so the error never exceeds the
    start's.
    """
    inverse_diagonal = 1 / (xx_GII.diagonal(dim1=1, dim2=2).unsqueeze(1) + ridge_G11).clamp_min(_TINY)
    w = start_GOI * mask_GOI
    residual = (yx_GOI - w @ xx_GII) * mask_GOI
    direction = residual * inverse_diagonal
    size = first_size = (residual * direction).sum(2, keepdim=True)
    for _ in range(max_iterations):
        image = (direction @ xx_GII + ridge_G11 * direction) * mask_GOI
        step = size / (direction * image).sum(2, keepdim=True).clamp_min(_TINY)
        w = w + step * direction
        residual = residual - step * image
        last_size, size = size, (residual.square() * inverse_diagonal).sum(2, keepdim=True)
        if bool((size <= _TOLERANCE * first_size).all()):
            break
        direction = residual * inverse_diagonal + size / last_size.clamp_min(_TINY) * direction
    return w
