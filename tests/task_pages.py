"""What the pages of docs/how-to about other tasks take for granted: networks, and real images with truth.

The networks have the weights of the demo's classifier of digits, and are asked otherwise.
"""

from pathlib import Path
from shutil import copy

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from edgerecover.demo.network import DigitsNet

LABELS = ((0, 6, 8, 9), (0, 2, 4, 6, 8), (0, 1, 2, 3, 4))
"""Digits that are round, even, small."""


def log_odds(logits_NK, digits):
    others = [digit for digit in range(10) if digit not in digits]
    return logits_NK[:, list(digits)].logsumexp(1) - logits_NK[:, others].logsumexp(1)


class Cells(DigitsNet):
    def cells(self, images_NCHW):
        """Scores of each class (N, H, W, K), for every cell of the last maps."""
        return self.fc(self.block2(self.block1(self.stem(images_NCHW))).permute(0, 2, 3, 1))


class Defects(DigitsNet):
    def forward(self, images_NCHW):
        return log_odds(super().forward(images_NCHW), (5, 6, 7, 8, 9))


class Tags(DigitsNet):
    def forward(self, images_NCHW):
        logits_NK = super().forward(images_NCHW)
        return torch.stack([log_odds(logits_NK, digits) for digits in LABELS], 1)


class Gauge(DigitsNet):
    def forward(self, images_NCHW):
        return super().forward(images_NCHW).softmax(1) @ torch.arange(10.0)[:, None]


class Card(DigitsNet):
    def forward(self, images_NCHW):
        logits_NK = super().forward(images_NCHW)
        bar = logits_NK.softmax(1) @ torch.arange(10.0)[:, None]
        return {
            "digit": logits_NK,
            "even": log_odds(logits_NK, (0, 2, 4, 6, 8)),
            "bar": bar,
            "top": logits_NK.argmax(1),
        }


class Street(Cells):
    def forward(self, images_NCHW):
        return interpolate(self.cells(images_NCHW).permute(0, 3, 1, 2), scale_factor=2, mode="bilinear")


class Parts(Cells):
    def __init__(self):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        boxes_A4 = torch.stack([2 * x + 1, 2 * y + 1, 0 * x + 4, 0 * x + 4], 2).flatten(0, 1)
        self.register_buffer("boxes_A4", boxes_A4, persistent=False)

    def forward(self, images_NCHW):
        scores_NAK = self.cells(images_NCHW).flatten(1, 2)
        return torch.cat([self.boxes_A4.expand(len(scores_NAK), -1, -1), scores_NAK], 2)


def write_row(header, values, path):
    table = path.parent / "labels.csv"
    with table.open("a") as file:
        file.write("" if file.tell() else f"file,{header}\n")
        file.write(f"{path.name},{values}\n")


def write_tags(digit, path):
    write_row("round,even,small", ",".join(str(int(digit in digits)) for digits in LABELS), path)


def write_value(digit, path):
    write_row("bar", digit, path)


def write_mask(digit, path):
    mask = path.parents[1] / "masks" / path.name
    mask.parent.mkdir(exist_ok=True)
    Image.open(path).convert("L").point(lambda shade: digit if shade > 127 else 255).save(mask)


def write_boxes(digit, path):
    boxes = path.parents[1] / "labels" / f"{path.stem}.txt"
    boxes.parent.mkdir(exist_ok=True)
    boxes.write_text(f"{digit} 0.5 0.5 0.8 0.9\n")


SEVERAL = "recover-a-network-with-several-outputs.md"
PAGES = {
    "recover-a-yes-or-no-network.md": (lambda digit: "scratched" if digit > 4 else "intact", None),
    "recover-a-multi-label-network.md": (lambda digit: ".", write_tags),
    "recover-an-embedding-network.md": (str, None),
    "recover-a-regression-network.md": (lambda digit: ".", write_value),
    "recover-a-segmentation-network.md": (lambda digit: "images", write_mask),
    "recover-a-detector.md": (lambda digit: "images", write_boxes),
    SEVERAL: (None, None),
}
"""The folder of an image in real/, and what writes its truth, by page."""


def write_real_images(page):
    """Make real/ or real.npz as the page describes it, from photos/ of digits."""
    if page == SEVERAL:
        photos = sorted(Path("photos").glob("*/*.png"))[::8]
        images = [np.asarray(Image.open(photo).convert("L").resize((8, 8))) for photo in photos]
        digit = np.array([int(photo.parent.name) for photo in photos])
        np.savez("real.npz", images=np.stack(images), digit=digit, even=digit % 2 == 0, bar=1.0 * digit)
        return
    folder_of, write_truth = PAGES[page]
    for photo in sorted(Path("photos").glob("*/*.png"))[::8]:
        digit = int(photo.parent.name)
        path = Path("real", folder_of(digit), photo.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        copy(photo, path)
        if write_truth is not None:
            write_truth(digit, path)
