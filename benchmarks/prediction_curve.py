"""The curve from a reading to the share kept, its interval, and how often that holds on networks it does not know.

The curve is a logistic regression on shares kept, each network with the same weight. The interval is conformal: with
each network's students predicted by the curve of the others, it reaches as far down and up as leaves out a share of
`(1 - CONFIDENCE) / 2` of them on either side. What is told of its coverage is nested: curve and interval both come
from the other networks, the interval by leaving out each of those in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgerecover.validation.prediction import CONFIDENCE, Calibration, Reading

MARGIN = 0.01
"""Of the interval, on either side: 500 to 5,000 real images tell a share to about a point."""
FEWEST_IMAGES = 16
"""Read from so many of 128 held-out images, drawn at random, the interval held as often as from all; from 8 less."""
FEWEST_NETWORKS = 3
"""One to judge, and two that can judge each other for it."""
_ITERATIONS = 50


@dataclass(frozen=True)
class Student:
    """One judged student."""

    network: str
    name: str
    kind: str
    num_classes: int
    num_images: int
    """Of the held-out set."""
    reading: float
    standard_error: float
    """Of the reading."""
    agreement: float
    kept: float
    """Accuracy on real images / the teacher's on the same."""


def weights_of(students: Sequence[Student]) -> np.ndarray:
    """Networks weigh alike, however many students they have; (N,), sum 1."""
    networks = [s.network for s in students]
    return np.array([1 / networks.count(n) for n in networks]) / len(set(networks))


def fit(students: Sequence[Student]) -> tuple[float, float]:
    """Intercept and slope of greatest quasi-likelihood, by Newton's method: the problem is convex."""
    chance_N = np.array([1 / s.num_classes for s in students])
    share_N = np.clip((np.array([s.kept for s in students]) - chance_N) / (1 - chance_N), 0, 1)
    design_N2 = np.array([(1.0, s.reading) for s in students])
    weight_N, curve_2 = weights_of(students), np.zeros(2)
    for _ in range(_ITERATIONS):
        predicted_N = 1 / (1 + np.exp(-design_N2 @ curve_2))
        slope_2 = design_N2.T @ (weight_N * (share_N - predicted_N)) - 1e-6 * curve_2
        curvature_22 = (design_N2.T * (weight_N * predicted_N * (1 - predicted_N))) @ design_N2 + 1e-6 * np.eye(2)
        step_2 = np.linalg.solve(curvature_22, slope_2)
        curve_2 = curve_2 + step_2 / max(1.0, float(np.abs(step_2).max()))
    return round(float(curve_2[0]), 3), round(float(curve_2[1]), 3)


def calibrate(students: Sequence[Student]) -> Calibration:
    """Curve and interval over all networks of these students; how often that holds on others is not told by them."""
    below_N, above_N = (np.zeros(len(students)) for _ in range(2))
    for network, others in _left_out(students):
        curve = fit(others)
        for number, student in enumerate(students):
            if student.network == network:
                below_N[number], above_N[number] = _shifts(*curve, student)
    weight_N = weights_of(students)
    return Calibration(
        "python benchmarks/prediction.py --write",
        *fit(students),
        below=_reach(below_N, weight_N),
        above=_reach(above_N, weight_N),
        margin=MARGIN,
        coverage=0.0,
        num_students=len(students),
        networks=tuple(sorted({s.network for s in students})),
        most_classes=max(s.num_classes for s in students),
        fewest_images=FEWEST_IMAGES,
    )


def left_out(students: Sequence[Student]) -> list[Calibration]:
    """For each student curve and interval of the other networks alone."""
    by_network = {network: calibrate(others) for network, others in _left_out(students)}
    return [by_network[s.network] for s in students]


def holds(calibration: Calibration, student: Student) -> bool:
    """Whether the student's interval holds the truth; more than the teacher's accuracy counts as all of it."""
    low, high = interval(calibration, student)
    return low <= min(1.0, student.kept) <= high


def interval(calibration: Calibration, student: Student) -> tuple[float, float]:
    return calibration.interval(Reading(student.reading, student.standard_error), student.num_classes)


def _left_out(students: Sequence[Student]) -> list[tuple[str, list[Student]]]:
    networks = sorted({s.network for s in students})
    return [(network, [s for s in students if s.network != network]) for network in networks]


def _shifts(intercept: float, slope: float, student: Student) -> tuple[float, float]:
    """How far the interval has to reach down, and up, in log odds, to hold the student's truth."""
    middle, chance = intercept + slope * student.reading, 1 / student.num_classes
    truth = min(1.0, max(student.kept, chance))

    def log_odds(kept: float) -> float:
        share = min(max((kept - chance) / (1 - chance), 1e-9), 1 - 1e-9)
        return float(np.log(share / (1 - share)))

    return max(0.0, middle - log_odds(truth + MARGIN)), max(0.0, log_odds(truth - MARGIN) - middle)


def _reach(shift_N: np.ndarray, weight_N: np.ndarray) -> float:
    """The least of these shifts that suffices for the students' share asked for on one side."""
    order_N = np.argsort(shift_N)
    number = int(np.searchsorted(np.cumsum(weight_N[order_N]), (1 + CONFIDENCE) / 2 - 1e-9))
    return round(float(shift_N[order_N][min(number, len(shift_N) - 1)]), 3)
