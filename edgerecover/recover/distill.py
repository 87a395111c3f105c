"""Distillation of the dense teacher into the pruned student, under its mask, on synthetic images.

    loss = kd_weight · T² · KL(teacher ‖ student at temperature T)            Hinton et al. 2015, arXiv 1503.02531
         + feature_weight · mean over blocks of ‖f_s - f_t‖² / ‖f_t‖²         FitNets' idea, Romero et al. 2015

The teacher labels every view it is shown, so flips, shifts and mixtures of dreams are as good as dreams.
"""

# Shapes: N images in a batch, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - a training loop over tensors; only the recovery stage imports it

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerecover.compute import Compute
from edgerecover.config import Recovery, Synthesis
from edgerecover.distributed import ALONE, Ranks, wait_for_file
from edgerecover.errors import BadInputError
from edgerecover.models.build.architectures import load_state
from edgerecover.models.network.norms import adapts, batch_norms_of
from edgerecover.models.pair.channels import SAME_CHANNELS, ChannelMap
from edgerecover.progress import SILENT, Progress
from edgerecover.prune import apply_masks
from edgerecover.recover.blocks import block_names, captured, stage_ends
from edgerecover.recover.checkpoints import Checkpoint, Resumable, State, gathered, part_of, restore
from edgerecover.recover.matched_norms import matched_norms
from edgerecover.recover.refresh import FreshDreams
from edgerecover.recover.views import augment, draw_views
from edgerecover.synthesize.image_set import ImageSet
from edgerecover.synthesize.record.values import Record
from edgerecover.synthesize.statistics import BatchNormStatistics, Weighted, tapped

_MOMENTUM = 0.1
_LEAST_AT_ONCE = 16
"""Images by which batch norm normalises."""
_STATES = 100
"""Times at which a distillation takes down where it stands, to go back there or to go on from there."""
_LOWER_RATE = 0.25
_MAX_LOWERED = 4
_WILD = 10.0
"""Times the loss of the first steps: where that is exceeded, there is nothing worth going back to."""


@dataclass(frozen=True)
class Distilled:
    """How a distillation went."""

    num_steps: int
    """That the student has behind it: those asked for, or where it stood before its loss stopped being a number."""
    diverged: bool = False
    """It was stopped, for no lower rate helped."""
    warnings: tuple[str, ...] = ()


def distill(
    student: nn.Module,
    teacher: nn.Module,
    masks: Mapping[str, Tensor],
    images: ImageSet,
    settings: Recovery,
    *,
    seed: int,
    compute: Compute,
    channels: ChannelMap = SAME_CHANNELS,
    synthesis: Synthesis | None = None,
    record: Record | None = None,
    checkpoint: Checkpoint | None = None,
    carried: Mapping[str, Resumable] | None = None,
    watch: Callable[[int, float], Mapping[str, float]] | None = None,
    progress: Progress = SILENT,
    title: str = "distill",
    ranks: Ranks = ALONE,
) -> Distilled:
    """Train the student in place; weights outside `masks` stay exactly zero.

    Where the loss or a weight stops being a number, it goes back to where it last stood well and lowers the rate; after
    a few times it stops there.

    Args:
        student: on the device of `compute`, in eval mode; comes back in eval mode.
        teacher: on the same device; not changed. It may be wider, or of another architecture.
        masks: weight name to kept positions, on the same device.
        images: synthetic train set.
        settings: steps, rate, temperature and weights.
        seed: of the order of images and their augmentation.
        compute: device and precision.
        channels: the teacher's channels that a narrower student has; of unrelated ones, the ends of stages are
            compared.
        synthesis: how `images` were made, which a refresh goes on with; None leaves refreshes out.
        record: of the teacher's activations, where `images` were made with one.
        checkpoint: where to go on from, and where to write how far it got; None starts anew and keeps nothing.
        carried: what else changes with the steps, by name.
        watch: is told every step, counted from 1, and its loss, and answers with what else is worth showing; must
            leave the student as it is.
        progress: where to report,
        title: and under which name.
        ranks: that share every batch, and end with the same student; the first makes the fresh images, and alone has
            checkpoints and what is `carried`.

    Raises:
        BadInputError: there are more processes than images in a batch.
        StageError: what another process has written is not to be seen here.
    """
    if ranks.size > (batch_size := min(settings.batch_size, len(images))):
        raise BadInputError(
            f"{ranks.size} processes cannot share batches of {batch_size} images",
            hint="give the profile a larger recovery.batch_size, or start fewer processes",
        )
    checkpoint = checkpoint or Checkpoint()
    if settings.crop_border == "auto":
        settings = settings.model_copy(
            update={"crop_border": ranks.from_first(lambda: border_of(teacher, images, settings, compute))}
        )
    pairs = _paired_blocks(student, teacher, images, compute, channels) if settings.feature_weight else {}
    for parameter in student.parameters():  # some hold indices
        parameter.requires_grad_(parameter.is_floating_point())
    training = _Training(student, settings, len(images), seed)
    parts: dict[str, Resumable] = {"training": training, **(carried or {})}
    warnings: list[str] = []
    diverged = False

    def view(batch_NCHW: Tensor) -> Tensor:
        return augment(batch_NCHW, settings, training.generator, training.rng)

    def loss_of(piece_NCHW: Tensor) -> Tensor:
        """Of a part of a batch, weighed by its share of it."""
        share = len(piece_NCHW) / batch_size
        with matching.batch(), compute.autocast():
            with torch.no_grad():
                teacher_logits = teacher(piece_NCHW)
            student_logits = student(piece_NCHW)
        loss = settings.kd_weight * kd_loss(student_logits.float(), teacher_logits.float(), settings)
        if teacher_features:
            taught = {name: teacher_features[its] for name, its in pairs.items() if its in teacher_features}
            loss = loss + settings.feature_weight * feature_loss(student_features, taught, channels, share, ranks)
        return share * loss

    num_pieces = pieces_of(batch_size, synthesis) if ranks.size == 1 else 1
    with (
        _fresh_dreams(settings, synthesis, record, images, compute, seed, checkpoint, ranks) as fresh,
        _batch_norms(student, settings.bn, num_pieces),
        matched_norms(student, teacher, ranks, channels) as matching,
        captured(student, tuple(pairs)) as student_features,
        captured(teacher, tuple(pairs.values())) as teacher_features,
    ):
        if fresh:
            parts["fresh"] = fresh
        good = ranks.from_first(
            lambda: checkpoint.read(lambda state: fresh is None or fresh.has(part_of(state, "fresh")))
        )
        if good is not None:
            restore(parts, good)
            progress.note(f"distillation goes on after step {training.step:,} of {settings.num_steps:,}")
        good = good or gathered(parts)
        unproven = good
        with (
            progress.task(title, settings.num_steps - training.step, "steps") as task,
            checkpoint.kept_when_interrupted(lambda: good or gathered(parts)),
        ):
            while True:
                problem = training.problem()
                if problem is None and training.is_state_due():
                    # Whether a step was too large is seen in the losses after it: they prove the state before last.
                    is_sound = training.is_sound()
                    good, unproven = (unproven, gathered(parts)) if is_sound else (good, good)
                    if checkpoint.is_due():
                        checkpoint.write(good)
                if problem is not None:
                    broken_at, num_lowered = training.step, training.num_lowered + 1
                    restore(parts, good)
                    unproven = good
                    diverged = num_lowered > _MAX_LOWERED
                    warnings.append(_stepped_back(problem, broken_at, training.step, stopped=diverged))
                    progress.note(warnings[-1])
                    training.num_lowered = num_lowered
                if diverged or training.step == settings.num_steps:
                    break
                if fresh and fresh.is_due(training.step, settings.num_steps):
                    if ranks.is_first:
                        fresh.refresh(student, teacher, view, progress)
                    _follow(fresh, training, ranks)
                chosen = _Chosen(images, training.next_batch(), fresh)
                views = draw_views(chosen.shape_NCHW, settings, training.generator, training.rng)
                rows = ranks.rows(batch_size)
                batch = compute.images(views.of(chosen.images_at(views.needed(rows)), rows))
                losses = (loss_of(piece) for piece in torch.chunk(batch, num_pieces))
                value = training.learn(losses, masks, ranks)
                task.advance(1, loss=value, **(watch(training.step, value) if watch else {}))
    student.eval().requires_grad_(False)
    apply_masks(student, masks)
    return Distilled(training.step, diverged, tuple(warnings))


def pieces_of(batch_size: int, synthesis: Synthesis | None) -> int:
    """In how many parts a batch goes through the networks: as many images at once as dreams had, but enough for BN."""
    at_once = batch_size if synthesis is None else synthesis.at_once(batch_size)
    return math.ceil(batch_size / max(_LEAST_AT_ONCE, at_once))


def _stepped_back(problem: str, step: int, back_to: int, *, stopped: bool) -> str:
    went = "it was stopped there" if stopped else f"it goes on from there at {_LOWER_RATE:g} of the rate"
    return f"distillation: {problem} after step {step:,}; back to step {back_to:,}, and {went}"


class _Training:
    """All of a distillation that changes from step to step, but for fresh images."""

    def __init__(self, student: nn.Module, settings: Recovery, num_images: int, seed: int) -> None:
        self.step = 0
        self.num_lowered = 0
        """Times that the rate was lowered."""
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self._student, self._settings = student, settings
        self._optimizer = _optimizer(student, settings)
        self._num_images, self._batch_size = num_images, min(settings.batch_size, num_images)
        self._order_N = np.zeros(0, np.int64)
        """Of the images that this pass over them has yet to come to."""
        self._losses: list[float] = []
        """Since the last state was taken."""
        self._first_loss: float | None = None

    def next_batch(self) -> NDArray[np.int64]:
        """Indices of images; all of them come before any comes again, but for what is left over at the end."""
        if len(self._order_N) < self._batch_size:
            self._order_N = self.rng.permutation(self._num_images)
        chosen, self._order_N = self._order_N[: self._batch_size], self._order_N[self._batch_size :]
        return chosen

    def learn(self, losses: Iterable[Tensor], masks: Mapping[str, Tensor], ranks: Ranks = ALONE) -> float:
        """One step down the sum of these losses, and of all processes; its value."""
        self._optimizer.zero_grad(set_to_none=True)
        values = []
        for part in losses:
            torch.autograd.backward(part)
            values.append(part.detach())
        loss = torch.stack(values).sum()
        gradients = (parameter.grad for parameter in self._student.parameters())
        ranks.add_up([loss, *(gradient for gradient in gradients if gradient is not None)])
        _mask_gradients(self._student, masks)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.lr * _rate(self.step, self._settings) * _LOWER_RATE**self.num_lowered
        self._optimizer.step()
        self.step += 1
        self._losses.append(float(loss))
        return self._losses[-1]

    def problem(self) -> str | None:
        """What is no number any more, in words; weights are looked at when a state is due."""
        if self._losses and not math.isfinite(self._losses[-1]):
            return f"the loss was {self._losses[-1]}"
        if self.is_state_due() and not all(
            bool(tensor.isfinite().all())
            for tensor in self._student.state_dict().values()
            if tensor.is_floating_point()
        ):
            return "a weight was no number any more"
        return None

    def is_sound(self) -> bool:
        """Whether the losses since the last state are worth going on from."""
        if not self._losses:
            return True
        mean = sum(self._losses) / len(self._losses)
        self._losses = []
        self._first_loss = mean if self._first_loss is None else self._first_loss
        return mean <= _WILD * self._first_loss

    def is_state_due(self) -> bool:
        """After a number of steps that depends on the settings alone, and at the end."""
        return self.step % max(1, self._settings.num_steps // _STATES) == 0 or self.step == self._settings.num_steps

    def state(self) -> State:
        """Of weights, optimiser, random numbers and order."""
        tensors = {f"student/{name}": tensor.detach().clone() for name, tensor in self._student.state_dict().items()}
        for number, values in self._optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{number}/{name}"] = value.detach().clone()
        tensors |= {"order": torch.from_numpy(self._order_N.copy()), "generator": self.generator.get_state()}
        facts = {
            "step": self.step,
            "num_lowered": self.num_lowered,
            "first_loss": self._first_loss,
            "rng": self.rng.bit_generator.state,
        }
        return State(tensors, facts)

    def chance(self) -> tuple[Tensor, Any]:
        """Where its random numbers stand."""
        return self.generator.get_state(), self.rng.bit_generator.state

    def take_chance(self, chance: tuple[Tensor, Any]) -> None:
        """Go on with another process's random numbers."""
        self.generator.set_state(chance[0])
        self.rng.bit_generator.state = chance[1]

    def restore(self, state: State) -> None:
        """Be as `state` says."""
        weights: dict[str, Tensor] = {}
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.tensors.items():
            kind, _, name = key.partition("/")
            if kind == "student":
                weights[name] = tensor
            elif kind == "optimizer":
                number, _, name = name.partition("/")
                values.setdefault(int(number), {})[name] = tensor.clone()
        load_state(self._student, weights)
        self._optimizer.load_state_dict({"state": values, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self._order_N = state.tensors["order"].numpy()
        self.generator.set_state(state.tensors["generator"])
        self.rng.bit_generator.state = state.facts["rng"]
        self.step, self.num_lowered = state.facts["step"], state.facts["num_lowered"]
        self._first_loss, self._losses = state.facts["first_loss"], []


def _paired_blocks(
    student: nn.Module, teacher: nn.Module, images: ImageSet, compute: Compute, channels: ChannelMap
) -> dict[str, str]:
    """Names of the student's blocks and of those of the teacher that they are compared with."""
    if channels.related:
        return {name: name for name in block_names(student)}
    return stage_ends(student, teacher, compute.images(images.images_of(range(1))))


def _fresh_dreams(
    settings: Recovery,
    synthesis: Synthesis | None,
    record: Record | None,
    images: ImageSet,
    compute: Compute,
    seed: int,
    checkpoint: Checkpoint,
    ranks: Ranks,
) -> FreshDreams | AbstractContextManager[None]:
    if settings.refresh is None or synthesis is None:
        return nullcontext()
    folder = checkpoint.folder / "fresh" if checkpoint.folder else None
    if not ranks.is_first:
        folder = ranks.from_first(lambda: folder)
        return FreshDreams(settings.refresh, synthesis, record, images, compute, seed, folder)
    fresh = FreshDreams(settings.refresh, synthesis, record, images, compute, seed, folder)
    ranks.from_first(lambda: fresh.folder)
    return fresh


class _Chosen:
    """The images of one step, of which each process reads those alone that its rows need."""

    def __init__(self, dreams: ImageSet, chosen_N: NDArray[np.int64], fresh: FreshDreams | None) -> None:
        """Fresh images stand in for the first half of the chosen ones, once there are any."""
        self._dreams, self._chosen_N = dreams, chosen_N
        self._fresh_H = fresh.drawn(len(chosen_N) // 2) if fresh else chosen_N[:0]
        self._fresh_images = fresh.images if fresh else dreams

    @property
    def shape_NCHW(self) -> tuple[int, int, int, int]:
        """Of all of them."""
        return len(self._chosen_N), *self._dreams.shape_CHW

    def images_at(self, places_M: Tensor) -> Tensor:
        """Network inputs (M, C, H, W) at these places of the batch, which rise."""
        places = places_M.numpy()
        is_fresh = places < len(self._fresh_H)
        parts = []
        if is_fresh.any():
            parts.append(self._fresh_images.images_of(self._fresh_H[places[is_fresh]]))
        if not is_fresh.all():
            parts.append(self._dreams.images_of(self._chosen_N[places[~is_fresh]]))
        return torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])


def _follow(fresh: FreshDreams, training: _Training, ranks: Ranks) -> None:
    """Have the fresh images that the first process made, and its random numbers, in all of them."""
    if ranks.size == 1:
        return
    state, chance = ranks.from_first(lambda: (fresh.state(), training.chance()))
    if ranks.is_first:
        return
    wait_for_file(lambda: fresh.has(state) or None, f"{fresh.folder}: the fresh images")
    fresh.restore(state)
    training.take_chance(chance)


@contextmanager
def _batch_norms(student: nn.Module, bn: str, num_pieces: int = 1) -> Iterator[None]:
    """BN layers as the settings ask, following the student at PyTorch's usual pace; frozen ones stay as they are.

    A network's own momentum is for its own training: None averages over it all, and 0 never moves.
    """
    layers: list[Any] = [layer for layer in batch_norms_of(student).values() if adapts(layer)]
    own = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = _MOMENTUM / num_pieces
            layer.train(bn == "adapt")
        yield
    finally:
        for layer, momentum in zip(layers, own, strict=True):
            layer.momentum = momentum
            layer.eval()


def kd_loss(student_NK: Tensor, teacher_NK: Tensor, settings: Recovery) -> Tensor:
    """KL(teacher ‖ student) of the softened logits, mean over images, in nats; times T² when the settings say so."""
    t = settings.temperature
    kl = F.kl_div(
        F.log_softmax(student_NK / t, 1),
        F.log_softmax(teacher_NK / t, 1),
        reduction="batchmean",
        log_target=True,
    )
    return kl * t * t if settings.scale_by_temperature_squared else kl


def feature_loss(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    channels: ChannelMap = SAME_CHANNELS,
    share: float = 1.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over blocks of the squared error as a fraction of the teacher's mean square: blocks weigh alike.

    Of a narrower student, the channels that both have are compared; blocks where these are not known are left out. Of
    one of another architecture, all are: it has yet to learn what its channels are for. Of a batch that processes
    share, this is the error on this one's `share` of it, as a fraction of the mean square on all of it.
    """
    errors, squares = [], []
    for name, f_s in student.items():
        f_t = teacher[name].float() if name in teacher else None
        if f_t is not None and channels.related:
            f_t = channels.of_teacher(name, f_t, dim=1)
        if f_t is not None and f_t.shape == f_s.shape:
            errors.append(F.mse_loss(f_s.float(), f_t))
            squares.append(f_t.square().mean())
    if not errors:
        return next(iter(teacher.values())).new_zeros((), dtype=torch.float32)
    square = torch.stack(squares)
    square = ranks.sum(share * square) if ranks.size > 1 else square
    return (torch.stack(errors) / square.clamp_min(1e-6)).mean()


@torch.no_grad()
def border_of(teacher: nn.Module, images: ImageSet, settings: Recovery, compute: Compute) -> Literal["edge", "zero"]:
    """What the teacher is used to see beside a shifted image: `zero` or `edge`, by its batch norm statistics.

    They come from images that were shifted in training in one way or another. Images shifted in a way that is foreign
    to the teacher are far from them, and batch norm that adapts to such images ends up wrong for real ones. `zero`
    unless `edge` is clearly nearer; `edge` for a teacher that has no statistics.
    """
    if not batch_norms_of(teacher):
        return "edge"
    shifts_alone = {"flip": False, "zoom_fraction": 0.0, "cutmix_share": 0.0}
    # They follow the batch of the distillation down where memory does not suffice.
    num_images = min(_BORDER_IMAGES, 4 * settings.batch_size, len(images))
    sample_NCHW = torch.from_numpy(images.images_of(range(num_images)))
    distances = {}
    with tapped(teacher, [Weighted(1.0, BatchNormStatistics(teacher, "relative"))]) as tap:
        for border in ("edge", "zero"):
            shifting = settings.model_copy(update={**shifts_alone, "crop_border": border})
            shifted = augment(sample_NCHW, shifting, torch.Generator().manual_seed(0), np.random.default_rng(0))
            parts = torch.split(shifted, _BORDER_AT_ONCE)
            tap.draw([len(part) for part in parts], None, torch.Generator())
            for number, part in enumerate(parts):  # the last distance is over all
                teacher(compute.images(part))
                distances[border] = float(tap.distance(number))
    return "edge" if distances["edge"] < _CLEARLY_NEARER * distances["zero"] else "zero"


_BORDER_IMAGES = 256
_BORDER_AT_ONCE = 16
_CLEARLY_NEARER = 0.8


def _mask_gradients(student: nn.Module, masks: Mapping[str, Tensor]) -> None:
    # With masked gradients the optimiser's state stays zero there too, so a zero weight never moves.
    for name, mask in masks.items():
        gradient = student.get_parameter(name).grad  # by any of its names
        if gradient is not None:
            gradient.mul_(mask)


def _optimizer(student: nn.Module, settings: Recovery) -> torch.optim.Optimizer:
    parameters = list(student.parameters())
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True
        )
    return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def _rate(step: int, settings: Recovery) -> float:
    """Factor on the learning rate: constant, or a short linear warm-up and a cosine down to zero."""
    if settings.schedule == "constant":
        return 1.0
    warmup = max(1, round(0.03 * settings.num_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.num_steps - warmup)))
