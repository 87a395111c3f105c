"""A profile is written for any teacher; here its open questions are decided for one, before anything is made.

The decisions become part of the settings, and so of the keys under which dreams and recoveries are kept.
"""

# ruff: noqa: TID253 - works on networks; only the pipeline imports it

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgerecover.artifacts import InputSpec, TaskKind, from_json, to_json
from edgerecover.compute import is_out_of_memory
from edgerecover.config import Profile
from edgerecover.files import replace_file
from edgerecover.models.network.examples import example_images
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.progress import SILENT, Progress
from edgerecover.synthesis.at_once import images_at_once
from edgerecover.synthesis.mirror import LEAST_CORRELATION, mirror_correlation
from edgerecover.synthesis.procedural import are_pixel_statistics, pixel_statistics, procedural_images
from edgerecover.synthesis.sets import synthesis_key
from edgerecover.synthesis.source import Source
from edgerecover.synthesis.statistics import BatchNormStatistics, Weighted, open_tap

if TYPE_CHECKING:
    from edgerecover.compute import Compute


@dataclass(frozen=True)
class Settled:
    """A profile without open questions."""

    profile: Profile
    mirror_correlation: float | None
    """The correlation that decided `flip = "auto"`, -1 to 1; None where the profile does not ask."""


def settle(profile: Profile, source: Source, progress: Progress = SILENT, work: Path | None = None) -> Settled:
    """Decide what a profile leaves to the teacher: its recipe without norms, the pixel term, the start, coarse steps,
    the number of images per forward pass, mirroring, colours.

    Args:
        profile: as shipped or written.
        source: its teacher comes back on the device of `compute`, in eval mode, without gradients.
        progress: where to say what was decided.
        work: folder that keeps what was measured, so that a run that resumes decides as before.

    Raises:
        MissingError: there is not enough free memory for one image.
    """
    input, compute, record = source.input, source.compute, source.record
    teacher = compute.place(source.teacher).eval().requires_grad_(False)
    synthesis, recovery = profile.synthesis, profile.recovery
    if profile.without_norms is not None and not has_norms(teacher):
        synthesis, recovery = profile.without_norms.synthesis, profile.without_norms.recovery
    if synthesis.pixel_weight and not has_pixel_statistics(input):
        synthesis = synthesis.model_copy(update={"pixel_weight": 0.0})
    if synthesis.start == "auto":
        synthesis = synthesis.model_copy(update={"start": _start_for(teacher, source)})
    if recovery.colour_jitter == "auto":
        has_photographs = synthesis.start == "fractal" and source.output.task is TaskKind.ONE_LABEL
        recovery = recovery.model_copy(update={"colour_jitter": _COLOUR_JITTER if has_photographs else 0.0})
    num_values = source.output.num_values
    if synthesis.coarse_fraction and (record is not None or not takes_half_size(teacher, input, num_values, compute)):
        synthesis = synthesis.model_copy(update={"coarse_fraction": 0.0})
    path = work / f"settled-{synthesis_key(source, profile.synthesis, 0)}.json" if work else None
    known = _read_known(path)
    at_once = correlation = None
    if synthesis.images_at_once == "auto" and synthesis.source == "dream":
        # As before, however much memory is free now: another number would give other images, and remake finished ones.
        at_once = known.images_at_once or images_at_once(source, synthesis, progress)
        synthesis = synthesis.model_copy(update={"images_at_once": at_once})
    if "auto" in (synthesis.flip, recovery.flip):
        correlation = known.mirror_correlation
        if correlation is None:
            correlation = mirror_correlation(source, synthesis, progress)
        decided = correlation >= LEAST_CORRELATION
        progress.note(
            f"images are {'' if decided else 'not '}mirrored: the teacher's margins on dreams and on mirrored dreams "
            f"correlate at {correlation:.2f} (threshold {LEAST_CORRELATION})"
        )
        if synthesis.flip == "auto":
            synthesis = synthesis.model_copy(update={"flip": decided})
        if recovery.flip == "auto":
            recovery = recovery.model_copy(update={"flip": decided})
    if path and (found := _Known(at_once, correlation)) not in (known, _Known()):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(to_json(found)).encode())
    settled = profile.model_copy(update={"synthesis": synthesis, "recovery": recovery, "without_norms": None})
    return Settled(settled, correlation)


_COLOUR_JITTER = 0.5
"""docs/adr/0008; bars on grey surfaces and shapes in colour lose half a point by it."""


@dataclass(frozen=True)
class _Known:
    """What an earlier run found out about the same teacher and settings; None: it did not get that far."""

    images_at_once: int | None = None
    mirror_correlation: float | None = None


def _read_known(path: Path | None) -> _Known:
    try:
        return from_json(_Known, json.loads(path.read_bytes())) if path else _Known()
    except (OSError, ValueError):  # not there, or damaged: it is found out again in seconds
        return _Known()


def _start_for(teacher: nn.Module, source: Source) -> Literal["fractal", "shapes"]:
    """Shapes if nothing guides the dreams, or if they are much nearer to the batch norm statistics than fractals."""
    if not batch_norms_of(teacher):
        return "fractal" if source.record else "shapes"
    fractals, shapes = (_distance_of(kind, teacher, source) for kind in ("fractal", "shapes"))
    return "shapes" if shapes < _MUCH_NEARER * fractals else "fractal"


_MUCH_NEARER = 0.6
"""Classifiers of CIFAR-10 find shapes 0.9 to 1.6 times as far as fractals, and learn from dreams that started as
fractals; teachers of digits, clothes and scratches, whose pixels are mostly dark or mostly alike, 0.05 to 0.5 times."""
_NUM_STARTS, _AT_ONCE = 16, 4


@torch.no_grad()
def _distance_of(kind: Literal["fractal", "shapes"], teacher: nn.Module, source: Source) -> float:
    """Distance of a few images, before any step, from the statistics of the teacher's batch norm."""
    made = procedural_images(kind, _NUM_STARTS, source.input.shape, source.input.bounds(), seed=0)
    pieces = torch.split(source.compute.images(made), _AT_ONCE)
    with open_tap(teacher, (Weighted(1.0, BatchNormStatistics(teacher, "relative")),)) as tap:
        tap.draw([len(piece) for piece in pieces], None, torch.Generator().manual_seed(0))
        distance = 0.0
        for number, piece in enumerate(pieces):
            teacher(piece)
            distance = float(tap.distance(number))  # of all pieces so far
    return distance


@torch.no_grad()
def takes_half_size(teacher: nn.Module, input: InputSpec, num_values: int, compute: Compute) -> bool:
    """Whether images are large enough to be shown at half their size, and the teacher gives as many outputs then."""
    if min(input.shape[1:]) < _LEAST_SIDE or not batch_norms_of(teacher):
        return False
    try:
        logits = teacher(F.avg_pool2d(compute.images(example_images(input, 2)), 2))
    except Exception as error:  # anyone's network, which takes one size only
        if is_out_of_memory(error):
            raise
        return False
    return isinstance(logits, Tensor) and logits.shape == (2, num_values) and bool(logits.isfinite().all())


_LEAST_SIDE = 64
"""Pixels; below, half the size leaves too little of an image: the last layers would see single pixels."""


def has_norms(network: nn.Module) -> bool:
    """Whether any layer normalises: batch norm, or one of layers, groups or instances, of torch or of anyone's."""
    return any("norm" in type(module).__name__.lower() for module in network.modules()) or bool(batch_norms_of(network))


def has_pixel_statistics(input: InputSpec) -> bool:
    """Whether mean and std can be those of the images that the teacher was trained on.

    They usually are. Mean 0 and std 1 (nothing is normalised), or 0.5 and 0.5 (to -1 … 1), are conventions.
    """
    return all(are_pixel_statistics(*pair) for pair in zip(*pixel_statistics(input.bounds()), strict=True))
