"""Boxes with a class each. Shapes: N images, A candidates, K classes, B boxes of a target."""

# ruff: noqa: TID253 - losses over tensors; only synthesis and recovery import it

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgerecover.artifacts import NUM_BOX_VALUES
from edgerecover.tasks.objective.base import Objective
from edgerecover.tasks.objective.labels import divergence

_NUM_TARGETS = 4096
_SEED = 21
_MOST_BOXES = 3
_SIDES = (0.15, 0.6)
"""Of a target's box: geometric mean of width and height, as a fraction of the image's smaller side."""
_LARGEST_ASPECT = 1.6
_MOST_OVERLAP = 0.1
"""IoU of two boxes of a target."""
_NUM_DRAWS = 20
"""For a box that overlaps no other; then there is one fewer."""
_OUT_OF_PLACE = 0.1
"""What a centre that is off by the size of a box takes from an IoU, where the nearest candidate is looked for."""
_CELLS = 4
"""Along a side, of the grid in which margins are read."""
_LEAST_SIDE = 1.0
"""In pixels, of boxes whose errors are told in their sizes."""


class DetectionObjective(Objective):
    """Boxes with a class each, among a network's own candidates. Targets are sets of boxes, as DIODE samples them.

    Chawla et al. 2021, "Data-free Knowledge Distillation for Object Detection" (WACV). DIODE takes the loss that a
    detector was trained with. Here a target's box is matched with the candidate that is nearest to it, which any
    detector has.
    """

    is_positional = True
    can_read_targets = False

    @property
    def num_targets(self) -> int:
        """So many sets of boxes."""
        return _NUM_TARGETS

    def guide(self, outputs_ND: Tensor, targets_N: Tensor | None, temperature: float) -> Tensor:
        """What lacks of a target: its boxes' classes and places at the nearest candidates, and nothing elsewhere.

        Candidates whose centres lie in a box of the target, and are not the nearest to it, are free. Without a target:
        the entropy of the classes, where there are objects.
        """
        boxes_NA4, logits_NAK = self.candidates(outputs_ND)
        if targets_N is None:
            entropy_NAK = F.binary_cross_entropy_with_logits(logits_NAK, logits_NAK.sigmoid(), reduction="none")
            return _mean(entropy_NAK.sum(2), _sureness(logits_NAK)).mean()
        wanted_NB5, is_box_NB = (part.to(outputs_ND.device) for part in self.boxes_of(targets_N))
        labels_NB, wanted_NB4 = wanted_NB5[..., 0].long(), wanted_NB5[..., 1:]
        offset_NBA2 = (boxes_NA4[:, None, :, :2] - wanted_NB4[:, :, None, :2]) / wanted_NB4[:, :, None, 2:]
        with torch.no_grad():
            fit_NBA = _overlaps(wanted_NB4, boxes_NA4) - _OUT_OF_PLACE * offset_NBA2.norm(dim=3)
            nearest_NB = fit_NBA.argmax(2)
            is_free_NA = ((offset_NBA2.abs().amax(3) < 0.5) & is_box_NB[:, :, None]).any(1)
        own_NBK = logits_NAK.gather(1, _repeat(nearest_NB, logits_NAK.shape[2])) / temperature
        own_NB4 = boxes_NA4.gather(1, _repeat(nearest_NB, NUM_BOX_VALUES))
        one_hot_NBK = F.one_hot(labels_NB, logits_NAK.shape[2]).to(own_NBK)
        classes_NB = temperature * F.binary_cross_entropy_with_logits(own_NBK, one_hot_NBK, reduction="none").sum(2)
        found_N = _mean(classes_NB + _errors(own_NB4, wanted_NB4), is_box_NB.to(outputs_ND))
        nothing_NA = temperature * F.softplus(logits_NAK / temperature).sum(2)
        return (found_N + _mean(nothing_NA, _sureness(logits_NAK) * ~is_free_NA)).mean()

    def boxes_of(self, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of class, centre x and y, width and height (N, B, 5), and which of them are boxes (N, B)."""
        height, width = self._input_sides
        num_classes = self.output.num_classes or 1
        boxes_NB5 = np.ones((len(targets_N), _MOST_BOXES, 5), np.float32)
        boxes_NB5[..., 0] = 0
        is_box_NB = np.zeros((len(targets_N), _MOST_BOXES), np.bool_)
        for i, target in enumerate(targets_N.tolist()):
            sampled_b5 = sample_boxes(target, num_classes, height, width)
            boxes_NB5[i, : len(sampled_b5)], is_box_NB[i, : len(sampled_b5)] = sampled_b5, True
        return torch.from_numpy(boxes_NB5), torch.from_numpy(is_box_NB)

    def targets_of(self, outputs_ND: Tensor) -> Tensor | None:
        """None: what a network sees is near to none of so few sets."""
        return None

    def costs(self, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
        """KL(teacher ‖ student) of every class's softened yes or no, in nats, plus the error of the boxes.

        Means over candidates. Each weighs by its highest probability, of the surer network for classes and of the
        teacher for boxes: nearly all candidates are of nothing, and what a student sees there by mistake counts.
        Errors of boxes are in sizes of the teacher's, and divided by T², as the KL nearly is.
        """
        (found_NA4, q_NAK), (boxes_NA4, p_NAK) = self.candidates(student_ND), self.candidates(teacher_ND)
        kl_NA = divergence(q_NAK, p_NAK, temperature).sum(2)
        own_NA = _sureness(p_NAK)
        classes_N = _mean(kl_NA, torch.maximum(own_NA, _sureness(q_NAK)))
        return classes_N + _mean(_errors(found_NA4, boxes_NA4), own_NA) / temperature**2

    def margins(self, outputs_ND: Tensor, reference_ND: Tensor) -> Tensor:
        """The highest logit of every class in every cell of a grid, less the mean of the reference's."""
        floor = reference_ND.min()
        return self._on_grid(outputs_ND, floor) - self._on_grid(reference_ND, floor).mean(0)

    def mirrored(self, outputs_ND: Tensor) -> Tensor:
        """The same candidates, whose boxes are mirrored left to right."""
        boxes_NA4, logits_NAK = self.candidates(outputs_ND)
        centre_x_NA1 = self._input_sides[1] - boxes_NA4[..., :1]
        values_NAV = torch.cat([centre_x_NA1, boxes_NA4[..., 1:], logits_NAK], 2)
        return (values_NAV if self.output.has_candidates_first else values_NAV.transpose(1, 2)).flatten(1)

    def _on_grid(self, outputs_ND: Tensor, floor: Tensor) -> Tensor:
        """Highest logits (N, cells · K); `floor` where no candidate has its centre."""
        boxes_NA4, logits_NAK = self.candidates(outputs_ND)
        sides_2 = torch.tensor(self._input_sides[::-1]).to(outputs_ND)
        column_NA, row_NA = (_CELLS * boxes_NA4[..., :2] / sides_2).long().clamp(0, _CELLS - 1).unbind(2)
        num_images, _, num_classes = logits_NAK.shape
        best = floor.expand(num_images, _CELLS**2, num_classes)
        cell_NAK = _repeat(_CELLS * row_NA + column_NA, num_classes)
        return best.scatter_reduce(1, cell_NAK, logits_NAK, "amax").flatten(1)

    def candidates(self, outputs_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, A, 4) and logits (N, A, K)."""
        values = outputs_ND.reshape(len(outputs_ND), *self.output.shape)
        values_NAV = values if self.output.has_candidates_first else values.transpose(1, 2)
        return values_NAV[..., :NUM_BOX_VALUES], values_NAV[..., NUM_BOX_VALUES:]

    @property
    def _input_sides(self) -> tuple[int, int]:
        if self.output.input_sides is None:
            raise ValueError("the sides of the network's input are not known")
        return self.output.input_sides


@lru_cache(maxsize=4096)
def sample_boxes(
    target: int, num_classes: int, height: int, width: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """One to three boxes float32 (b, 5) inside an image, which hardly overlap; every class has its turn.

    Rows are class, centre x and y, width and height, in pixels.

    Args:
        target: its number; all is drawn from it alone.
        num_classes: K.
        height: of the image.
        width: of the image.
    """
    rng = np.random.default_rng([_SEED, target])
    boxes: list[list[float]] = []
    for number in range(int(rng.integers(1, _MOST_BOXES + 1))):
        label = (target if number == 0 else int(rng.integers(num_classes))) % num_classes
        for _ in range(_NUM_DRAWS):
            size = math.exp(rng.uniform(*np.log(_SIDES))) * min(height, width)
            aspect = _LARGEST_ASPECT ** rng.uniform(-1, 1)
            across, down = min(width, size * aspect**0.5), min(height, size / aspect**0.5)
            x, y = (rng.uniform(side / 2, full - side / 2) for side, full in ((across, width), (down, height)))
            box_4 = torch.tensor([[[x, y, across, down]]])
            others_b4 = torch.tensor([[box[1:] for box in boxes]]).reshape(1, -1, 4)
            if not bool((_overlaps(box_4, others_b4) > _MOST_OVERLAP).any()):
                boxes.append([label, x, y, across, down])
                break
    sampled_b5 = np.array(boxes, np.float32)
    sampled_b5.flags.writeable = False
    return sampled_b5


def _overlaps(a_NB4: Tensor, b_NA4: Tensor) -> Tensor:
    """IoU of all pairs of boxes (N, B, A), given by centres and sides."""
    a_NB14, b_N1A4 = a_NB4[:, :, None], b_NA4[:, None]
    ends = torch.minimum(*(box[..., :2] + box[..., 2:] / 2 for box in (a_NB14, b_N1A4)))
    starts = torch.maximum(*(box[..., :2] - box[..., 2:] / 2 for box in (a_NB14, b_N1A4)))
    shared = (ends - starts).clamp_min(0).prod(3)
    either = a_NB14[..., 2:].prod(3) + b_N1A4[..., 2:].prod(3) - shared
    return torch.where(either > 0, shared / either, torch.zeros_like(shared))


def _errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Of boxes (…, 4), in sizes of those that are wanted."""
    sides = wanted[..., 2:].clamp_min(_LEAST_SIDE).repeat_interleave(2, -1)[..., [0, 2, 1, 3]]
    return F.huber_loss(found / sides, wanted / sides, reduction="none").sum(-1)


def _sureness(logits_NAK: Tensor) -> Tensor:
    """Highest probability of every candidate (N, A), as a weight: no gradient goes through it."""
    return logits_NAK.detach().amax(2).sigmoid()


def _mean(values_NA: Tensor, weights_NA: Tensor) -> Tensor:
    """Weighted, over axis 1."""
    return (values_NA * weights_NA).sum(1) / weights_NA.sum(1).clamp_min(1e-12)


def _repeat(indices: Tensor, times: int) -> Tensor:
    """For `gather` along axis 1, with a last axis of so many numbers."""
    return indices[..., None].expand(-1, -1, times)
