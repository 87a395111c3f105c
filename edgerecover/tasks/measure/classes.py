"""One of K classes, and yes or no. Shapes: N images, D numbers for each, K classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.artifacts import Activation
from edgerecover.tasks.measure.base import Measure, Words

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Answers, Shares_N

UNDECIDED = -1
"""Stands for the answer of scores that are no numbers."""


class OneLabel(Measure):
    """The class with the highest score."""

    words: ClassVar[Words] = Words(
        "agreement",
        "agreement with the teacher",
        "accuracy",
        "decisions",
        "An image counts 1 where the class is the same, else 0.",
        is_graded=False,
    )
    has_classes: ClassVar[bool] = True

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """Class indices (N,); `UNDECIDED` where a score is NaN."""
        import numpy as np

        self._require(outputs_ND)
        return np.where(np.isnan(outputs_ND).any(axis=1), UNDECIDED, self._scores(outputs_ND).argmax(axis=1))

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """1 where both decide alike."""
        alike: Shares_N = ((answers == reference) & (answers != UNDECIDED)).astype(float)
        return alike

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """1 where the class is the label."""
        return self.share(answers, truth)

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """KL(reference ‖ outputs) of the softmax of logits, in nats."""
        import numpy as np

        log_p, log_q = (log_softmax(self._logits(values)) for values in (reference_ND, outputs_ND))
        with np.errstate(invalid="ignore"):
            kl_N = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        return np.where(np.isnan(kl_N), np.inf, kl_N)

    def is_near(self, reference_ND: NDArray[Any], distance: float) -> NDArray[numpy.bool_]:
        """Where the two highest scores lie within half of `distance`."""
        import numpy as np

        best_two_N2 = np.sort(self._scores(reference_ND), axis=1)[:, -2:]
        near_N: NDArray[numpy.bool_] = best_two_N2[:, 1] - best_two_N2[:, 0] <= distance / 2
        return near_N

    def _constants(self, reference: Answers) -> Iterable[Any]:
        """Every class."""
        return range(self.output.num_classes or 0)

    def _scores(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        """One score for each class, of which the highest decides."""
        return outputs_ND

    def _logits(self, logits_ND: NDArray[Any]) -> NDArray[Any]:
        """One logit for each class."""
        return logits_ND


class Binary(OneLabel):
    """Class 1 where the only score is above its threshold, else class 0."""

    def _scores(self, outputs_ND: NDArray[Any]) -> NDArray[Any]:
        """Those of "no" and "yes"."""
        import numpy as np

        if self.output.activation is not Activation.SIGMOID:
            return self._logits(outputs_ND)
        return np.concatenate([1 - outputs_ND, outputs_ND], axis=1)

    def _logits(self, logits_ND: NDArray[Any]) -> NDArray[Any]:
        """Those of "no", which is 0, and "yes"."""
        import numpy as np

        return np.concatenate([np.zeros_like(logits_ND), logits_ND], axis=1)


def log_softmax(scores: NDArray[Any]) -> NDArray[numpy.float64]:
    """Logarithms of the probabilities of classes, which are along axis 1; NaN where a score is not finite."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
        result: NDArray[numpy.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
