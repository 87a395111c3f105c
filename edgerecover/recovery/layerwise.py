"""Layer-wise least squares: the remaining weights of a pruned layer are fitted to the output of the teacher's layer.

Layer by layer, in the order of the forward pass, on the inputs that the student's own earlier layers deliver. (The
reconstruction of Lazarevich et al. 2021, arXiv 2104.15023, with the student's inputs instead of the teacher's, so that
a layer also compensates for the errors of those before it.)

Each network makes one forward pass of all images. The teacher's records samples of its layers' outputs; the student's
pauses at each layer, which is fitted before its output is computed. So the time is linear in the depth.
"""

# Shapes: N images, C channels, H height, W width, P positions, G groups, O outputs and I inputs of a group.
# ruff: noqa: TID253, N815 - works on tensors throughout, shapes are suffixes of fields too; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgerecover.models.build.architectures import load_state
from edgerecover.models.network.linear_calls import LinearCall
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.network.sparsity import prunable_weights
from edgerecover.progress import Progress, Task
from edgerecover.recovery.checkpoints import Checkpoint, State, part_of
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.held_bytes import held_bytes
from edgerecover.recovery.least_squares import fit, is_too_wide
from edgerecover.recovery.linear_maps import (
    COMPUTED,
    NO_LINEAR_MAP,
    AtMaps,
    LinearMap,
    can_be_set,
    layer_of,
    linear_maps_of,
    set_weight,
)
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.patches import POSITIONS_PER_IMAGE, Places, rows_of, weight_of
from edgerecover.recovery.statistics import normalising_by_batch, repair_statistics
from edgerecover.runtime.machine.memory import returning_large_blocks
from edgerecover.synthesis.image_set import ImageSet

MAX_IMAGES = 512
"""Images that fit the weights at most, which bounds the time."""
_MAX_BYTES = 2**30
"""Memory for activations; fewer images are used where a forward pass would hold more."""
_MAX_NAMED = 5
"""Layers named per reason in the log."""
_UNDETERMINED = "{} images are too few to determine it"
_NOT_REACHED = "a forward pass of many images does not reach it"


def fit_layers(pair: Pair, images: ImageSet, batch_size: int, execution: Execution) -> None:
    """Fit the student's linear maps to the outputs of the teacher's, then its BN statistics, in place.

    Linear maps are the weights that a forward was seen to multiply by. One is left as it is, and named in a note, when
    it is used more than once per forward or never, when its weight is computed and cannot be set, when no weight is
    left, when it is too wide to be solved in reasonable time (4,096 inputs and as many outputs, say), when its output
    is narrower than the teacher's and the pair's `channels` does not know how, and when a fit to half of the images
    does not come nearer on the other half; also when activations are not numbers. One without a mask may use all its
    weights.

    Args:
        pair: of the same architecture, on the device of `execution`; the teacher is as wide as the student or wider.
        images: synthetic train set; at most the first 512 fit the weights, fewer where a forward of them would hold
            over 1 GiB, which a note says; all of them the statistics.
        batch_size: images per forward of the statistics' repair.
        execution: of one process; always float32, which normal equations need.
    """
    student, progress = pair.student, execution.progress
    few_NCHW = execution.compute.images(images.images_of(range(min(2, len(images)))))
    maps, left_out = _fittable(pair, few_NCHW)
    checkpoint, num_done = execution.checkpoints.of("fitted-layers"), 0
    if state := checkpoint.read():
        load_state(student, part_of(state, "student").tensors)
        num_done = state.facts["num_done"]
        progress.note(f"resuming least squares after {num_done} of {len(maps)} layers")
    num_images = _num_images(pair, maps, images, few_NCHW, progress)
    with returning_large_blocks(), progress.task("least squares", len(maps) - num_done, "layers") as task:
        images_NCHW = execution.compute.images(images.images_of(range(num_images)))
        left_out |= _fit_all(pair, maps, images_NCHW, few_NCHW, num_done, checkpoint, task)
    if left_out:
        progress.note(_in_words(left_out))
    if batch_norms_of(student):
        repair_statistics(pair, images, batch_size, execution)
    checkpoint.discard()


def _fit_all(
    pair: Pair,
    maps: list[tuple[LinearMap, LinearMap]],
    images_NCHW: Tensor,
    few_NCHW: Tensor,
    num_done: int,
    checkpoint: Checkpoint,
    task: Task,
) -> dict[str, str]:
    """Fit every map but the first `num_done`; returns why others were left as they are, by name of the parameter."""
    student, left_out = pair.student, {}
    masks = {id(student.get_parameter(name)): mask for name, mask in pair.masks.items()}

    def take(number: int, linear_map: LinearMap, samples: _Samples, call: LinearCall) -> None:
        if number < num_done:
            return  # before an interruption
        if number > num_done and checkpoint.is_due():
            tensors = {f"student/{name}": tensor for name, tensor in student.state_dict().items()}
            checkpoint.write(State(tensors, {"student": {}, "num_done": number}))
        mask = masks.get(id(student.get_parameter(linear_map.weight)))
        if reason := _fit(student, linear_map, call, samples, mask, few_NCHW):
            left_out[linear_map.weight] = reason
        task.advance(1)

    sampling = _Sampling(pair, maps, len(images_NCHW))
    with torch.no_grad(), normalising_by_batch(pair.teacher), sampling:
        pair.teacher(images_NCHW)
    fitting = _Fitting(student, [own for own, _ in maps], sampling.samples, take)
    try:
        with torch.no_grad(), normalising_by_batch(student), fitting:
            student(images_NCHW)
    except _Failed as failed:
        raise failed.error from None
    return left_out | dict.fromkeys(fitting.not_reached, _NOT_REACHED)


def _num_images(
    pair: Pair,
    maps: list[tuple[LinearMap, LinearMap]],
    images: ImageSet,
    few_NCHW: Tensor,
    progress: Progress,
) -> int:
    """How many images fit the weights: as many as there are, within the bounds of time and memory."""
    asked = min(len(images), MAX_IMAGES)
    with normalising_by_batch(pair.student), normalising_by_batch(pair.teacher):
        per_image = max(held_bytes(network, few_NCHW) for network in (pair.student, pair.teacher)) / len(few_NCHW)
    per_image += sum(4 * POSITIONS_PER_IMAGE * own.num_outputs for own, _ in maps)
    num_images = min(asked, max(2, int(_MAX_BYTES / per_image)))
    if num_images < asked:
        progress.note(
            f"least squares use {num_images} of {asked} images: "
            f"activations of more would need over {_MAX_BYTES / 2**30:g} GiB of memory"
        )
    return num_images


def _fittable(pair: Pair, few_NCHW: Tensor) -> tuple[list[tuple[LinearMap, LinearMap]], dict[str, str]]:
    """The student's maps to fit, in the order in which a forward reaches them, each with the teacher's.

    Also the reasons why others are skipped, by name of the parameter.
    """
    student = pair.student
    own = linear_maps_of(student, few_NCHW)
    of_teacher = {linear_map.weight: linear_map for linear_map in linear_maps_of(pair.teacher, few_NCHW).found}
    masked, weights = {id(student.get_parameter(name)) for name in pair.masks}, prunable_weights(student)
    # A table of positions, or a gain of a row, is left out too, but nobody asks why.
    left_out = {
        name: reason
        for name, reason in own.left_out.items()
        if (name in weights and reason != NO_LINEAR_MAP) or id(student.get_parameter(name)) in masked
    }
    maps = []
    for linear_map in own.found:
        its = of_teacher.get(linear_map.weight)
        reason = _reason_against(pair, linear_map, its, few_NCHW)
        if reason or its is None:
            left_out[linear_map.weight] = reason
        else:
            maps.append((linear_map, its))
    return maps, left_out


def _reason_against(pair: Pair, linear_map: LinearMap, its: LinearMap | None, few_NCHW: Tensor) -> str:
    """Why a map cannot be fitted; empty where it can."""
    if its is None:
        return "the teacher uses its weight in a different way"
    rows = pair.channels.of_teacher(linear_map.weight, torch.arange(its.num_outputs), dim=0)
    if rows is None or len(rows) != linear_map.num_outputs:
        return "unknown which of the teacher's channels it kept"
    weight = pair.student.get_parameter(linear_map.weight)
    if not bool(weight.any()):
        return "no weight is left"
    if is_too_wide(linear_map.num_outputs, weight.numel() // linear_map.num_outputs):
        return "too wide to solve"
    return "" if can_be_set(pair.student, linear_map, few_NCHW) else COMPUTED


def _in_words(left_out: Mapping[str, str]) -> str:
    """Which layers are skipped and why, the first few by name."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(layer_of(name))
    parts = []
    for reason, names in by_reason.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        parts.append(f"{', '.join(names[:_MAX_NAMED])}{more} ({reason})")
    num_layers = len({layer_of(name) for name in left_out})
    return f"least squares skips {num_layers} {'layer' if num_layers == 1 else 'layers'}: {'; '.join(parts)}"


@dataclass(frozen=True)
class _Samples:
    """Samples of the teacher's outputs at some positions."""

    places: Places
    outputs_GNPO: Tensor


class _Sampling(AtMaps):
    """A forward pass of the teacher that records samples of its maps' outputs."""

    def __init__(self, pair: Pair, maps: list[tuple[LinearMap, LinearMap]], num_images: int) -> None:
        super().__init__(pair.teacher, [its for _, its in maps])
        self.samples: dict[str, _Samples] = {}
        self._channels, self._num_images = pair.channels, num_images
        self._seeds = {own.weight: number for number, (own, _) in enumerate(maps)}

    def at(self, linear_map: LinearMap, call: LinearCall, compute: Callable[[], Tensor]) -> Tensor:
        output = compute()
        random = torch.Generator().manual_seed(self._seeds[linear_map.weight])
        places = Places.of(call, output, self._num_images, random)
        outputs = self._channels.of_teacher(linear_map.weight, output, call.channel_dim)
        assert outputs is not None
        self.samples[linear_map.weight] = _Samples(places, places.outputs_of(call, outputs).contiguous())
        return output


class _Failed(BaseException):
    """Carries an error of this package out of a forward pass, which may itself catch any Exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Fitting(AtMaps):
    """A forward pass of the student that pauses at each of its maps until the map is fitted."""

    def __init__(
        self,
        student: nn.Module,
        maps: list[LinearMap],
        samples: dict[str, _Samples],
        take: Callable[[int, LinearMap, _Samples, LinearCall], None],
    ) -> None:
        super().__init__(student, [linear_map for linear_map in maps if linear_map.weight in samples])
        self._samples, self._take = samples, take
        self._numbers = {linear_map.weight: number for number, linear_map in enumerate(maps)}

    def at(self, linear_map: LinearMap, call: LinearCall, compute: Callable[[], Tensor]) -> Tensor:
        name = linear_map.weight
        try:
            self._take(self._numbers[name], linear_map, self._samples.pop(name), call)
        except Exception as error:
            raise _Failed(error) from error
        return compute()


def _fit(
    student: nn.Module,
    linear_map: LinearMap,
    call: LinearCall,
    samples: _Samples,
    mask: Tensor | None,
    few_NCHW: Tensor,
) -> str:
    """Fit one map in place, also in the call under way; returns why nothing has changed, or an empty string."""
    used = torch.ones_like(call.weight, dtype=torch.bool) if linear_map.form == "parameter" else call.weight != 0
    start_GOI = rows_of(call.weight, call)
    fitted = fit(
        samples.places.inputs_of(call),
        samples.outputs_GNPO,
        start_GOI,
        None if call.bias is None else call.bias.view(call.groups, -1),
        rows_of(used if mask is None else used & mask, call).to(start_GOI),
    )
    if fitted is None or not fitted.weight_GOI.isfinite().all():
        return _UNDETERMINED.format(samples.places.num_images)
    weight = weight_of(fitted.weight_GOI, call).to(call.weight.dtype)
    if not set_weight(student, linear_map, weight, few_NCHW):
        return COMPUTED
    if linear_map.form != "parameter":
        call.weight.copy_(weight)  # computed before the parameter was set
    if linear_map.bias is not None:
        student.get_parameter(linear_map.bias).copy_(fitted.bias_GO.flatten())
    return ""
