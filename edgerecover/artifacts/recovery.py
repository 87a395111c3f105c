"""What recovery had to learn from, and what each of its steps was worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SyntheticFacts:
    """What was synthesized, or found from an earlier run."""

    num_train: int
    num_calibration: int
    num_held_back: int
    teacher_agrees_with_target: float | None
    """Fraction of train images that the teacher reads as the class, or labels, they were made for; None where there are
    no such targets."""
    images_per_s: float
    reused: bool
    source: str = "dreams"
    """What the images are, for people: "dreams", "fractals", "real images"."""
    mirrored: bool = False
    """Whether half of the views were mirrored."""
    mirror_correlation: float | None = None
    """Of the teacher's margins on mirrored dreams with those on the dreams: what `flip = "auto"` was decided by."""
    warnings: tuple[str, ...] = ()
    """What went wrong while they were made, and was worked around."""


@dataclass(frozen=True)
class RecordFacts:
    """An activation record: statistics of the teacher's activations on real data, made by whoever has the data."""

    path: str
    sha256: str
    size_bytes: int
    kind: str
    num_images: int
    """It was made from."""
    noise: float
    """Added to every statistic, in standard errors of it."""


@dataclass(frozen=True)
class Sheet:
    """Where the images of a contact sheet stand in it, row by row, with a gap before and after each."""

    path: str
    """Inside the bundle."""
    columns: int
    tile_height_px: int
    tile_width_px: int
    gap_px: int
    classes: tuple[int | None, ...]
    """Of each place, the class that its image was made for; -1: the place is empty; None: it was made for none."""


@dataclass(frozen=True)
class CurvePoint:
    """Where a distillation stood after some of its steps."""

    step: int
    loss: float
    """Mean over the steps since the point before."""
    agreement: float | None = None
    """Top-1 agreement with the teacher on the calibration set, 0 to 1; None where it was not looked at."""


@dataclass(frozen=True)
class Rung:
    """One step of the recovery ladder and what it was worth on images that no rung trained on."""

    name: str
    agreement: float
    """Top-1 agreement with the teacher on the calibration set, 0 to 1."""
    kl: float
    """Mean KL(teacher || student) in nats on the same images. Both select, in pairs: `recover`."""
    seconds: float
    chosen: bool = False
    curve: tuple[CurvePoint, ...] = ()
    """Of a distillation; empty for other rungs, and in reports that were written before it was kept."""
