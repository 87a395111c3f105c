"""What share of the teacher's accuracy a student keeps on real images, read from its logits on dreams.

Plain agreement depends on how near the dreams lie to the teacher's decision boundaries, and dreams lie nearer than
real images do. How faithfully a student repeats the teacher's margins, relative to their size, depends far less on the
images. A margin is the logit of the class that the teacher decides for, minus that of another class:

    ρ       = Σ m_s · m_t / √(Σ m_s² · Σ m_t²)     over all images and all other classes
    reading = arctanh ρ
    kept    = 1/K + (1 - 1/K) · sigmoid(intercept + slope · reading)

`prediction.json` holds the curve and its errors, from students whose accuracy is known: benchmarks/prediction.py.

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
from edgerecover.validate.fidelity import require_same_shape
from edgerecover.validate.scores import in_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_READING = 4.0
"""arctanh of a perfect correlation is infinite; at this one nothing measurable is lost."""
LITTLE_LOST = 0.8
"""Predictions from here up err less than those below: their error is stated apart."""


@dataclass(frozen=True)
class Calibration:
    """The curve from reading to share kept, and how wrong it was on networks that it was not fitted on."""

    made_by: str
    """The command."""
    intercept: float
    slope: float
    """Above 0: a higher reading never predicts less."""
    error_little_lost: float
    """Mean absolute error of the predictions of at least `LITTLE_LOST`, 0 to 1;"""
    error_much_lost: float
    """and of those below."""
    num_students: int
    networks: tuple[str, ...]

    def kept(self, reading: float, num_classes: int) -> float:
        """Predicted share of the teacher's accuracy, from chance (1 / num_classes) to 1."""
        chance = 1 / num_classes
        return chance + (1 - chance) / (1 + math.exp(-(self.intercept + self.slope * reading)))

    def expected_error(self, kept: float) -> float:
        """Mean absolute error of predictions like this one, 0 to 1."""
        return self.error_little_lost if kept >= LITTLE_LOST else self.error_much_lost


@cache
def shipped_calibration() -> Calibration:
    """The one that comes with edgerecover."""
    text = Path(__file__).with_name("prediction.json").read_text(encoding="utf-8")
    return from_json(Calibration, json.loads(text))


def predict(student_NK: NDArray[Any], teacher_NK: NDArray[Any]) -> Predicted:
    """The expected share of the teacher's accuracy on real images that a student keeps, and its expected error.

    Args:
        student_NK: logits of the model under judgement on held-back dreams.
        teacher_NK: logits of its teacher on the same images.

    Raises:
        ValueError: the shapes differ or are not (N, K).
    """
    calibration = shipped_calibration()
    kept = calibration.kept(reading(student_NK, teacher_NK), teacher_NK.shape[1])
    error = calibration.expected_error(kept)
    return Predicted(
        kept=kept,
        low=max(0.0, kept - error),
        high=min(1.0, kept + error),
        num_students=calibration.num_students,
        num_networks=len(calibration.networks),
    )


def reading(student_NK: NDArray[Any], teacher_NK: NDArray[Any]) -> float:
    """arctanh of the correlation of two models' margins: 0 (nothing in common) to `LARGEST_READING`.

    An image for which the student's logits are not all finite counts as one on which it tells no class from another;
    one for which the teacher's are not says nothing about the student and is left out.

    Raises:
        ValueError: the shapes differ or are not (N, K).
    """
    import numpy as np

    require_same_shape(student_NK, teacher_NK)
    both = student_squares = teacher_squares = 0.0
    for student_nK, teacher_nK in in_blocks(student_NK, teacher_NK):
        usable_n = np.isfinite(teacher_nK).all(axis=1)
        student_nK, teacher_nK = student_nK[usable_n], teacher_nK[usable_n]
        finite_n = np.isfinite(student_nK).all(axis=1)
        decided_n = teacher_nK.argmax(axis=1)
        teacher_margins = _margins(teacher_nK, decided_n)
        student_margins = _margins(np.where(finite_n[:, None], student_nK, 0.0), decided_n)
        both += float((student_margins * teacher_margins).sum())
        student_squares += float((student_margins**2).sum())
        teacher_squares += float((teacher_margins**2).sum())
    size = math.sqrt(student_squares) * math.sqrt(teacher_squares)
    correlation = both / size if size else 0.0
    return math.atanh(min(max(correlation, 0.0), math.tanh(LARGEST_READING)))


def _margins(logits_NK: NDArray[Any], decided_N: NDArray[Any]) -> NDArray[Any]:
    """Logit of the class decided for minus each class's; 0 for that class itself."""
    import numpy as np

    margins_NK: NDArray[Any] = np.take_along_axis(logits_NK, decided_N[:, None], axis=1) - logits_NK
    return margins_NK
