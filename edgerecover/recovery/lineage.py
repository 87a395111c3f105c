"""Where a student's weights come from: copied from its teacher by pruning, or trained since.

A student that is just its teacher without some weights has nothing to lose. One that has been fine-tuned on real data
knows things that no dream shows, and dreams cannot reveal how much of them recovery destroys (docs/adr/0016). The
weights tell the two apart: pruning copies what it keeps to the last bit, rounds it, or scales a whole tensor; training
moves every weight in its own way.

Random and destroyed networks differ from the teacher too, but have nothing to lose: their decisions give them away.
"""

# Shapes: N images, K classes, P permutations.

# ruff: noqa: TID253 - compares tensors throughout; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgerecover.artifacts import Descent, Lineage, OutputSpec, TaskKind
from edgerecover.compute import Compute
from edgerecover.models.network.norms import batch_norms_of, stored_by
from edgerecover.models.pair.channels import ChannelMap
from edgerecover.recovery.logits import numpy_logits
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.image_set import ImageSet, SyntheticSets
from edgerecover.tasks.objective.boxes import DetectionObjective

_SAME = 1e-5
"""Two float32 numbers whose relative difference is smaller are the same number, computed twice."""
_GRIDS = (7, 8, 127, 128)
"""Steps from zero to the largest weight, of symmetric grids of 4 and 8 bits."""
_ON_GRID = 1e-2
"""How far from a whole number of steps a value of a grid may be."""
_TINY = 1e-30
"""Avoids a division by zero where a tensor is all zeros."""
_MAX_COLUMNS = 1024
"""Input channels of a narrower student's layer that are compared at most, each with all of the teacher's."""
_MAX_ROWS = 64
"""Entries per input channel that are compared at most."""
_NUM_SHUFFLES = 2000
_MAX_BETTER = 0.05
"""Share of shuffled class orders that may fit the teacher better than the student's own does, if it knows anything."""
_ONE_CLASS = 0.98
"""A student that chooses one class on this share of dreams has collapsed, unless its teacher does so too."""
_MANY_CLASSES = 0.9
"""A teacher that chooses one class on this share of dreams says nothing about the student."""


def is_protected(lineage: Lineage, pair: Pair, sets: SyntheticSets, compute: Compute) -> bool:
    """Whether a student may have learnt something that recovery without data could destroy unnoticed.

    Args:
        lineage: of the student.
        pair: the original student and its teacher, on the device of `compute`; not changed.
        sets: dreams of the teacher; train and calibration are used, and nothing has been learnt from them yet.
        compute: device; always float32.
    """
    if lineage.descent in (Descent.COPIED, Descent.RECALIBRATED):
        return False
    student_NK, teacher_NK = (
        torch.cat([_mean_scores(network, images, pair.output, compute) for images in (sets.train, sets.calibration)])
        for network in (pair.student, pair.teacher)
    )
    return knows_its_classes(student_NK, teacher_NK)


def _mean_scores(network: nn.Module, images: ImageSet, output: OutputSpec, compute: Compute) -> Tensor:
    """Scores (N, K) of all images: of maps, each one's mean over the pixels; of boxes, each class's highest."""
    parts = (torch.from_numpy(outputs_ND) for outputs_ND in numpy_logits(network, images, compute))
    if output.task is TaskKind.DETECTION:
        objective = DetectionObjective(output)
        return torch.cat([objective.candidates(part_ND)[1].amax(1) for part_ND in parts])
    return torch.cat([part_ND.view(len(part_ND), output.shape[0], -1).mean(2) for part_ND in parts])


def knows_its_classes(student_NK: Tensor, teacher_NK: Tensor) -> bool:
    """Whether a student tells classes apart as the teacher does, however faintly; random weights do not.

    A permutation test: were the student's classes no more than the numbers they have, its logits would follow the
    teacher's as well with the classes in any other order. That holds at agreements far below any other measure's
    noise: students with 40 to 80 % real accuracy agree on 15 to 30 % of poor dreams, less often than a student would
    that always answers one class.

    Args:
        student_NK: logits on images of the teacher.
        teacher_NK: the teacher's on the same images.
    """
    usable_N = student_NK.isfinite().all(1) & teacher_NK.isfinite().all(1)
    student_NK, teacher_NK = student_NK[usable_N].double(), teacher_NK[usable_N].double()
    if student_NK.shape[0] < 2 or student_NK.shape[1] != teacher_NK.shape[1]:
        return False
    if _largest_share(student_NK) >= _ONE_CLASS and _largest_share(teacher_NK) < _MANY_CLASSES:
        return False
    fit_KK = _standardise(student_NK).T @ _standardise(teacher_NK)
    num_classes = len(fit_KK)
    generator = torch.Generator().manual_seed(0)
    orders_PK = torch.rand(_NUM_SHUFFLES, num_classes, generator=generator).argsort(1)
    shuffled_P = fit_KK[torch.arange(num_classes), orders_PK].sum(1)
    better = (shuffled_P > fit_KK.diagonal().sum() + _SAME).double().mean()
    return bool(better <= _MAX_BETTER)


def _largest_share(logits_NK: Tensor) -> float:
    return float(logits_NK.argmax(1).bincount().max()) / len(logits_NK)


def _standardise(logits_NK: Tensor) -> Tensor:
    """Each image's logits around their mean, then each class's to mean 0 and length 1 over the images."""
    centred_NK = logits_NK - logits_NK.mean(1, keepdim=True)
    centred_NK = centred_NK - centred_NK.mean(0)
    standardised_NK: Tensor = centred_NK / centred_NK.norm(dim=0).clamp_min(_TINY)
    return standardised_NK


def lineage_of(pair: Pair) -> Lineage:
    """Compare what a student has kept with its teacher's.

    Zeros of the student are left out, whether a mask covers them or not.
    """
    student, masks, channels = pair.student, pair.masks, pair.channels
    if not channels.related:
        return Lineage(Descent.UNRELATED, 1.0, ())
    of_teacher = dict(pair.teacher.named_parameters())
    differing, total, own = 0.0, 0.0, []
    for name, parameter in student.named_parameters():
        if not parameter.is_floating_point():  # indices, which nothing trains
            continue
        both = _kept_by_both(name, parameter.detach(), of_teacher.get(name), masks.get(name), channels)
        if both is None:
            return Lineage(Descent.UNRELATED, 1.0, ())
        ours, theirs = both
        total += float(torch.linalg.vector_norm(theirs, dtype=torch.float64)) ** 2
        if torch.equal(ours, theirs):
            continue
        ours, theirs = ours.double(), theirs.double()
        differing += float((ours - theirs).square().sum())
        if not (_is_copy(ours, theirs) or _is_on_grid(ours, theirs)):
            own.append(name)
    deviation = (differing / total) ** 0.5 if total else 0.0
    if own:
        return Lineage(Descent.TRAINED, deviation, tuple(own))
    statistics = tuple(_own_statistics(student, pair.teacher, channels))
    return Lineage(Descent.RECALIBRATED if statistics else Descent.COPIED, deviation, statistics)


def _kept_by_both(
    name: str, ours: Tensor, theirs: Tensor | None, mask: Tensor | None, channels: ChannelMap
) -> tuple[Tensor, Tensor] | None:
    """What the student has kept of a parameter and what the teacher has there, of one shape.

    Both are zero where the student is or the mask prunes. None where nothing of the teacher's belongs to it.
    """
    theirs = None if theirs is None else channels.of_teacher(name.rpartition(".")[0], theirs.detach(), dim=0)
    if theirs is None:
        return None
    # Whatever is zero may have been pruned, in any way; training leaves nothing at zero.
    kept = ours != 0 if mask is None else mask.to(ours.device) & (ours != 0)
    if ours.dim() > 1 and theirs.dim() == ours.dim() and ours.shape[1] < theirs.shape[1]:
        some = slice(None, None, 1 + ours.shape[1] // _MAX_COLUMNS)
        ours, kept = ours[:, some], kept[:, some]
        theirs = _nearest_columns(ours, theirs)
    if theirs is None or theirs.shape != ours.shape:
        return None
    return ours * kept, theirs * kept


def _nearest_columns(ours: Tensor, theirs: Tensor) -> Tensor | None:
    """The input channels of the teacher's weight that are most like the student's, one for each of these."""
    if len(ours) != len(theirs) or ours.shape[2:] != theirs.shape[2:]:
        return None
    some = slice(None, None, 1 + len(ours) // _MAX_ROWS)
    a, b = (weight[some].transpose(0, 1).flatten(1) for weight in (ours, theirs))
    return theirs[:, torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)]


def _is_copy(ours: Tensor, theirs: Tensor, *, scaled: bool = True) -> bool:
    """Whether the numbers are equal up to rounding to a shorter float type and, if `scaled`, one positive factor."""
    factor = float((ours * theirs).sum() / theirs.square().sum().clamp_min(_TINY)) if scaled else 1.0
    # One number is a multiple of any other: it has to be the same.
    expected = theirs * factor if int(theirs.count_nonzero()) > 1 and factor > 0 else theirs
    return bool(((ours - expected).abs() <= _rounding(ours, theirs) * expected.abs() + _TINY).all())


def _rounding(ours: Tensor, theirs: Tensor) -> float:
    """Largest relative rounding error of the shortest float type that holds one of the two exactly."""
    for dtype in (torch.bfloat16, torch.float16):
        if any(bool((values.to(dtype).double() == values).all()) for values in (ours, theirs)):
            return torch.finfo(dtype).eps
    return _SAME


def _is_on_grid(ours: Tensor, theirs: Tensor) -> bool:
    """Whether these are the teacher's numbers, rounded to a symmetric grid of the tensor or of each row."""
    if ours.dim() < 2:
        return False
    largest = (ours.abs().amax(), ours.abs().amax(tuple(range(1, ours.dim())), keepdim=True))
    return any(_is_rounded_to(ours, theirs, top, num_steps) for top in largest for num_steps in _GRIDS)


def _is_rounded_to(ours: Tensor, theirs: Tensor, top: Tensor, num_steps: int) -> bool:
    step = (top / num_steps).clamp_min(_TINY)
    is_on_grid = ((ours / step - (ours / step).round()).abs() <= _ON_GRID).all()
    is_nearest = (ours - theirs).abs() <= (0.5 + _ON_GRID) * step
    is_clipped = (ours.abs() >= top * (1 - _SAME)) & (ours * theirs > 0) & (theirs.abs() >= ours.abs())
    return bool(is_on_grid & (is_nearest | is_clipped).all())


def _own_statistics(student: nn.Module, teacher: nn.Module, channels: ChannelMap) -> Iterator[str]:
    """Names of the batch norm statistics that are not the teacher's."""
    of_teacher = {name: stored_by(layer) for name, layer in batch_norms_of(teacher).items()}
    for name, layer in batch_norms_of(student).items():
        stored = zip(("running_mean", "running_var"), stored_by(layer), of_teacher.get(name, (None, None)), strict=True)
        for statistic, ours, theirs in stored:
            theirs = None if theirs is None else channels.of_teacher(name, theirs, dim=0)
            if (
                theirs is None
                or theirs.shape != ours.shape
                or not _is_copy(ours.double(), theirs.double(), scaled=False)
            ):
                yield f"{name}.{statistic}"
