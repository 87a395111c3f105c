"""Several outputs, each with an objective of its own. Shapes: N images, D numbers for each."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from edgerecover.artifacts import OutputSpec
from edgerecover.tasks.objective.base import Objective

_MOST_TARGETS = 2**20
"""Of all outputs together: dreams ask for far fewer."""


class SeveralObjective(Objective):
    """Weighted means over outputs: two heads teach no louder than one. A target is one of each output that has some."""

    def __init__(self, output: OutputSpec, objective_of: Callable[[OutputSpec], Objective]) -> None:
        super().__init__(output)
        self._parts = tuple((columns, objective_of(part.output)) for part, columns in output.columns)
        total = sum(part.weight for part in output.parts)
        self._weights = tuple(part.weight / total for part in output.parts)
        sizes = [objective.num_targets for _, objective in self._parts]
        # Most targets first, see `split_targets`; those beyond the limit follow the first ones.
        self._order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: -sizes[i])
        self._sizes, self._total = sizes, 1
        self._num_free = 0
        for i in self._order:
            if self._total * sizes[i] > _MOST_TARGETS:
                break
            self._total, self._num_free = self._total * sizes[i], self._num_free + 1
        self.is_positional = any(objective.is_positional for _, objective in self._parts)
        self.can_read_targets = self._num_free == len(self._order) and all(
            self._parts[i][1].can_read_targets for i in self._order
        )

    @property
    def num_targets(self) -> int:
        """Combinations of the outputs' targets; 0 where none has any."""
        return self._total if self._order else 0

    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """Weighted mean over outputs; those without targets get none."""
        targets = {} if targets_N is None else self.split_targets(targets_N)
        return self._mean(
            objective.guide(outputs_ND[:, columns], targets.get(i), temperature)
            for i, (columns, objective) in enumerate(self._parts)
        )

    def split_targets(self, targets_N: Tensor) -> dict[int, Tensor]:
        """Targets (N,) of each output that has some, by its place.

        As many targets in a row as an output has hold each of its own: that of the output with most counts up, and
        those of others go along with it, one further on each time round.
        """
        chosen: dict[int, Tensor] = {}
        rest_N = targets_N
        for place, i in enumerate(self._order):
            size = self._sizes[i]
            if not place:
                chosen[i], rest_N = targets_N % size, targets_N // size
                continue
            first_N = chosen[self._order[0]]
            chosen[i], rest_N = (rest_N + first_N) % size, rest_N // size
        return chosen

    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """The combination of the outputs' own; None where one cannot tell its own."""
        if not self.can_read_targets or not self._order:
            return None
        first_N: Tensor | None = None
        target_N, step = torch.zeros(len(outputs_ND), dtype=torch.int64, device=outputs_ND.device), 1
        for i in self._order:
            columns, objective = self._parts[i]
            own_N = objective.targets_of(outputs_ND[:, columns])
            if own_N is None:
                return None
            first_N, counted_N = (own_N, own_N) if first_N is None else (first_N, (own_N - first_N) % self._sizes[i])
            target_N, step = target_N + step * counted_N, step * self._sizes[i]
        return target_N

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """Weighted mean over outputs."""
        return self._mean(
            objective.costs(student_ND[:, columns], teacher_ND[:, columns], temperature)
            for columns, objective in self._parts
        )

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """Those of all outputs, side by side."""
        return torch.cat(
            [objective.margins(outputs_ND[:, columns], reference_ND[:, columns]) for columns, objective in self._parts],
            1,
        )

    def mirrored(self, outputs_ND: Tensor) -> Tensor:
        """Each output for the mirrored image."""
        return torch.cat([objective.mirrored(outputs_ND[:, columns]) for columns, objective in self._parts], 1)

    def _mean(self, of_parts: Iterable[Tensor]) -> Tensor:
        weighted = [weight * value for weight, value in zip(self._weights, of_parts, strict=True)]
        return torch.stack(weighted).sum(0)
