"""Any number of K labels. Shapes: N images, K labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.artifacts import Activation, OutputSpec
from edgerecover.tasks.measure.base import Measure, Words
from edgerecover.tasks.measure.classes import UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Answers, Shares_N

_MOST_LABELS = 8
"""Of a set that is the same for all images."""


class MultiLabel(Measure):
    """The labels whose scores are above the threshold: 0 for logits, 0.5 for what sigmoids give.

    Sets of labels are compared by their Jaccard index. The share of labels alike would be near 1 for a network that
    finds nothing, because of many labels few hold.
    """

    words: ClassVar[Words] = Words(
        "Jaccard index",
        "Jaccard index with the teacher",
        "Jaccard index",
        "label sets",
        "An image counts the Jaccard index of the two label sets: labels in both over labels in either, 1 if both are "
        "empty.",
    )

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """Int8 (N, K), 1 for each label that holds; `UNDECIDED` for all labels of an image where a score is NaN."""
        import numpy as np

        self._require(outputs_ND)
        is_readable_N1 = ~np.isnan(outputs_ND).any(axis=1, keepdims=True)
        return np.where(is_readable_N1, outputs_ND > threshold_of(self.output), UNDECIDED).astype(np.int8)

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """The Jaccard index of both label sets, 1 where both are empty."""
        import numpy as np

        has_NK, should_NK = answers == 1, reference == 1
        both_N, either_N = (has_NK & should_NK).sum(axis=1), (has_NK | should_NK).sum(axis=1)
        is_readable_N = (answers != UNDECIDED).all(axis=1) & (reference != UNDECIDED).all(axis=1)
        jaccard_N: Shares_N = np.where(either_N == 0, 1.0, both_N / np.maximum(either_N, 1))
        return np.where(is_readable_N, jaccard_N, 0.0)

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """The Jaccard index with the true labels, (N, K) of 0 and 1."""
        return self.share(answers, truth)

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """KL(reference ‖ outputs) of every label's yes or no from logits, in nats, summed over labels."""
        import numpy as np

        with np.errstate(invalid="ignore"):
            kl_N = divergence(reference_ND, outputs_ND).sum(axis=1)
        return np.where(np.isnan(kl_N), np.inf, kl_N)

    def is_near(self, reference_ND: NDArray[Any], distance: float) -> NDArray[numpy.bool_]:
        """Where a label's score lies within half of `distance` of the threshold."""
        import numpy as np

        near_N: NDArray[numpy.bool_] = np.abs(reference_ND - threshold_of(self.output)).min(axis=1) <= distance / 2
        return near_N

    def _constants(self, reference: Answers) -> Iterator[Any]:
        """No label, the most frequent one, the two most frequent ones, …"""
        import numpy as np

        order_K = np.argsort(-(reference == 1).sum(axis=0))
        for size in range(min(len(order_K), _MOST_LABELS) + 1):
            labels_K = np.zeros(len(order_K), np.int8)
            labels_K[order_K[:size]] = 1
            yield labels_K


def divergence(reference: NDArray[Any], found: NDArray[Any]) -> NDArray[numpy.float64]:
    """KL(reference ‖ found) of the yes or no that each logit stands for, in nats, in the shape of both."""
    import numpy as np

    p, q = (logits.astype(np.float64) for logits in (reference, found))
    kl = np.zeros(p.shape)
    for sign in (1, -1):
        log_p, log_q = (-np.logaddexp(0, -sign * logits) for logits in (p, q))
        kl += np.exp(log_p) * (log_p - log_q)
    return kl


def threshold_of(output: OutputSpec) -> float:
    """The score above which a label holds: as likely as not."""
    return 0.5 if output.activation is Activation.SIGMOID else 0.0
