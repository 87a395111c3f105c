"""A student under training: its weights, optimiser and rate, and where it last stood well."""

# ruff: noqa: TID253 - a training step over tensors; only distillation imports it

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgerecover.config import Recovery
from edgerecover.distributed import ALONE, Ranks
from edgerecover.models.build.architectures import load_state
from edgerecover.recovery.checkpoints import Resumable, State, gather, restore
from edgerecover.recovery.execution import Execution

_STATES = 100
"""How many times a distillation records its state, to return to or to resume from."""
_LOWER_RATE = 0.25
"""Factor on the learning rate each time that training steps back."""
_MAX_LOWERED = 4
_WILD = 10.0
"""Losses above this multiple of the first ones are not worth returning to."""


class Training:
    """All of a distillation that changes from step to step, except fresh images."""

    def __init__(self, student: nn.Module, settings: Recovery, num_images: int, seed: int) -> None:
        """Every floating-point parameter of the student is trained; some parameters hold indices."""
        for parameter in student.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self.step = 0
        self.num_steps = settings.num_steps
        self.batch_size = min(settings.batch_size, num_images)
        self.num_lowered = 0
        """How many times the rate was lowered."""
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self._student, self._settings = student, settings
        self._optimizer = _optimizer(student, settings)
        self._num_images = num_images
        self._order_N = np.zeros(0, np.int64)
        """Indices of the images that this epoch has not shown yet."""
        self._losses: list[float] = []
        """Of the steps since the last state was recorded."""
        self._first_loss: float | None = None

    def next_batch(self) -> NDArray[np.int64]:
        """Indices of images: every image comes before any repeats, except the remainder of each epoch."""
        if len(self._order_N) < self.batch_size:
            self._order_N = self.rng.permutation(self._num_images)
        chosen, self._order_N = self._order_N[: self.batch_size], self._order_N[self.batch_size :]
        return chosen

    def learn(self, losses: Iterable[Tensor], masks: Mapping[str, Tensor], ranks: Ranks = ALONE) -> float:
        """Take one step on the sum of these losses over all processes; returns that sum."""
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
        """What is no longer a number, in words, or None. Weights are examined only when a state is due."""
        if self._losses and not math.isfinite(self._losses[-1]):
            return f"the loss was {self._losses[-1]}"
        if self.is_state_due() and not all(
            bool(tensor.isfinite().all())
            for tensor in self._student.state_dict().values()
            if tensor.is_floating_point()
        ):
            return "a weight was NaN or infinite"
        return None

    def is_sound(self) -> bool:
        """Whether the losses since the last state are low enough to continue from."""
        if not self._losses:
            return True
        mean = sum(self._losses) / len(self._losses)
        self._losses = []
        self._first_loss = mean if self._first_loss is None else self._first_loss
        return mean <= _WILD * self._first_loss

    def is_state_due(self) -> bool:
        """Every so many steps, which depends on the settings alone, and at the end."""
        return self.step % max(1, self.num_steps // _STATES) == 0 or self.step == self.num_steps

    def state(self) -> State:
        """Weights, optimiser, random numbers and order of images."""
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

    def random_state(self) -> tuple[Tensor, Any]:
        """The state of both random number generators."""
        return self.generator.get_state(), self.rng.bit_generator.state

    def set_random_state(self, state: tuple[Tensor, Any]) -> None:
        """Continue with another process's random numbers."""
        self.generator.set_state(state[0])
        self.rng.bit_generator.state = state[1]

    def restore(self, state: State) -> None:
        """Return to a recorded state."""
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


class Safeguard:
    """Runs a training, and takes it back to where it last stood well when its loss or a weight stops being a number."""

    def __init__(self, training: Training, parts: Mapping[str, Resumable], execution: Execution) -> None:
        """Guard `parts`, of which `training` is one, from where they stand now."""
        self._training, self._parts = training, parts
        self._progress, self._ranks = execution.progress, execution.ranks
        self._checkpoint = execution.checkpoints.of("distillation")
        self._good = self._unproven = gather(parts)
        self.has_given_up = False
        """No lower rate helped."""
        self.warnings: list[str] = []

    @property
    def seconds(self) -> float:
        """Duration so far, including what an interrupted run had done."""
        return self._checkpoint.seconds

    def resume(self, fits: Callable[[State], bool]) -> None:
        """Continue from the newest checkpoint that `fits`, if there is one."""
        reached = self._ranks.from_first(lambda: self._checkpoint.read(fits))
        if reached is None:
            return
        restore(self._parts, reached)
        self._good = self._unproven = reached
        self._progress.note(f"resuming distillation after step {self._training.step:,} of {self._training.num_steps:,}")

    def run(
        self, take_step: Callable[[], float], watch: Callable[[int, float], Mapping[str, float]] | None, title: str
    ) -> None:
        """Take steps, each of which returns its loss, until all are taken or no lower rate helps.

        `watch` is called with every step, counted from 1, and its loss; it returns further numbers to show.
        """
        training = self._training
        with (
            self._progress.task(title, training.num_steps - training.step, "steps") as task,
            self._checkpoint.write_on_interrupt(lambda: self._good),
        ):
            while self._check():
                loss = take_step()
                task.advance(1, loss=loss, **(watch(training.step, loss) if watch else {}))

    def _check(self) -> bool:
        """Record a sound state, or return from a broken one to the last good one; whether another step is to follow."""
        training = self._training
        problem = training.problem()
        if problem is not None:
            self._step_back(problem)
        elif training.is_state_due():
            # Whether a step was too large shows in the losses after it: they prove the state before last.
            is_sound = training.is_sound()
            self._good, self._unproven = (self._unproven, gather(self._parts)) if is_sound else (self._good, self._good)
            if self._checkpoint.is_due():
                self._checkpoint.write(self._good)
        return not self.has_given_up and training.step < training.num_steps

    def _step_back(self, problem: str) -> None:
        broken_at, num_lowered = self._training.step, self._training.num_lowered + 1
        restore(self._parts, self._good)
        self._unproven = self._good
        self.has_given_up = num_lowered > _MAX_LOWERED
        then = "stopped there" if self.has_given_up else f"continued at {_LOWER_RATE:g} of the learning rate"
        self.warnings.append(
            f"distillation: {problem} after step {broken_at:,}; went back to step {self._training.step:,} and {then}"
        )
        self._progress.note(self.warnings[-1])
        self._training.num_lowered = num_lowered


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
