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
from torch import Tensor, nn

from edgerecover.device import Compute
from edgerecover.models.architectures import load_state
from edgerecover.models.channels import SAME_CHANNELS, ChannelMap
from edgerecover.models.linear_calls import LinearCall
from edgerecover.models.norms import batch_norms_of
from edgerecover.models.sparsity import prunable_weights
from edgerecover.progress import SILENT, Progress
from edgerecover.recover.checkpoints import NO_CHECKPOINTS, Checkpoints, State, part_of
from edgerecover.recover.linear_maps import (
    COMPUTED,
    NO_LINEAR_MAP,
    LinearMap,
    can_be_set,
    layer_of,
    linear_maps_of,
    run_until,
    set_weight,
)
from edgerecover.recover.patches import rows_of, samples, weight_of
from edgerecover.recover.statistics import normalising_by_batch, repair_statistics
from edgerecover.synthesize.image_set import ImageSet

_MAX_IMAGES = 512
"""A bound on the time: every layer costs a forward of these, up to it, through both networks."""
_RIDGE = 0.01
"""λ as a fraction of the inputs' mean square: keeps w where the images do not determine it, far above rounding."""
_MAX_ITERATIONS = 100
_MIN_ITERATIONS = 10
"""A layer that would get fewer is left as it is."""
_MAX_OPERATIONS = 5e11
"""In one layer's iterations, a bound on the time: their number falls for wide layers; 512 channels of 3×3 get 23."""
_TOLERANCE = 1e-8
"""Of the squared residual of every row, relative to the first."""
_MAX_NAMED = 5
"""Of the layers that are left out for one reason; the log is read by people."""
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

    Linear maps are the weights that a forward was seen to multiply by. One is left as it is, and named in a note, when
    it is used more than once per forward or never, when its weight is computed and cannot be set, when no weight is
    left, when it is too wide to be solved in reasonable time (4,096 inputs and as many outputs, say), when its output
    is narrower than the teacher's and `channels` does not know how; also when activations are not numbers. One without
    a mask may use all its weights.

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
    few = compute.images(images.images_of(range(min(2, len(images)))))
    maps, left_out = _fittable(student, teacher, masks, channels, few)
    if left_out:
        progress.note(_in_words(left_out))
    random = torch.Generator().manual_seed(0)
    checkpoint, num_done = checkpoints.of("fitted-layers"), 0
    if state := checkpoint.read():
        load_state(student, part_of(state, "student").tensors)
        random.set_state(state.tensors["generator"])
        num_done = state.facts["num_done"]
        progress.note(f"least squares go on after {num_done} of {len(maps)} layers")
    kept = {id(student.get_parameter(name)): mask for name, mask in masks.items()}
    with progress.task("least squares", len(maps) - num_done, "layers") as task:
        for number, (linear_map, taught_map) in enumerate(maps[num_done:], num_done):
            if checkpoint.is_due():
                tensors = {f"student/{name}": tensor for name, tensor in student.state_dict().items()}
                facts = {"student": {}, "num_done": number}
                checkpoint.write(State({**tensors, "generator": random.get_state()}, facts))
            moments = _Moments()
            with normalising_by_batch(student), normalising_by_batch(teacher):
                for batch in _batches(images, batch_size):
                    call, _ = run_until(student, linear_map, compute.images(batch))
                    _, taught = run_until(teacher, taught_map, compute.images(batch))
                    outputs = channels.of_teacher(linear_map.weight, taught, call.channel_dim)
                    assert outputs is not None
                    moments.add(*samples(call, outputs, random))
            mask = kept.get(id(student.get_parameter(linear_map.weight)))
            if not _fit(student, linear_map, call, moments, mask, few):
                progress.note(_in_words({linear_map.weight: COMPUTED}))
            task.advance(1)
    if batch_norms_of(student):
        repair_statistics(student, teacher, images, batch_size, compute, channels, checkpoints, progress)
    checkpoint.discard()


def _fittable(
    student: nn.Module, teacher: nn.Module, masks: Mapping[str, Tensor], channels: ChannelMap, few_NCHW: Tensor
) -> tuple[list[tuple[LinearMap, LinearMap]], dict[str, str]]:
    """The student's maps to fit, in the order in which a forward reaches them, each with the teacher's.

    And the reasons why others are not, by name of the parameter.
    """
    own = linear_maps_of(student, few_NCHW)
    taught = {linear_map.weight: linear_map for linear_map in linear_maps_of(teacher, few_NCHW).found}
    masked, weights = {id(student.get_parameter(name)) for name in masks}, prunable_weights(student)
    # A table of positions, or a gain of a row, is left out too, but nobody asks why.
    left_out = {
        name: reason
        for name, reason in own.left_out.items()
        if (name in weights and reason != NO_LINEAR_MAP) or id(student.get_parameter(name)) in masked
    }
    maps = []
    for linear_map in own.found:
        its = taught.get(linear_map.weight)
        reason = _reason_against(student, linear_map, its, channels, few_NCHW)
        if reason or its is None:
            left_out[linear_map.weight] = reason
        else:
            maps.append((linear_map, its))
    return maps, left_out


def _reason_against(
    student: nn.Module, linear_map: LinearMap, taught: LinearMap | None, channels: ChannelMap, few_NCHW: Tensor
) -> str:
    """Why a map cannot be fitted; empty where it can."""
    if taught is None:
        return "the teacher uses its own in another way"
    rows = channels.of_teacher(linear_map.weight, torch.arange(taught.num_outputs), dim=0)
    if rows is None or len(rows) != linear_map.num_outputs:
        return "which of the teacher's channels it kept is not known"
    weight = student.get_parameter(linear_map.weight)
    if not bool(weight.any()):
        return "no weight is left"
    if _num_iterations(linear_map.num_outputs, weight.numel() // linear_map.num_outputs) < _MIN_ITERATIONS:
        return "too wide"
    return "" if can_be_set(student, linear_map, few_NCHW) else COMPUTED


def _num_iterations(num_outputs: int, num_inputs: int) -> int:
    return min(_MAX_ITERATIONS, int(_MAX_OPERATIONS / (2 * num_outputs * num_inputs**2)))


def _in_words(left_out: Mapping[str, str]) -> str:
    """Which layers are left out and why, the first few by name."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(layer_of(name))
    parts = []
    for reason, names in by_reason.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        parts.append(f"{', '.join(names[:_MAX_NAMED])}{more} ({reason})")
    num_layers = len({layer_of(name) for name in left_out})
    return f"least squares leaves out {num_layers} {'layer' if num_layers == 1 else 'layers'}: {'; '.join(parts)}"


def _batches(images: ImageSet, batch_size: int) -> Iterator[np.ndarray]:
    num_images = min(len(images), _MAX_IMAGES)
    # As in statistics repair, a short last batch is left out: its own statistics would be worse.
    batch_size = min(batch_size, num_images)
    for start in range(0, num_images - batch_size + 1, batch_size):
        yield images.images_of(range(start, start + batch_size))


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
def _fit(
    student: nn.Module,
    linear_map: LinearMap,
    call: LinearCall,
    moments: _Moments,
    mask: Tensor | None,
    few_NCHW: Tensor,
) -> bool:
    """Fit one map, in place; False, and nothing changed, where the student would not use the fitted weight."""
    used = torch.ones_like(call.weight, dtype=torch.bool) if linear_map.form == "parameter" else call.weight != 0
    xx_GII, yx_GOI = moments.covariances()
    weight_GOI = _masked_least_squares(
        xx_GII,
        yx_GOI,
        rows_of(call.weight, call).double(),
        rows_of(used if mask is None else used & mask, call).to(xx_GII),
        _RIDGE * moments.mean_square(),
        _num_iterations(linear_map.num_outputs, yx_GOI.shape[2]),
    )
    if not weight_GOI.isfinite().all():
        return True
    x_GI, y_GO = moments.means()
    if not set_weight(student, linear_map, weight_of(weight_GOI, call).to(call.weight.dtype), few_NCHW):
        return False
    if linear_map.bias is not None:
        bias = student.get_parameter(linear_map.bias)
        bias.copy_((y_GO - (weight_GOI @ x_GI.unsqueeze(2)).squeeze(2)).flatten())
    return True


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
