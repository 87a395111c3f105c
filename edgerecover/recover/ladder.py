"""The recovery stage: a ladder of rungs, each measured on images no rung trains on; the best is handed back."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - works on networks throughout; only the pipeline imports it

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerecover.artifacts import CurvePoint, Descent, Lineage, Rung
from edgerecover.compute import Compute, judged_at_once
from edgerecover.config import Recovery, Synthesis
from edgerecover.distributed import ALONE
from edgerecover.models.build.architectures import load_state
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.prune import apply_masks
from edgerecover.recover.checkpoints import NO_CHECKPOINTS, State
from edgerecover.recover.curve import Curve
from edgerecover.recover.distill import distill
from edgerecover.recover.execution import Execution
from edgerecover.recover.layerwise import fit_layers
from edgerecover.recover.lineage import is_protected, lineage_of
from edgerecover.recover.pair import Pair
from edgerecover.recover.statistics import repair_statistics
from edgerecover.runtime.machine.memory import release_freed_memory
from edgerecover.synthesize.image_set import ImageSet, SyntheticSets
from edgerecover.synthesize.procedural import procedural_images
from edgerecover.synthesize.record.values import Record

Watch = Callable[[str, nn.Module], None]
"""Is told each rung's name and its student."""


@dataclass(frozen=True)
class Recovered:
    """The best student found, and what each rung was worth."""

    student: nn.Module
    """On the CPU, in eval mode, without gradients."""
    rungs: tuple[Rung, ...]
    """In the order climbed; the first is the student as it came. Exactly one is `chosen`."""
    lineage: Lineage | None = None
    """Of the student as it came."""
    warnings: tuple[str, ...] = ()
    """What went wrong on the way and was worked around, for the report."""

    @property
    def handed_back(self) -> bool:
        """Nothing was tried on the student, because others have trained it."""
        own = self.lineage is not None and self.lineage.descent in (Descent.TRAINED, Descent.UNRELATED)
        return own and len(self.rungs) == 1


def recover(
    pair: Pair,
    sets: SyntheticSets,
    settings: Recovery,
    execution: Execution,
    *,
    seed: int,
    synthesis: Synthesis | None = None,
    record: Record | None = None,
    watch: Watch = lambda _name, _student: None,
) -> Recovered:
    """Repair statistics, fit layers, distil, and keep the best of all rungs on the calibration set.

    The student as it came is one of the candidates. A rung is left for a later one only where that agrees on more
    images, or comes nearer to the teacher's logits, than chance would explain; where the two cannot be told apart, the
    earlier one is kept, and a warning says so. So the result is never worse by that measure. For a student that others
    have trained that measure says little: it is handed back as it came, unless it knows no class or
    `settings.fine_tuned` is "recover" (docs/adr/0016).

    Args:
        pair: the student as it came and its teacher; neither is changed.
        sets: train to learn from, calibration to choose by; held back is not touched.
        settings: of the profile.
        execution: the first of its processes alone judges, checkpoints and reports, and its answer counts. A run that
            resumes ends with the student of an uninterrupted one.
        seed: of batch order and augmentation.
        synthesis: how the sets were made, so that distillation can make more images; None leaves those out.
        record: of the teacher's activations, where the sets were made with one.
        watch: called with each rung's name and its student, which it must leave as it is.
    """
    if not execution.ranks.is_first:
        execution = replace(execution, checkpoints=NO_CHECKPOINTS)
    as_it_came, pair = pair.student, pair.copy_to(execution.compute)
    is_guided = bool(batch_norms_of(pair.teacher)) or record is not None
    ladder = (
        _Ladder(pair.teacher, sets.calibration, execution, is_guided, watch)
        if execution.ranks.is_first
        else _Onlooker()
    )
    lineage = lineage_of(pair)
    if settings.fine_tuned == "keep" and execution.ranks.from_first(
        lambda: is_protected(lineage, pair, sets, execution.compute)
    ):
        execution.progress.note("the student was trained by others: it is handed back as it came")
        ladder.judge("as it came (fine-tuned)", pair.student, 0.0)
        return Recovered(copy.deepcopy(as_it_came).cpu().eval().requires_grad_(False), ladder.rungs(), lineage)
    ladder.judge("pruned" if pair.channels.related else "as it came", pair.student, 0.0)
    if settings.repair_statistics and batch_norms_of(pair.student):
        _repair(pair, sets.train, settings, execution, ladder)
    if settings.layerwise and pair.channels.related:
        _fit(pair, sets.train, settings, execution, ladder)
    warnings: tuple[str, ...] = ()
    if settings.num_steps:
        warnings = _distil(pair, sets.train, settings, execution, ladder, seed, synthesis, record)
    best = copy.deepcopy(as_it_came).cpu()
    load_state(best, ladder.best_state)
    apply_masks(best, pair.masks)
    return Recovered(best.eval().requires_grad_(False), ladder.rungs(), lineage, (*warnings, *ladder.doubts()))


def _repair(pair: Pair, images: ImageSet, settings: Recovery, execution: Execution, ladder: _Judge) -> None:
    with _rung("statistics repair", pair.student, ladder, execution) as rung:
        if not rung.is_done:
            # Of several processes, none keeps how far its share got: it is soon made again.
            kept = execution.checkpoints if execution.ranks.size == 1 else NO_CHECKPOINTS
            repair_statistics(pair, images, settings.batch_size, replace(execution, checkpoints=kept))


def _fit(pair: Pair, images: ImageSet, settings: Recovery, execution: Execution, ladder: _Judge) -> None:
    with _rung("layer-wise least squares", pair.student, ladder, execution) as rung:
        if not rung.is_done and execution.ranks.is_first:
            fit_layers(pair, images, settings.batch_size, replace(execution, ranks=ALONE))
        load_state(pair.student, execution.ranks.from_first(lambda: _on_cpu(pair.student)))


def _distil(
    pair: Pair,
    images: ImageSet,
    settings: Recovery,
    execution: Execution,
    ladder: _Judge,
    seed: int,
    synthesis: Synthesis | None,
    record: Record | None,
) -> tuple[str, ...]:
    """The last rung; returns what went wrong on the way."""
    curve = ladder.curve_of(pair.student, settings.num_steps)
    distilled = distill(
        pair, images, settings, execution,
        seed=seed, synthesis=synthesis, record=record,
        carried={"curve": curve} if curve else None, watch=curve.note if curve else None,
    )  # fmt: skip
    # The rungs below still stand; a student that diverged is judged like any other, and loses or not.
    name = "distillation (diverged)" if distilled.diverged else "distillation"
    ladder.judge(name, pair.student, distilled.seconds, curve.points if curve else ())
    return distilled.warnings


@dataclass(frozen=True)
class _RungUnderWay:
    is_done: bool
    """It was climbed before an interruption."""


@contextmanager
def _rung(name: str, student: nn.Module, ladder: _Judge, execution: Execution) -> Iterator[_RungUnderWay]:
    """Judge the student after the block, and keep what it became in it."""
    checkpoint = execution.checkpoints.of(name.replace(" ", "-"))
    done = execution.ranks.from_first(checkpoint.read)
    if done is not None:
        load_state(student, done.tensors)
    yield _RungUnderWay(done is not None)
    seconds = done.facts["seconds"] if done else checkpoint.seconds
    if done is None:
        checkpoint.write(State(student.state_dict(), {"seconds": seconds}))
    ladder.judge(name, student, seconds)
    release_freed_memory()


class _Judge(Protocol):
    """What becomes of each rung's student."""

    best_state: dict[str, Tensor]
    """Weights of the best student so far, on the CPU."""

    def curve_of(self, student: nn.Module, num_steps: int) -> Curve | None: ...

    def judge(self, name: str, candidate: nn.Module, seconds: float, curve: tuple[CurvePoint, ...] = ()) -> None: ...

    def rungs(self) -> tuple[Rung, ...]: ...

    def doubts(self) -> tuple[str, ...]: ...


class _Ladder:
    """Judges candidates on one set and remembers the best one's weights."""

    def __init__(
        self,
        teacher: nn.Module,
        images: ImageSet,
        execution: Execution,
        is_guided: bool,
        watch: Watch = lambda _name, _student: None,
    ) -> None:
        self._images, self._watch = images, watch
        self._compute, self._progress = execution.compute, execution.progress
        self._teacher_logits_NK = logits_on(teacher, images, self._compute)
        # Dreams that no statistics guide can be learnt by heart; images that nothing is learnt from tell.
        self._formulas_NCHW = torch.zeros(0) if is_guided else _formula_images(images)
        self._teacher_on_formulas_N = self._decisions_on_formulas(teacher)
        self._as_it_came_on_formulas_N = torch.zeros(0, dtype=torch.bool)
        self._kept_N = torch.zeros(0, dtype=torch.bool)
        self._kept_kl_N = torch.zeros(0)
        self._not_told_apart: list[str] = []
        """Since the best rung."""
        self._rungs: list[Rung] = []
        self._best = 0
        self.best_state: dict[str, Tensor] = {}

    def curve_of(self, student: nn.Module, num_steps: int) -> Curve | None:
        """An empty curve for a distillation of `student`."""
        return Curve(student, self.agreement, num_steps)

    def agreement(self, candidate: nn.Module) -> float:
        """Top-1 with the teacher, 0 to 1."""
        return float(self._agrees(logits_on(candidate, self._images, self._compute)).float().mean())

    def _agrees(self, logits_NK: Tensor) -> Tensor:
        # A row that is not a number has an argmax too, which may be right by chance: it decides nothing.
        return (logits_NK.argmax(1) == self._teacher_logits_NK.argmax(1)) & logits_NK.isfinite().all(1)

    def judge(self, name: str, candidate: nn.Module, seconds: float, curve: tuple[CurvePoint, ...] = ()) -> None:
        logits_NK = logits_on(candidate, self._images, self._compute)
        agrees_N = self._agrees(logits_NK)
        agreement = float(agrees_N.float().mean())
        log_p, log_q = (F.log_softmax(x, 1) for x in (self._teacher_logits_NK, logits_NK))
        kl_N = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1).nan_to_num(nan=torch.inf)
        kl = float(kl_N.mean())
        self._rungs.append(Rung(name, agreement, min(kl, _LARGEST_KL), seconds, curve=curve))
        self._progress.note(
            f"{name}: {100 * agreement:.1f} % agreement on {len(agrees_N)} calibration images",
            agreement=agreement,
        )
        if len(self._rungs) == 1:
            self._as_it_came_on_formulas_N = self._agrees_on_formulas(candidate)
            step = 1
        else:
            step = _step_up(self._kept_N, agrees_N, self._kept_kl_N, kl_N)
        if step > 0 and not self._falls_on_formulas(candidate):
            self._best = len(self._rungs) - 1
            self._kept_N, self._kept_kl_N = agrees_N, kl_N
            self._not_told_apart = []
            self.best_state = _on_cpu(candidate)
        elif step == 0:
            self._not_told_apart.append(name)
        self._watch(name, candidate)

    def doubts(self) -> tuple[str, ...]:
        """Which later rungs may be as good as the best or better, in a sentence."""
        if not self._not_told_apart:
            return ()
        return (
            f"{self._rungs[self._best].name} is kept: {len(self._kept_N)} calibration images cannot tell it from "
            f"{' and '.join(self._not_told_apart)}; more can (synthesis.num_calibration)",
        )

    def _falls_on_formulas(self, candidate: nn.Module) -> bool:
        """Whether it agrees less than the student as it came, surely, on images that nothing was learnt from."""
        return _standard_errors_won(self._as_it_came_on_formulas_N, self._agrees_on_formulas(candidate)) < -2

    def _agrees_on_formulas(self, candidate: nn.Module) -> Tensor:
        return self._decisions_on_formulas(candidate) == self._teacher_on_formulas_N

    @torch.no_grad()
    def _decisions_on_formulas(self, network: nn.Module) -> Tensor:
        if not len(self._formulas_NCHW):
            return torch.zeros(0, dtype=torch.int64)
        batches = torch.split(self._formulas_NCHW, judged_at_once(self._formulas_NCHW.shape[1:]))
        return torch.cat([network(self._compute.images(batch)).argmax(1).cpu() for batch in batches])

    def rungs(self) -> tuple[Rung, ...]:
        return tuple(replace(rung, chosen=number == self._best) for number, rung in enumerate(self._rungs))


class _Onlooker:
    """Stands in for the ladder in every process but the first, which alone judges."""

    def __init__(self) -> None:
        self.best_state: dict[str, Tensor] = {}

    def curve_of(self, student: nn.Module, num_steps: int) -> Curve | None:
        return None

    def judge(self, name: str, candidate: nn.Module, seconds: float, curve: tuple[CurvePoint, ...] = ()) -> None:
        self.best_state = _on_cpu(candidate)

    def rungs(self) -> tuple[Rung, ...]:
        return ()

    def doubts(self) -> tuple[str, ...]:
        return ()


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _step_up(before_N: Tensor, after_N: Tensor, before_kl_N: Tensor, after_kl_N: Tensor) -> int:
    """1 where a rung is surely above the one before, -1 where it is surely not, 0 where the images cannot tell.

    By the decisions won and lost, and by how much nearer each image's logits came, both in pairs: the distance tells
    of few images what their decisions do not. Where the two contradict each other, nothing is sure.
    """
    won, nearer = _standard_errors_won(before_N, after_N), _standard_errors_below(before_kl_N, after_kl_N)
    rises, falls = max(won, nearer) >= _SURE, min(won, nearer) <= -_SURE or torch.equal(before_kl_N, after_kl_N)
    return int(rises) - int(falls)


def _standard_errors_won(before_N: Tensor, after_N: Tensor) -> float:
    """Images won less those lost, in standard errors of that number; 0 where nothing changed."""
    num_changed = int((before_N != after_N).sum())
    return (int(after_N.sum()) - int(before_N.sum())) / math.sqrt(max(1, num_changed))


def _standard_errors_below(before_N: Tensor, after_N: Tensor) -> float:
    """Mean fall from image to image, in its standard errors; 0 where either is infinite somewhere."""
    fall_N = before_N - after_N
    if not bool(fall_N.isfinite().all()):
        return 0.0
    return float(fall_N.mean() / (fall_N.std() / math.sqrt(len(fall_N))).clamp_min(1e-12))


def _formula_images(like: ImageSet) -> Tensor:
    """Shapes and fractals, half each, of the shape and range of a set; fewer where images are large.

    Not noise: what a network makes of it tells nothing of what it makes of images (docs/adr/0016).
    """
    _, channels, height, width = like.bytes_of([0]).shape
    num_images = min(_MAX_FORMULA_IMAGES, max(32, _MAX_FORMULA_IMAGES * 32 * 32 // (height * width)))
    bounds = (like.scale.low, like.scale.high)
    made = [
        procedural_images(source, num_images, (channels, height, width), bounds, seed=0)
        for source in ("shapes", "fractal")
    ]
    return torch.cat([torch.from_numpy(images_NCHW) for images_NCHW in made])


_SURE = 2.0
"""Standard errors."""
_MAX_FORMULA_IMAGES = 256
"""Of each kind."""
_LARGEST_KL = 1e9
"""Stands for infinity, which JSON cannot hold."""


@torch.no_grad()
def logits_on(network: nn.Module, images: ImageSet, compute: Compute) -> Tensor:
    """Logits (N, K) of all images of a set, float32 on the CPU; computed in float32 whatever the device."""
    return torch.cat([torch.from_numpy(logits_NK) for logits_NK in numpy_logits(network, images, compute)])


def numpy_logits(network: nn.Module, images: ImageSet, compute: Compute) -> Iterator[NDArray[np.float32]]:
    """The same batch by batch, (n, K)."""
    for batch_NCHW in images.batches(judged_at_once(images.shape_CHW)):
        with torch.no_grad():
            yield network(compute.images(batch_NCHW)).float().cpu().numpy()
