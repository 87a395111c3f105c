"""One of K classes for every pixel. Shapes: N images, K classes, H height, W width, P = H · W pixels."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.tasks.objective.base import Objective

_NUM_TARGETS = 4096
_SEED = 20
_MOST_SHAPES = 4
_LEAST_HALF_PIXELS = 0.75
"""So that a shape has a pixel, wherever its centre lies."""
_SIDES = (0.15, 0.6)
"""Of a shape, smallest and largest, as fractions of the map's."""


class SegmentationObjective(Objective):
    """One of K classes for every pixel. Targets are maps of shapes: of one map of scores, for yes or no."""

    is_positional = True
    can_read_targets = False

    @property
    def num_targets(self) -> int:
        """So many maps of shapes."""
        return _NUM_TARGETS

    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """Cross entropy to the target map; without one, the entropy of the classes. Mean over pixels."""
        logits_NKP = self._logits(outputs_ND)
        if targets_N is not None:
            maps_NP = self.maps_of(targets_N).to(outputs_ND.device)
            return temperature * F.cross_entropy(logits_NKP / temperature, maps_NP)
        log_p = F.log_softmax(logits_NKP, dim=1)
        return -(log_p.exp() * log_p).sum(1).mean()

    def maps_of(self, targets_N: Tensor) -> Tensor:
        """Classes int64 (N, P): rectangles and ellipses on class 0, the same for the same target."""
        num_classes, height, width = self.output.shape
        maps = [map_of_shapes(target, max(2, num_classes), height, width) for target in targets_N.tolist()]
        return torch.from_numpy(np.stack(maps)).long().flatten(1)

    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """None: what a network sees is near to none of so few maps."""
        return None

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """KL(teacher ‖ student) of the softened logits, in nats, mean over pixels."""
        log_q, log_p = (F.log_softmax(self._logits(x) / temperature, 1) for x in (student_ND, teacher_ND))
        return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1).mean(1)

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """At every pixel (N, P), the logit of the class that the reference chooses, minus the mean of the others."""
        logits_NKP = self._logits(outputs_ND)
        chosen_NP = logits_NKP.gather(1, self._logits(reference_ND).argmax(1, keepdim=True)).squeeze(1)
        return chosen_NP - (logits_NKP.sum(1) - chosen_NP) / (logits_NKP.shape[1] - 1)

    def mirrored(self, outputs_ND: Tensor) -> Tensor:
        """The same maps, mirrored left to right."""
        return outputs_ND.reshape(-1, *self.output.shape).flip(3).flatten(1)

    def _logits(self, outputs_ND: Tensor) -> Tensor:
        """Of at least two classes, (N, K, P): class 0 has a logit of 0 where there is one map."""
        logits_NKP = outputs_ND.reshape(len(outputs_ND), self.output.shape[0], -1)
        return torch.cat([torch.zeros_like(logits_NKP), logits_NKP], 1) if logits_NKP.shape[1] == 1 else logits_NKP


@lru_cache(maxsize=512)
def map_of_shapes(
    target: int, num_classes: int, height: int, width: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """Classes int16 (H, W): one to four rectangles and ellipses on class 0; every class but that has its turn.

    Args:
        target: its number; every drawing is made from it alone.
        num_classes: K, at least 2.
        height: H.
        width: W.
    """
    rng = np.random.default_rng([_SEED, target])
    map_HW = np.zeros((height, width), np.int16)
    y_H1, x_1W = np.ogrid[:height, :width]
    num_shapes = int(rng.integers(1, _MOST_SHAPES + 1))
    for number in reversed(range(num_shapes)):  # the first lies on top: its class is seen
        label = 1 + (target if number == 0 else int(rng.integers(num_classes))) % (num_classes - 1)
        half_height, half_width = np.maximum(rng.uniform(*_SIDES, 2) / 2 * (height, width), _LEAST_HALF_PIXELS)
        y, x = rng.uniform(0, 1, 2) * (height, width)
        down, across = np.abs(y_H1 + 0.5 - y) / half_height, np.abs(x_1W + 0.5 - x) / half_width
        is_ellipse = rng.random() < 0.5
        map_HW[(down**2 + across**2 <= 1) if is_ellipse else (np.maximum(down, across) <= 1)] = label
    map_HW.flags.writeable = False
    return map_HW
