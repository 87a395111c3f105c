"""A small detector of shapes for benchmarks/tasks.py, and its images with exact boxes; copied beside its checkpoint.

Shapes: N images, H height, W width, M boxes, K classes, A candidates.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, STRIDE, NUM_CLASSES, MOST_BOXES = 64, 8, 3, 3
_CELLS = SIDE // STRIDE
_USUAL_BOX = 24.0
"""In pixels: what a side is where the network says nothing."""
_BOX_SCALE = 0.125
"""So that weights of boxes are as large as others: pruning compares them all, and else leaves widths none."""
_SEEDS = {"train": 0, "test": 1}
_BOX_WEIGHT = 2.0


# --- the network ----------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Two convolutions and a shortcut; the first one halves height and width."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_outputs)
        self.shortcut = nn.Sequential(nn.Conv2d(num_inputs, num_outputs, 1, 2, bias=False), nn.BatchNorm2d(num_outputs))

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        within = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps_NCHW)))))
        return F.relu(within + self.shortcut(maps_NCHW))


class Detector(nn.Module):
    """One candidate for each cell of 8 × 8 pixels. Input (N, 3, 64, 64); output (N, 4 + K, A), as YOLO gives them.

    Centre x and y, width and height in pixels, then a sigmoid for each class. `raw` gives what comes before these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16, 32), Block(32, 64))
        self.neck = nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.boxes = nn.Conv2d(64, 4, 1)
        self.classes = nn.Conv2d(64, NUM_CLASSES, 1)
        nn.init.constant_(self.classes.bias, -4.0)  # type: ignore[arg-type]
        y, x = torch.meshgrid(torch.arange(_CELLS), torch.arange(_CELLS), indexing="ij")
        self.register_buffer("corner_12A", torch.stack([x, y]).flatten(1)[None].float(), persistent=False)

    def raw(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4, A) in pixels and logits (N, K, A)."""
        maps = self.neck(self.blocks(self.stem(images_NCHW)))
        values_N4A = _BOX_SCALE * self.boxes(maps).flatten(2)
        centre_N2A = (self.corner_12A + 2 * values_N4A[:, :2].sigmoid() - 0.5) * STRIDE
        sides_N2A = _USUAL_BOX * (2 * values_N4A[:, 2:].sigmoid()) ** 2
        return torch.cat([centre_N2A, sides_N2A], 1), self.classes(maps).flatten(2)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        boxes_N4A, logits_NKA = self.raw(images_NCHW)
        return torch.cat([boxes_N4A, logits_NKA.sigmoid()], 1)


def detection() -> Detector:
    return Detector()


# --- images with boxes ------------------------------------------------------------------------------------------


def boxed_shapes(num: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """One to three discs (0), squares (1) and triangles (2), turned by any angle, on surfaces with a grain.

    Returns:
        Images uint8 (N, H, W, 3), and boxes float32 (N, M, 5) of class, left, top, right, bottom; -1 where there is
        none. A shape that would cover another is not drawn.
    """
    random = np.random.default_rng((4, _SEEDS[split]))
    images_NHW3 = np.empty((num, SIDE, SIDE, 3), np.uint8)
    boxes_NM5 = np.full((num, MOST_BOXES, 5), -1, np.float32)
    for image_HW3, boxes_M5 in zip(images_NHW3, boxes_NM5, strict=True):
        shades_HW3 = _surface(random)
        taken_HW = np.zeros((SIDE, SIDE), np.bool_)
        for number in range(random.integers(1, MOST_BOXES + 1)):
            kind, inside_HW = _shape(random)
            if (inside_HW & taken_HW).any():
                continue
            taken_HW |= inside_HW
            (rows,), (columns,) = np.nonzero(inside_HW.any(1)), np.nonzero(inside_HW.any(0))
            boxes_M5[number] = kind, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            shades_HW3[inside_HW] = random.uniform(0.05, 0.95, 3) + 0.25 * (shades_HW3[inside_HW] - 0.5)
        shades_HW3 += random.normal(0, 0.02, shades_HW3.shape)
        image_HW3[:] = np.clip(np.rint(255 * shades_HW3), 0, 255)
    return images_NHW3, boxes_NM5


def _surface(random: np.random.Generator) -> np.ndarray:
    x, y = np.arange(SIDE)[None, :, None], np.arange(SIDE)[:, None, None]
    shades = random.uniform(0.35, 0.65, 3) + random.normal(0, 0.03, (SIDE, SIDE, 3))
    for _ in range(3):
        angle, phase = random.uniform(0, 2 * np.pi, (2, 3))
        length = SIDE * 2.0 ** random.uniform(-3, 0.5, 3)
        across = x * np.cos(angle) + y * np.sin(angle)
        shades += random.uniform(0, 0.08, 3) * np.sin(2 * np.pi * across / length + phase)
    return shades


def _shape(random: np.random.Generator) -> tuple[int, np.ndarray]:
    """Kind and inside (H, W); all of it is inside the image."""
    kind, radius, angle = int(random.integers(NUM_CLASSES)), random.uniform(7, 16), random.uniform(0, 2 * np.pi)
    middle_x, middle_y = random.uniform(radius, SIDE - radius, 2)
    x, y = np.arange(SIDE)[None, :] + 0.5 - middle_x, np.arange(SIDE)[:, None] + 0.5 - middle_y
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        return kind, along**2 + across**2 <= radius**2
    if kind == 1:
        return kind, np.maximum(np.abs(along), np.abs(across)) <= radius / np.sqrt(2)
    corners = np.arange(3) * 2 * np.pi / 3
    return kind, np.all([along * np.cos(a) + across * np.sin(a) <= radius / 2 for a in corners], axis=0)


# --- training ---------------------------------------------------------------------------------------------------


def loss_of(raw: tuple[Tensor, Tensor], truth_NM5: Tensor) -> Tensor:
    """The candidate of the cell that holds a box's centre is to be that box, and all others nothing."""
    boxes_N4A, logits_NKA = raw
    image, row = (truth_NM5[..., 0] >= 0).nonzero(as_tuple=True)
    label, left, top, right, bottom = truth_NM5[image, row].unbind(1)
    wanted_b4 = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 1)
    column, line = (wanted_b4[:, :2] / STRIDE).long().unbind(1)
    cell = _CELLS * line + column
    is_there_NKA = torch.zeros_like(logits_NKA)
    is_there_NKA[image, label.long(), cell] = 1
    classes = F.binary_cross_entropy_with_logits(logits_NKA, is_there_NKA, reduction="sum")
    sides_b4 = wanted_b4[:, 2:].repeat(1, 2)
    errors = F.smooth_l1_loss(boxes_N4A[image, :, cell] / sides_b4, wanted_b4 / sides_b4, beta=0.1, reduction="sum")
    return (classes + _BOX_WEIGHT * errors) / len(image)
