"""What share of the teacher's accuracy a student keeps on real images, read from its logits on dreams.

Plain agreement depends on how near the dreams lie to the teacher's decision boundaries, and dreams lie nearer than
real images do. How large a disturbance pruning made, beside what the teacher's logits tell of an image, depends far
less on the images. With t and s the logits of an image less their own mean, and t̄ the mean of t over the images:

    scale   = Σ (s - s̄)·(t - t̄) / Σ |t - t̄|²           what the student made of the teacher's differences
    reading = 10 log₁₀( Σ |t - t̄|² / Σ |s / scale - t|² )   signal to disturbance, decibels
    kept    = 1/K + (1 - 1/K) · sigmoid(intercept + slope · reading)

t̄ is in the disturbance and not in the signal: what is the same for every image tells none from another, and with many
classes it is most of a logit. `prediction.json` holds the curve and its interval, from students whose accuracy is
known: benchmarks/prediction.py. Why it is this one: docs/adr/0041.

Shapes: N images, K classes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import Predicted, from_json
from edgerecover.validation.fidelity import require_same_shape
from edgerecover.validation.scores import in_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LARGEST_READING = 40.0
"""Decibels. That of equal logits would be infinite; at this one nothing measurable is lost."""
SMALLEST_READING = -20.0
"""Reading of logits that have nothing in common: no accuracy is kept at this one."""
CONFIDENCE = 0.95
"""Share of the known networks' students whose truth the interval holds; of those of another one it may be less."""
_DEVIATIONS = 1.96
"""Standard errors to either side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Reading:
    """Signal to disturbance of a student's logits."""

    value: float
    """Decibels, `SMALLEST_READING` to `LARGEST_READING`."""
    standard_error: float
    """From the images being a sample; decibels."""


NOTHING_IN_COMMON = Reading(SMALLEST_READING, 0.0)


@dataclass(frozen=True)
class Calibration:
    """The curve from reading to share kept, and how wrong it was on networks that it was not fitted on."""

    made_by: str
    """The command."""
    intercept: float
    slope: float
    """Above 0: a higher reading never predicts less."""
    below: float
    """The lower end of the interval is the share kept at intercept + slope · reading - below, less `margin`."""
    above: float
    """The upper end of the interval is the share kept at intercept + slope · reading + above, plus `margin`."""
    margin: float
    """Share added on either side of the interval: the truth was itself counted on a sample of images."""
    coverage: float
    """Share of students whose true value the interval contained, with curve and interval from other networks alone."""
    num_students: int
    networks: tuple[str, ...]
    most_classes: int
    """Of those networks."""
    fewest_images: int
    """From which the interval held as often as from many."""

    def kept(self, reading: float, num_classes: int) -> float:
        """Predicted share of the teacher's accuracy, from chance (1 / num_classes) to 1."""
        return _share(self.intercept + self.slope * reading, num_classes)

    def interval(self, reading: Reading, num_classes: int) -> tuple[float, float]:
        """Lowest and highest share of the teacher's accuracy that is likely, each from 0 to 1."""
        middle = self.intercept + self.slope * reading.value
        sampling = _DEVIATIONS * self.slope * reading.standard_error
        low = _share(middle - math.hypot(self.below, sampling), num_classes) - self.margin
        high = _share(middle + math.hypot(self.above, sampling), num_classes) + self.margin
        # The curve ends at chance; a model that decides for the wrong classes lies below.
        return low if low > 1 / num_classes else 0.0, min(1.0, high)

    def doubt(self, num_images: int, num_classes: int) -> str | None:
        """In what way images or classes are unlike those that the interval was measured on."""
        if num_classes > self.most_classes:
            return f"{num_classes:,} classes, where those it was measured on have {self.most_classes:,} at most"
        if num_images < self.fewest_images:
            return f"read from {num_images:,} images, where {self.fewest_images:,} are needed"
        return None


def _share(log_odds: float, num_classes: int) -> float:
    chance = 1 / num_classes
    return chance + (1 - chance) / (1 + math.exp(-log_odds))


@cache
def shipped_calibration() -> Calibration:
    """The one that comes with edgerecover."""
    text = Path(__file__).with_name("prediction.json").read_text(encoding="utf-8")
    return from_json(Calibration, json.loads(text))


def predict(student_NK: NDArray[Any], teacher_NK: NDArray[Any]) -> Predicted:
    """The expected share of the teacher's accuracy on real images that a student keeps, with an interval.

    Args:
        student_NK: logits of the model under judgement on held-out dreams.
        teacher_NK: logits of its teacher on the same images.

    Raises:
        ValueError: the shapes differ or are not (N, K).
    """
    calibration = shipped_calibration()
    found = reading(student_NK, teacher_NK)
    num_images, num_classes = teacher_NK.shape
    low, high = calibration.interval(found, num_classes)
    return Predicted(
        kept=calibration.kept(found.value, num_classes),
        low=low,
        high=high,
        num_students=calibration.num_students,
        num_networks=len(calibration.networks),
        coverage=calibration.coverage,
        doubt=calibration.doubt(num_images, num_classes),
    )


def reading(student_NK: NDArray[Any], teacher_NK: NDArray[Any]) -> Reading:
    """Signal to disturbance of a student beside its teacher.

    An image for which the student's logits are not all finite counts as one on which it tells no class from another;
    one for which the teacher's are not says nothing about the student and is left out.

    Raises:
        ValueError: the shapes differ or are not (N, K).
    """
    import numpy as np

    require_same_shape(student_NK, teacher_NK)
    num_images = num_classes = 0
    sums_2K: Any = 0.0
    for pair_2nK in _centre(student_NK, teacher_NK):
        num_images, num_classes = num_images + pair_2nK.shape[1], pair_2nK.shape[2]
        sums_2K = sums_2K + pair_2nK.sum(axis=1)
    if num_images < 2:
        return NOTHING_IN_COMMON
    student_mean_K, teacher_mean_K = sums_2K / num_images
    both, signals = 0.0, []
    for student_nK, teacher_nK in _centre(student_NK, teacher_NK):
        told_nK = teacher_nK - teacher_mean_K
        both += float(((student_nK - student_mean_K) * told_nK).sum())
        signals.append((told_nK**2).sum(axis=1))
    signal_N = np.concatenate(signals)
    signal = float(signal_N.sum())
    # Rounding leaves a trace of a difference where there is none.
    if signal <= num_images * num_classes * 1e-12 or both <= 1e-6 * signal:
        return NOTHING_IN_COMMON
    disturbance_N = np.concatenate([
        ((student_nK * (signal / both) - teacher_nK) ** 2).sum(axis=1)
        for student_nK, teacher_nK in _centre(student_NK, teacher_NK)
    ])  # fmt: skip
    disturbance = max(float(disturbance_N.sum()), 1e-12 * signal)
    decibels = 10 * math.log10(signal / disturbance)
    relative_error = math.sqrt(float(((signal_N / signal - disturbance_N / disturbance) ** 2).sum()))
    return Reading(min(max(decibels, SMALLEST_READING), LARGEST_READING), 10 / math.log(10) * relative_error)


def _centre(student_NK: NDArray[Any], teacher_NK: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Both models' logits less each image's mean, (2, n, K), some usable images at a time."""
    import numpy as np

    for student_nK, teacher_nK in in_blocks(student_NK, teacher_NK):
        usable_n = np.isfinite(teacher_nK).all(axis=1)
        student_nK, teacher_nK = student_nK[usable_n], teacher_nK[usable_n]
        finite_n = np.isfinite(student_nK).all(axis=1)
        pair_2nK = np.stack([np.where(finite_n[:, None], student_nK, 0.0), teacher_nK])
        yield pair_2nK - pair_2nK.mean(axis=2, keepdims=True)
