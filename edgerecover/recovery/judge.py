"""Which rung's student is best: judged on images that no rung trains on, and only by differences beyond chance."""

# Shapes: N images, C channels, H height, W width, D outputs for each.
# ruff: noqa: TID253 - works on networks throughout; only the recovery stage imports it

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgerecover.artifacts import CurvePoint, Rung
from edgerecover.compute import judged_at_once
from edgerecover.recovery.curve import Curve
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.logits import numpy_logits
from edgerecover.recovery.pair import Pair
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.procedural import procedural_images
from edgerecover.tasks.measure import Outputs, collect

Watch = Callable[[str, nn.Module], None]
"""Called with each rung's name and its student."""
_SIGNIFICANT = 2.0
"""Standard errors that make a difference significant."""
_MAX_FORMULA_IMAGES = 256
"""Images of each kind at most."""
_LARGEST_DISTANCE = 1e9
"""Stands in for infinity, which JSON cannot hold."""


class Judge(Protocol):
    """Judges each rung's student and remembers the best one."""

    best_state: dict[str, Tensor]
    """Weights of the best student so far, on the CPU."""

    def consider(self, name: str, candidate: nn.Module, seconds: float, curve: tuple[CurvePoint, ...] = ()) -> None:
        """Judge the student that a rung ended with."""

    def curve_of(self, student: nn.Module, num_steps: int) -> Curve | None:
        """An empty curve for a distillation of `student`; None where nobody looks."""

    def rungs(self) -> tuple[Rung, ...]:
        """In the order considered; exactly one is `chosen`."""

    def doubts(self) -> tuple[str, ...]:
        """In a sentence, which later rungs may be as good as the best or better."""


class CalibrationJudge:
    """Judges by agreement with the teacher on images that no rung trains on.

    A later rung replaces the best one only where it agrees on more images, or comes nearer to the teacher's logits,
    than chance would explain.
    """

    def __init__(
        self,
        pair: Pair,
        images: ImageSet,
        execution: Execution,
        is_guided: bool,
        watch: Watch = lambda _name, _student: None,
    ) -> None:
        """Judge students of `pair` on `images`.

        `is_guided` says that statistics of real data guided the images; `watch` gets every student.
        """
        teacher, self._measure = pair.teacher, pair.measure
        self._images, self._watch = images, watch
        self._compute, self._progress = execution.compute, execution.progress
        self._teacher = self._outputs(teacher)
        # Dreams that no statistics guide can be memorised; images that nothing is learnt from reveal it.
        self._formulas_NCHW = torch.zeros(0) if is_guided else _formula_images(images)
        self._teacher_on_formulas = self._answers_on_formulas(teacher)
        self._first_on_formulas_N = torch.zeros(0)
        self._kept_N = torch.zeros(0)
        self._kept_distance_N = torch.zeros(0)
        self._equals: list[str] = []
        """Later rungs that the images cannot tell from the best one."""
        self._rungs: list[Rung] = []
        self._best = 0
        self.best_state: dict[str, Tensor] = {}

    def curve_of(self, student: nn.Module, num_steps: int) -> Curve | None:
        """An empty curve for a distillation of `student`."""
        return Curve(student, self.agreement, num_steps)

    def agreement(self, candidate: nn.Module) -> float:
        """With the teacher, 0 to 1."""
        return float(self._shares(self._outputs(candidate)).mean())

    def _outputs(self, network: nn.Module) -> Outputs:
        batches = numpy_logits(network, self._images, self._compute)
        return collect(batches, len(self._images), self._measure)

    def _shares(self, found: Outputs) -> Tensor:
        """How far each image's answer is the teacher's, 0 to 1; one that is infinite somewhere shares nothing."""
        shares_N = self._measure.share(found.answers, self._teacher.answers)
        return torch.from_numpy(shares_N) * torch.from_numpy(found.is_finite)

    def consider(self, name: str, candidate: nn.Module, seconds: float, curve: tuple[CurvePoint, ...] = ()) -> None:
        """Judge the student that a rung ended with; it becomes the best if it is significantly better."""
        found = self._outputs(candidate)
        shares_N = self._shares(found)
        agreement = float(shares_N.mean())
        distance_N = torch.from_numpy(self._measure.distance(self._teacher.scores, found.scores))
        distance = float(distance_N.mean())
        self._rungs.append(Rung(name, agreement, min(distance, _LARGEST_DISTANCE), seconds, curve=curve))
        self._progress.note(
            f"{name}: {100 * agreement:.1f} % {self._measure.words.name} on {len(shares_N)} calibration images",
            agreement=agreement,
        )
        if len(self._rungs) == 1:
            self._first_on_formulas_N = self._agrees_on_formulas(candidate)
            step = 1
        else:
            step = _step_up(self._kept_N, shares_N, self._kept_distance_N, distance_N)
        if step > 0 and not self._falls_on_formulas(candidate):
            self._best = len(self._rungs) - 1
            self._kept_N, self._kept_distance_N = shares_N, distance_N
            self._equals = []
            self.best_state = state_on_cpu(candidate)
        elif step == 0:
            self._equals.append(name)
        self._watch(name, candidate)

    def doubts(self) -> tuple[str, ...]:
        """In a sentence, which later rungs may be as good as the best or better; nothing where none may."""
        if not self._equals:
            return ()
        return (
            f"{self._rungs[self._best].name} is kept: {len(self._kept_N)} calibration images cannot tell it from "
            f"{' and '.join(self._equals)}; more images could (synthesis.num_calibration)",
        )

    def _falls_on_formulas(self, candidate: nn.Module) -> bool:
        """Whether it agrees significantly less than the original student, on images that nothing was learnt from."""
        return _standard_errors_won(self._first_on_formulas_N, self._agrees_on_formulas(candidate)) < -2

    def _agrees_on_formulas(self, candidate: nn.Module) -> Tensor:
        if self._teacher_on_formulas is None:
            return torch.zeros(0)
        return torch.from_numpy(self._measure.share(self._answers_on_formulas(candidate), self._teacher_on_formulas))

    @torch.no_grad()
    def _answers_on_formulas(self, network: nn.Module) -> Any:
        """Answers for each image; None where there are no such images."""
        if not len(self._formulas_NCHW):
            return None
        batches = torch.split(self._formulas_NCHW, judged_at_once(self._formulas_NCHW.shape[1:]))
        outputs = (network(self._compute.images(batch)).float().cpu().numpy() for batch in batches)
        return collect(outputs, len(self._formulas_NCHW), self._measure).answers

    def rungs(self) -> tuple[Rung, ...]:
        """In the order considered; exactly one is `chosen`."""
        return tuple(replace(rung, chosen=number == self._best) for number, rung in enumerate(self._rungs))


class Onlooker:
    """The judge of every process but the first, whose own judge decides for all of them."""

    def __init__(self) -> None:
        """Remember the last student."""
        self.best_state: dict[str, Tensor] = {}

    def curve_of(self, student: nn.Module, num_steps: int) -> Curve | None:
        """None: the first process alone looks."""
        return None

    def consider(self, name: str, candidate: nn.Module, seconds: float, curve: tuple[CurvePoint, ...] = ()) -> None:
        """Remember this student."""
        self.best_state = state_on_cpu(candidate)

    def rungs(self) -> tuple[Rung, ...]:
        """Empty: the first process has them."""
        return ()

    def doubts(self) -> tuple[str, ...]:
        """Empty: the first process has them."""
        return ()


def state_on_cpu(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's state, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _step_up(before_N: Tensor, after_N: Tensor, before_distance_N: Tensor, after_distance_N: Tensor) -> int:
    """1 where a rung is significantly better than the best so far, -1 where it is not, 0 where the images cannot tell.

    Judged by the agreement won and lost, and by how much nearer each image's outputs came, both in pairs: with few
    images the distance shows what answers do not. Where the two contradict each other, the result is 0.
    """
    won, nearer = _standard_errors_won(before_N, after_N), _standard_errors_below(before_distance_N, after_distance_N)
    rises, falls = (
        max(won, nearer) >= _SIGNIFICANT,
        min(won, nearer) <= -_SIGNIFICANT or torch.equal(before_distance_N, after_distance_N),
    )
    return int(rises) - int(falls)


def _standard_errors_won(before_N: Tensor, after_N: Tensor) -> float:
    """Agreement won minus agreement lost, in standard errors of that number; 0 where nothing changed.

    For answers that are right or wrong, the squares below are the number of images that changed.
    """
    change_N = after_N.double() - before_N.double()
    squares = float(change_N.square().sum())
    return float(change_N.sum()) / math.sqrt(squares) if squares else 0.0


def _standard_errors_below(before_N: Tensor, after_N: Tensor) -> float:
    """Mean decrease per image, in its standard errors; 0 where either is infinite somewhere."""
    fall_N = before_N - after_N
    if not bool(fall_N.isfinite().all()):
        return 0.0
    return float(fall_N.mean() / (fall_N.std() / math.sqrt(len(fall_N))).clamp_min(1e-12))


def _formula_images(like: ImageSet) -> Tensor:
    """Shapes and fractals, half each, in the shape and range of a set's images; fewer where these are large.

    Noise would not do: how a network sees it says nothing of how it sees images (docs/adr/0016).
    """
    _, channels, height, width = like.bytes_of([0]).shape
    num_images = min(_MAX_FORMULA_IMAGES, max(32, _MAX_FORMULA_IMAGES * 32 * 32 // (height * width)))
    bounds = (like.scale.low, like.scale.high)
    made = [
        procedural_images(source, num_images, (channels, height, width), bounds, seed=0)
        for source in ("shapes", "fractal")
    ]
    return torch.cat([torch.from_numpy(images_NCHW) for images_NCHW in made])
