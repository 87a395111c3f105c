"""Block-wise reconstruction: each block of a pruned student is trained to the output of the teacher's block.

Block by block, in the order of the forward pass, on the inputs that the student's own earlier blocks deliver, so that a
block also makes up for the errors of those before it. (BRECQ, Li et al. 2021, arXiv 2102.05426, which finds roundings
this way; here the remaining weights are trained, under the mask.) Both networks normalise by the batch.

Inputs and wanted outputs of the block in training are kept for all images, and nothing else; each block is run on what
the one before returned. So the time is linear in the depth.
"""

# Shapes: N images, C channels, H height, W width; activations have any shape of N rows.
# ruff: noqa: TID253 - a training loop over tensors; only the recovery stage imports it

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgerecover.compute import Compute
from edgerecover.config import Blockwise
from edgerecover.models.build.architectures import load_state
from edgerecover.models.network.norms import adapts, batch_norms_of
from edgerecover.progress import Progress
from edgerecover.recovery.checkpoints import State, part_of
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.statistics import normalising_by_batch, repair_statistics
from edgerecover.recovery.units import Unit, input_of, is_trainable, units_of
from edgerecover.synthesis.image_set import ImageSet

_MAX_BYTES = 2**29
"""Memory for inputs and wanted outputs of a block; fewer images are used where they would take more."""
_KEPT_AS = torch.bfloat16
"""Activations are kept in half the memory; blocks compute in float32, or in the precision of the run."""
_HELD_SHARE = 8
"""One batch in so many is not trained on: it decides whether a block has come nearer."""
_NEAR = 0.01
"""Error, as a fraction of the variance, below which a block is left as it is."""
_LEAST_VARIANCE = 1e-3
"""Of a channel, as a fraction of the channels' mean: nearly dead ones would outweigh all others."""


def reconstruct_blocks(
    pair: Pair,
    images: ImageSet,
    settings: Blockwise,
    batch_size: int,
    execution: Execution,
    *,
    seed: int,
    by_batch: bool = True,
) -> None:
    """Train the student's blocks to the outputs of the teacher's, then repair its BN statistics, in place.

    A block is left as it is, and counted in a note, when its error is below a hundredth of the variance, and when
    training does not bring it nearer on images that it was not trained on. Blocks that cannot be run alone, and those
    of whose outputs nobody knows which are the teacher's, are named in a note.

    Args:
        pair: of the same architecture, on the device of `execution`; the teacher is as wide as the student or wider.
        images: synthetic train set; as many train as 512 MiB of activations allow, all of them repair the statistics.
        settings: steps per block, images per step and learning rate.
        batch_size: images per forward of the statistics' repair.
        execution: of one process.
        seed: of the order of images.
        by_batch: whether BN layers that can normalise by the batch do so; else by what they have stored.
    """
    student, compute, progress = pair.student, execution.compute, execution.progress
    units, left_out = units_of(pair, compute.images(images.images_of(range(min(2, len(images))))))
    batches = _batches(_num_images(units, len(images), progress), settings.batch_size)
    if left_out or not units or not batches:
        progress.note(_in_words(left_out, len(units), len(batches)))
    if not units or not batches:
        return
    checkpoint, num_done, counts = execution.checkpoints.of("reconstructed-blocks"), 0, Counter[str]()
    if state := checkpoint.read():
        load_state(student, part_of(state, "student").tensors)
        num_done, counts = state.facts["num_done"], Counter(state.facts["counts"])
        progress.note(f"resuming block-wise reconstruction after {num_done} of {len(units)} blocks")
    layers = {name for name, layer in batch_norms_of(student).items() if by_batch and adapts(layer)}
    walk = _Walk(pair, layers, images, batches, compute)
    with (
        compute.without_slow_kernels(student, pair.teacher),
        normalising_by_batch(pair.teacher, names=layers),
        progress.task("block by block", len(units) - num_done, "blocks") as task,
    ):
        for number, unit in enumerate(units):
            walk.enter(unit)
            if number >= num_done:
                if number > num_done and checkpoint.is_due():
                    checkpoint.write(_state(student, number, counts))
                error, outcome = _reconstruct(walk, unit, settings, np.random.default_rng([seed, number]))
                counts[outcome] += 1
                task.advance(error=error)
            walk.leave(unit)
    progress.note(f"block by block: {', '.join(f'{number} {outcome}' for outcome, number in sorted(counts.items()))}")
    if batch_norms_of(student):
        repair_statistics(pair, images, batch_size, execution)
    checkpoint.discard()


def _state(student: nn.Module, num_done: int, counts: Mapping[str, int]) -> State:
    tensors = {f"student/{name}": tensor for name, tensor in student.state_dict().items()}
    return State(tensors, {"student": {}, "num_done": num_done, "counts": dict(counts)})


def _num_images(units: list[Unit], num_images: int, progress: Progress) -> int:
    """How many of the images are used."""
    # The student's input and the teacher's, which its output replaces.
    per_image = max((2 * _KEPT_AS.itemsize * unit.values_per_image for unit in units), default=1)
    used = min(num_images, max(2, _MAX_BYTES // per_image))
    if used < num_images:
        progress.note(
            f"block-wise reconstruction uses {used} of {num_images} images: "
            f"activations of more would need over {_MAX_BYTES >> 20} MiB of memory"
        )
    return used


def _batches(num_images: int, batch_size: int) -> list[range]:
    """Full batches of two images or more; a short last one is left out."""
    size = min(batch_size, num_images if num_images < 4 else num_images // 2)
    return [range(start, start + size) for start in range(0, num_images - size + 1, size)] if size > 1 else []


def _in_words(left_out: Mapping[str, str], num_units: int, num_batches: int) -> str:
    if num_units and not num_batches:
        return "block-wise reconstruction is skipped: it needs two images or more"
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    named = "; ".join(
        f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''} ({reason})"
        for reason, names in by_reason.items()
    )
    if num_units:
        return f"block-wise reconstruction skips {named}"
    return f"block-wise reconstruction is skipped: no block can be run alone{f': {named}' if named else ''}"


class _Walk:
    """Both networks, stopped before one unit: what enters it, batch by batch."""

    def __init__(self, pair: Pair, layers: set[str], images: ImageSet, batches: list[range], compute: Compute) -> None:
        """Stop before the first unit; `layers` are the BN layers that normalise by the batch."""
        self.pair, self.layers, self.compute = pair, layers, compute
        self._images, self._batches = images, batches
        self.entering: list[Tensor] = []
        """The student's inputs of the unit."""
        self.wanted: list[Tensor] = []
        """The teacher's inputs, or once the unit is entered its outputs."""

    @torch.no_grad()
    def enter(self, unit: Unit) -> None:
        """Compute what the student's unit gets, and what the teacher's returns."""
        if not unit.follows:
            self.entering, self.wanted = [], []
            with normalising_by_batch(self.pair.student, names=self.layers), self.compute.autocast():
                for batch in self._batches:
                    images_NCHW = self.compute.images(self._images.images_of(batch))
                    self.entering.append(input_of(self.pair.student, unit, images_NCHW).to(_KEPT_AS))
                    self.wanted.append(input_of(self.pair.teacher, unit, images_NCHW).to(_KEPT_AS))
        for number, x in enumerate(self.wanted):
            self.wanted[number] = self.run(self.pair.teacher, unit, x)

    @torch.no_grad()
    def leave(self, unit: Unit) -> None:
        """Run the student's unit; what it returns enters the next one."""
        with normalising_by_batch(self.pair.student, names=self.layers):
            for number, x in enumerate(self.entering):
                self.entering[number] = self.run(self.pair.student, unit, x)

    @torch.no_grad()
    def errors(self, unit: Unit, goal: _Goal, numbers: range) -> float:
        """The mean error of the student's unit over these batches."""
        with normalising_by_batch(self.pair.student, names=self.layers):
            found = [goal.error(self.run(self.pair.student, unit, self.entering[n]), n) for n in numbers]
        return float(torch.stack(found).mean())

    def run(self, network: nn.Module, unit: Unit, x: Tensor) -> Tensor:
        """A unit's output on a kept input."""
        with self.compute.autocast():
            return unit.run(network, self.input(x)).to(_KEPT_AS)

    def input(self, x: Tensor) -> Tensor:
        """A fresh copy to compute with."""
        x = x.float()
        return self.compute.images(x) if x.dim() == 4 else x


@dataclass(frozen=True)
class _Goal:
    """What a unit is trained to."""

    outputs: list[Tensor]
    """Of the teacher, by batch: the channels that the student has."""
    weight: Tensor
    """One over the variance of each channel."""

    @classmethod
    def of(cls, outputs: list[Tensor]) -> _Goal:
        channel = 1 if outputs[0].dim() == 4 else outputs[0].dim() - 1
        axes = tuple(axis for axis in range(outputs[0].dim()) if axis != channel)
        variance = torch.stack([y.float().var(axes, correction=0, keepdim=True) for y in outputs]).mean(0)
        return cls(outputs, 1 / variance.clamp_min(_LEAST_VARIANCE * float(variance.mean()) + 1e-12))

    def error(self, output: Tensor, number: int) -> Tensor:
        """The squared error on a batch, as a fraction of the variance."""
        return ((output.float() - self.outputs[number].float()).square() * self.weight).mean()


def _goal_of(walk: _Walk, unit: Unit, output: Tensor) -> _Goal | None:
    """None where nobody knows which of the teacher's outputs the student's are."""
    outputs = [walk.pair.channels.of_teacher(unit.names[-1], y, dim=1) for y in walk.wanted]
    if outputs[0] is None or outputs[0].shape != output.shape:
        return None
    return _Goal.of([y for y in outputs if y is not None])


def _reconstruct(walk: _Walk, unit: Unit, settings: Blockwise, rng: np.random.Generator) -> tuple[float, str]:
    """Train one unit of the student; returns its error afterwards, and in a word what became of it."""
    student = walk.pair.student
    if not is_trainable(student, unit):
        return 0.0, "without weights"
    with torch.no_grad(), normalising_by_batch(student, names=walk.layers):
        goal = _goal_of(walk, unit, walk.run(student, unit, walk.entering[0]))
    if goal is None:
        return 0.0, "whose channels are unknown"
    num = len(walk.entering)
    num_held = max(1, num // _HELD_SHARE) if num > 1 else 0
    held = range(num - num_held, num) if num_held else range(num)
    before = walk.errors(unit, goal, held)
    if before < _NEAR:
        return before, "near enough"
    states = [{name: tensor.clone() for name, tensor in m.state_dict().items()} for m in unit.of(student)]
    _train(walk, unit, goal, settings, _order(rng, num - num_held, settings.num_steps))
    after = walk.errors(unit, goal, held)
    if after < before:
        return after, "trained"
    for module, state in zip(unit.of(student), states, strict=True):
        load_state(module, state)
    return before, "that came no nearer"


def _order(rng: np.random.Generator, num_batches: int, num_steps: int) -> Iterator[int]:
    """The batch of each step; all come before any repeats."""
    for step in range(num_steps):
        if step % num_batches == 0:
            order = rng.permutation(num_batches)
        yield int(order[step % num_batches])


def _train(walk: _Walk, unit: Unit, goal: _Goal, settings: Blockwise, order: Iterator[int]) -> None:
    student = walk.pair.student
    parameters = [p for module in unit.of(student) for p in module.parameters() if p.is_floating_point()]
    masks = {id(student.get_parameter(name)): mask for name, mask in walk.pair.masks.items()}
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, fused=True)
    with _learning(student, unit, walk.layers, parameters):
        for step, number in enumerate(order):
            optimizer.param_groups[0]["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.num_steps))
            with walk.compute.autocast():
                output = unit.run(student, walk.input(walk.entering[number]))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(goal.error(output, number))
            for parameter in parameters:  # with masked gradients a zero weight never moves
                if parameter.grad is not None and id(parameter) in masks:
                    parameter.grad.mul_(masks[id(parameter)])
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def _learning(student: nn.Module, unit: Unit, layers: set[str], parameters: list[nn.Parameter]) -> Iterator[None]:
    """The unit's parameters get gradients, and its BN layers normalise by the batch with a gradient."""
    inside = {id(module) for part in unit.of(student) for module in part.modules()}
    norms = [student.get_submodule(name) for name in layers]
    norms = [layer for layer in norms if id(layer) in inside]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for layer in norms:
            layer.train()
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for layer in norms:
            layer.eval()
