"""The course of a distillation: its loss, and now and then the agreement the student would have if it ended there."""

# ruff: noqa: TID253 - looks at networks in training; only the recovery stage imports it

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from edgerecover.artifacts import CurvePoint, from_json, to_json
from edgerecover.recovery.checkpoints import State

_POINTS = 96
"""Points of the loss, about this many at most."""
LOOKS = 16
"""Points of the agreement, about this many; they cost a few per cent of the shortest distillations."""


class Curve:
    """Collects the points of one distillation. Looking changes nothing: not the weights, not the random numbers."""

    def __init__(self, student: nn.Module, agreement: Callable[[nn.Module], float], num_steps: int) -> None:
        """Watch `student` for `num_steps`; `agreement` is of a network in eval mode with its teacher, 0 to 1."""
        self._student, self._agreement, self._num_steps = student, agreement, num_steps
        self._losses: list[float] = []
        self._points: list[CurvePoint] = []

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        """The points so far."""
        return tuple(self._points)

    def note(self, step: int, loss: float) -> Mapping[str, float]:
        """Record the loss of `step`, counted from 1; returns the agreement where it was measured."""
        self._losses.append(loss)
        looks = self._is_due(step, LOOKS)
        if looks or self._is_due(step, _POINTS):
            agreement = self._look() if looks else None
            self._points.append(CurvePoint(step, sum(self._losses) / len(self._losses), agreement))
            self._losses.clear()
            if agreement is not None:
                return {"agreement": agreement}
        return {}

    def state(self) -> State:
        """The points so far, for a distillation that resumes from a checkpoint."""
        return State({}, {"points": [to_json(point) for point in self._points], "losses": list(self._losses)})

    def restore(self, state: State) -> None:
        """Return to a recorded state, forgetting later points."""
        self._points = [from_json(CurvePoint, point) for point in state.facts["points"]]
        self._losses = list(state.facts["losses"])

    def _is_due(self, step: int, times: int) -> bool:
        return step == self._num_steps or step % max(1, self._num_steps // times) == 0

    def _look(self) -> float:
        with _eval_mode(self._student):
            return self._agreement(self._student)


@contextmanager
def _eval_mode(student: nn.Module) -> Iterator[None]:
    """Puts the student into eval mode; batch norm layers that were in training mode return to it afterwards."""
    following = [module for module in student.modules() if module.training]
    student.eval()
    try:
        yield
    finally:
        for module in following:
            module.training = True
