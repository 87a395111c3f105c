"""One of K classes for every pixel. Shapes: N images, K classes, H height, W width, P = H · W pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.artifacts import OutputSpec
from edgerecover.tasks.measure.base import Measure, Words
from edgerecover.tasks.measure.classes import UNDECIDED, log_softmax
from edgerecover.tasks.measure.labels import threshold_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Answers, Shares_N

IGNORED = 255
"""Marks pixels of a true map that count for nothing, as -1 does, where there are not that many classes."""


class Segmentation(Measure):
    """The class with the highest score at every pixel; one map of scores tells class 1 from class 0 by a threshold.

    An image's IoU (intersection over union) is a mean over the classes in the reference's map. A class that is
    in the answer alone costs by the pixels it takes from others: were it counted with an IoU of 0, one stray pixel
    would cost as much as a missing object.
    """

    words: ClassVar[Words] = Words(
        "mean IoU",
        "mean IoU with the teacher",
        "mean IoU",
        "class maps",
        "An image counts the IoU (intersection over union) of the two class maps, a mean over the classes in the "
        "teacher's map, or in the true one.",
    )
    least_same: ClassVar[float] = 0.9

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """Classes int16 (N, P); `UNDECIDED` at pixels where a score is NaN."""
        import numpy as np

        self._require(outputs_ND)
        answers_NP = np.empty((len(outputs_ND), self._num_pixels), np.int16)
        for answer_P, scores_KP in zip(answers_NP, self._as_maps(outputs_ND), strict=True):
            decided_P = scores_KP[0] > threshold_of(self.output) if len(scores_KP) == 1 else scores_KP.argmax(axis=0)
            answer_P[:] = np.where(np.isnan(scores_KP).any(axis=0), UNDECIDED, decided_P)
        return answers_NP

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """Mean IoU over the classes in the reference's map."""
        import numpy as np

        pairs = zip(answers, reference, strict=True)
        return np.array([self._iou(answer_P, reference_P) for answer_P, reference_P in pairs], np.float64)

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """Mean IoU over the classes in the true map (N, H, W), whose ignored pixels are left out.

        A map that is ignored as a whole has nothing to be wrong about, and counts 1.
        """
        import numpy as np

        truth_NP = truth.reshape(len(truth), -1)
        counts_NP = counts_in(truth_NP, self.output)
        return np.array(
            [
                self._iou(answer_P[counts_P], truth_P[counts_P]) if counts_P.any() else 1.0
                for answer_P, truth_P, counts_P in zip(answers, truth_NP, counts_NP, strict=True)
            ],
            np.float64,
        )

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """KL(reference ‖ outputs) of the classes from logits, in nats, mean over pixels."""
        import numpy as np

        kl_N = np.empty(len(reference_ND))
        pairs = zip(self._as_maps(reference_ND), self._as_maps(outputs_ND), strict=True)
        with np.errstate(invalid="ignore"):
            for i, maps in enumerate(pairs):
                log_p, log_q = (log_softmax(_of_two(logits_KP)[np.newaxis]) for logits_KP in maps)
                kl_N[i] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
        return np.where(np.isnan(kl_N), np.inf, kl_N)

    def is_near(self, reference_ND: NDArray[Any], distance: float) -> NDArray[numpy.bool_]:
        """Where so many pixels are undecided by half of `distance` that the IoU could fall below `least_same`."""
        import numpy as np

        answers_NP = self.read(reference_ND)
        near_N = np.empty(len(answers_NP), np.bool_)
        for i, (answer_P, scores_KP) in enumerate(zip(answers_NP, self._as_maps(reference_ND), strict=True)):
            if len(scores_KP) == 1:
                near_P = np.abs(scores_KP[0] - threshold_of(self.output)) <= distance / 2
            else:
                best_two_2P = np.sort(scores_KP, axis=0)[-2:]
                near_P = best_two_2P[1] - best_two_2P[0] <= distance / 2
            near_N[i] = self._least_iou(answer_P, near_P) < self.least_same
        return near_N

    def _constants(self, reference: Answers) -> Iterator[Any]:
        """The most frequent class of each pixel, and every class alone."""
        import numpy as np

        classes = np.unique(reference[reference >= 0])
        if not len(classes):
            yield UNDECIDED
            return
        counts_KP = np.array([(reference == number).sum(axis=0) for number in classes])
        yield classes[counts_KP.argmax(axis=0)]
        yield from classes

    def _iou(self, answer_P: NDArray[Any], reference_P: NDArray[Any]) -> float:
        has_K, should_K = self._count(answer_P), self._count(reference_P)
        both_K = self._count(reference_P[answer_P == reference_P])
        seen_K = should_K > 0
        return float((both_K[seen_K] / (has_K + should_K - both_K)[seen_K]).mean()) if seen_K.any() else 0.0

    def _least_iou(self, reference_P: NDArray[Any], near_P: NDArray[numpy.bool_]) -> float:
        """What is left if every near pixel goes to another class, for each class the worst."""
        should_K = self._count(reference_P)
        lost_K = self._count(reference_P[near_P])
        seen_K = should_K > 0
        gained_K = near_P.sum() - lost_K
        return float(((should_K - lost_K)[seen_K] / (should_K + gained_K)[seen_K]).mean()) if seen_K.any() else 0.0

    def _count(self, classes_P: NDArray[Any]) -> NDArray[Any]:
        """Pixels of each class (K,)."""
        import numpy as np

        return np.bincount(classes_P[classes_P >= 0], minlength=max(2, self.output.shape[0]))

    def _as_maps(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        return outputs_ND.reshape(len(outputs_ND), self.output.shape[0], self._num_pixels)

    @property
    def _num_pixels(self) -> int:
        return self.output.num_values // self.output.shape[0]


def counts_in(truth: NDArray[Any], output: OutputSpec) -> NDArray[numpy.bool_]:
    """Which pixels of true maps count: all but -1, and `IGNORED` where it is no class."""
    counts: NDArray[numpy.bool_] = truth >= 0
    return counts if output.shape[0] > IGNORED else counts & (truth != IGNORED)


def _of_two(logits_KP: NDArray[Any]) -> NDArray[Any]:
    """Logits of at least two classes: class 0 has a logit of 0 where there is one map."""
    import numpy as np

    return np.concatenate([np.zeros_like(logits_KP), logits_KP]) if len(logits_KP) == 1 else logits_KP
