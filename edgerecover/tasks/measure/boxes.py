"""Boxes with a class each. Shapes: N images, A candidates, K classes, M boxes, V = 4 + K numbers of a candidate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.artifacts import NUM_BOX_VALUES, Activation, OutputSpec
from edgerecover.tasks.measure.base import Measure, Words
from edgerecover.tasks.measure.labels import divergence

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Answers, Shares_N

LEAST_SCORE = 0.25
"""Probability from which a candidate is a box."""
OVERLAP = 0.5
"""IoU above which the less sure of two boxes of a class is suppressed, and from which two boxes are the same."""
MOST_BOXES = 100
"""Of an image, as COCO counts them."""
NO_BOX = -1
"""Stands for the class where an image has fewer boxes than there are rows."""
_MOST_CANDIDATES = 1000
"""Of an image, the surest: what a broken network gives need not be compared with each other."""
_LEAST_SIDE = 1.0
"""In pixels, of boxes whose errors are told in their sizes."""


class Detection(Measure):
    """The boxes that are left when of two that overlap the less sure one is suppressed, class by class.

    Every candidate is of the class with its highest score. Answers and truth are rows of class, left, top, right and
    bottom, in pixels of the network's input.
    """

    words: ClassVar[Words] = Words(
        "box F1",
        "box F1 with the teacher",
        "box F1",
        "boxes",
        f"An image counts the F1 of its boxes with a score from {LEAST_SCORE}: twice the boxes in both sets over the "
        f"boxes of either, where two of a class are the same from an IoU of {OVERLAP}; 1 if both sets are empty.",
        score="value",
    )
    least_same: ClassVar[float] = 0.9

    def quantities(self, outputs_ND: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Boxes (N, A, 4) in pixels, and scores (N, A, K)."""
        boxes_NA4, scores_NAK = _split(self._as_candidates(outputs_ND))
        return {"boxes": boxes_NA4, "scores": scores_NAK}

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """Boxes float32 (N, `MOST_BOXES`, 5), the surest first; the class is `NO_BOX` in rows that are left.

        All is NaN for an image whose outputs are not all finite. Candidates without an area are no boxes.
        """
        import numpy as np

        self._require(outputs_ND)
        answers_NM5 = np.full((len(outputs_ND), MOST_BOXES, 5), NO_BOX, np.float32)
        for answer_M5, values_AV in zip(answers_NM5, self._as_candidates(outputs_ND), strict=True):
            if np.isfinite(values_AV).all():
                boxes_m5 = self._suppress(values_AV)
                answer_M5[: len(boxes_m5)] = boxes_m5
            else:
                answer_M5[:] = np.nan
        return answers_NM5

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """F1 of the boxes that are in both, 1 where neither has one."""
        import numpy as np

        return np.array([_f1(*pair) for pair in zip(answers, reference, strict=True)], np.float64)

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """The same with true boxes (N, M, 5)."""
        return self.share(answers, truth)

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """KL(reference ‖ outputs) of every class's yes or no, in nats, plus the error of the boxes in their sizes.

        Means over candidates. Each weighs by its highest probability, of the surer network for classes and of the
        reference for boxes: nearly all candidates are of nothing.
        """
        import numpy as np

        distance_N = np.empty(len(reference_ND))
        pairs = zip(self._as_candidates(reference_ND), self._as_candidates(outputs_ND), strict=True)
        with np.errstate(invalid="ignore", over="ignore"):
            for i, values in enumerate(pairs):
                (box_A4, p_AK), (other_A4, q_AK) = (_split(value_AV.astype(np.float64)) for value_AV in values)
                own_A, found_A = (_sigmoid(logits_AK.max(axis=1)) for logits_AK in (p_AK, q_AK))
                error_A = _huber((other_A4 - box_A4) / _sides(box_A4)).sum(axis=1)
                distance_N[i] = _mean(divergence(p_AK, q_AK).sum(axis=1), np.maximum(own_A, found_A)) + _mean(
                    error_A, own_A
                )
        return np.where(np.isnan(distance_N), np.inf, distance_N)

    def is_near(self, reference_ND: NDArray[Any], distance: float) -> NDArray[numpy.bool_]:
        """Where the best score of a candidate lies near the threshold.

        Pixels and scores have units of their own: `distance` is read as a share of how much all outputs vary, and the
        logits of the best scores are near within half of that share of how much they vary.
        """
        import numpy as np

        best_NA = _split(self._as_candidates(self.as_logits(reference_ND)))[1].max(axis=2)
        spread = float(reference_ND.std()) or 1.0
        near_N: NDArray[numpy.bool_] = (
            np.abs(best_NA - _logit(LEAST_SCORE)).min(axis=1) <= distance / spread * float(best_NA.std()) / 2
        )
        return near_N

    def _constants(self, reference: Answers) -> tuple[Any, ...]:
        """No box."""
        return (NO_BOX,)

    def as_logits(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        """Outputs whose scores are logits; boxes stay as they are."""
        import numpy as np

        if self.output.activation is Activation.NONE:
            return outputs_ND
        logits_ND = outputs_ND.astype(np.float64)
        scores_NAK = _split(self._as_candidates(logits_ND))[1]
        scores_NAK[:] = super().as_logits(scores_NAK)  # a view of what is returned
        return logits_ND

    def _suppress(self, values_AV: NDArray[Any]) -> NDArray[Any]:
        """Boxes (m, 5) of one image."""
        import numpy as np

        boxes_A4, scores_AK = _split(values_AV.astype(np.float64))
        best_A = scores_AK.max(axis=1)
        (chosen,) = np.nonzero((best_A >= least_score(self.output)) & (boxes_A4[:, 2:] > 0).all(axis=1))
        chosen = chosen[np.argsort(-best_A[chosen], kind="stable")][:_MOST_CANDIDATES]
        half_a2 = boxes_A4[chosen, 2:] / 2
        centre_a2 = boxes_A4[chosen, :2]
        class_a1 = scores_AK[chosen].argmax(axis=1, keepdims=True)
        waiting_a5 = np.concatenate([class_a1, centre_a2 - half_a2, centre_a2 + half_a2], axis=1)
        kept: list[NDArray[Any]] = []
        while len(waiting_a5) and len(kept) < MOST_BOXES:
            surest_5, others_a5 = waiting_a5[0], waiting_a5[1:]
            kept.append(surest_5)
            waiting_a5 = others_a5[_overlaps(surest_5[np.newaxis], others_a5)[0] <= OVERLAP]
        return np.array(kept).reshape(-1, 5)

    def _as_candidates(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        """A view (N, A, V)."""
        values = outputs_ND.reshape(len(outputs_ND), *self.output.shape)
        return values if self.output.has_candidates_first else values.swapaxes(1, 2)


def least_score(output: OutputSpec) -> float:
    """The score from which a candidate is a box, as the network gives it."""
    return LEAST_SCORE if output.activation is Activation.SIGMOID else _logit(LEAST_SCORE)


def _f1(answer_M5: NDArray[Any], reference_M5: NDArray[Any]) -> float:
    """Pairs of boxes are taken by their overlap, the largest first, each box once."""
    import numpy as np

    if np.isnan(answer_M5).any() or np.isnan(reference_M5).any():
        return 0.0
    ours, theirs = (rows[rows[:, 0] >= 0].astype(np.float64) for rows in (answer_M5, reference_M5))
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    overlaps, num_same = _overlaps(ours, theirs), 0
    while overlaps.max() >= OVERLAP:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = 0
        num_same += 1
    return 2 * num_same / (len(ours) + len(theirs))


def _overlaps(a_m5: NDArray[Any], b_n5: NDArray[Any]) -> NDArray[Any]:
    """IoU of all pairs of boxes (m, n), 0 where their classes differ."""
    import numpy as np

    corner_mn2 = np.minimum(a_m5[:, np.newaxis, 3:], b_n5[:, 3:])
    shared_mn2 = np.maximum(corner_mn2 - np.maximum(a_m5[:, np.newaxis, 1:3], b_n5[:, 1:3]), 0)
    shared_mn = shared_mn2.prod(axis=2)
    area_m, area_n = ((rows[:, 3:] - rows[:, 1:3]).prod(axis=1) for rows in (a_m5, b_n5))
    either_mn = area_m[:, np.newaxis] + area_n - shared_mn
    return np.where(a_m5[:, np.newaxis, 0] == b_n5[:, 0], shared_mn / np.maximum(either_mn, 1e-12), 0.0)


def _split(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes (…, A, 4) and scores (…, A, K)."""
    return values[..., :NUM_BOX_VALUES], values[..., NUM_BOX_VALUES:]


def _sides(boxes_A4: NDArray[Any]) -> NDArray[Any]:
    """Width, height, width and height (A, 4), which errors of boxes are told in."""
    import numpy as np

    return np.tile(np.maximum(boxes_A4[:, 2:], _LEAST_SIDE), 2)


def _mean(values_A: NDArray[Any], weights_A: NDArray[Any]) -> float:
    return float((values_A * weights_A).sum() / max(weights_A.sum(), 1e-12))


def _huber(errors: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    size = np.abs(errors)
    result: NDArray[numpy.float64] = np.where(size < 1, 0.5 * size**2, size - 0.5)
    return result


def _sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    result: NDArray[numpy.float64] = np.exp(-np.logaddexp(0, -logits))
    return result


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
