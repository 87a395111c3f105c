"""Embeddings and numbers. Shapes: N images, D numbers for each, b of the images."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from edgerecover.tasks.measure.base import Measure, Words

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy
    from numpy.typing import NDArray

    from edgerecover.tasks.measure.base import Answers, Shares_N

MOST_VALUES = 4096
"""Of an image, which are compared where there are more: of 4096 errors of a map, the mean is known to some 2 %."""
_GOLDEN_RATIO = 0.6180339887498949
_BLOCK_ROWS = 256
"""Images whose cosines with all images are held at once."""
_ROUNDING = 1e-9
_CONSTANT = 1e-5
"""Of its size: a value that varies by less differs by rounding alone."""


class Embedding(Measure):
    """The direction of a vector.

    A cosine alone flatters: where all embeddings have much in common, one that says nothing of its image has a high
    one. So it counts only where the answer is not nearer to the reference's embedding of a clearly different image.
    Other images that the reference sets no further from an image than the answer is are not clearly different: frames
    of one film.
    """

    words: ClassVar[Words] = Words(
        "cosine",
        "cosine with the teacher",
        "nearest-neighbour accuracy",
        "embeddings",
        "An image counts the cosine of the two embeddings, and 0 where the teacher's embedding of a clearly different "
        "image is nearer. A real image counts 1 where the nearest of the others has the same label, else 0.",
        score="value",
    )
    least_same: ClassVar[float] = 0.98

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """Unit vectors float64 (N, D); NaN where a vector has no direction: it is all zeros, or not finite."""
        import numpy as np

        self._require(outputs_ND)
        values_ND = outputs_ND.astype(np.float64)
        with np.errstate(invalid="ignore"):
            norm_N1 = np.linalg.norm(values_ND, axis=1, keepdims=True)
            has_direction_N1 = np.isfinite(norm_N1) & (norm_N1 > 0)
            return np.where(has_direction_N1, values_ND, np.nan) / np.where(has_direction_N1, norm_N1, 1)

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """The cosine; 0 where it is negative or the reference's answer to a clearly different image is nearer.

        Clearly different: that answer's cosine with the reference's answer to this image is lower than the answer's.
        """
        import numpy as np

        own_N = (answers * reference).sum(axis=1)
        is_found_N = np.empty(len(answers), np.bool_)
        others = zip(_cosines(answers, reference), _cosines(reference, reference), strict=True)
        with np.errstate(invalid="ignore"):
            for (part, cosines_bN), (_, different_bN) in others:
                own_b1 = own_N[part, np.newaxis]
                is_found_N[part] = ~((cosines_bN > own_b1 + _ROUNDING) & (different_bN < own_b1)).any(axis=1)
        shares_N: Shares_N = np.clip(np.nan_to_num(own_N), 0, 1) * is_found_N
        return np.where(shares_N > 1 - _ROUNDING, 1, shares_N)

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """1 where the nearest of the other images has the same label (N,).

        The only image of its label is never right.
        """
        import numpy as np

        shares_N: Shares_N = np.zeros(len(answers))
        for part, cosines_bN in _cosines(answers, answers):
            own = np.arange(len(answers))[part]
            cosines_bN[np.arange(len(own)), own] = -np.inf
            cosines_bN = np.where(np.isnan(cosines_bN), -np.inf, cosines_bN)
            same_b = truth[cosines_bN.argmax(axis=1)] == truth[part]
            shares_N[part] = same_b & np.isfinite(cosines_bN.max(axis=1))
        return shares_N

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """1 − cosine, 0 to 2."""
        import numpy as np

        cosine_N = (self.read(reference_ND) * self.read(outputs_ND)).sum(axis=1)
        return np.where(np.isnan(cosine_N), np.inf, np.maximum(1 - cosine_N, 0))

    def _constants(self, reference: Answers) -> Iterator[Any]:
        """The mean direction."""
        import numpy as np

        mean_D = np.nanmean(reference, axis=0) if np.isfinite(reference).any() else reference[0]
        yield mean_D / max(float(np.linalg.norm(mean_D)), _ROUNDING)


class Regression(Measure):
    """Numbers, whose error is told in standard deviations: how much the reference varies from image to image.

    A map varies over its pixels too, and is compared at `MOST_VALUES` of them: all images are held at once.
    """

    words: ClassVar[Words] = Words(
        "closeness",
        "closeness to the teacher",
        "closeness to the truth",
        "values",
        "An image counts 1 less the mean error of its values, each in standard deviations of that value over the "
        "images (of a map: over the images and its pixels), and 0 where the error is larger than one.",
        score="value",
    )
    least_same: ClassVar[float] = 0.95

    def read(self, outputs_ND: NDArray[Any]) -> Answers:
        """The values, float64 (N, d): all, or `MOST_VALUES` of them; NaN where one of the others is not finite."""
        import numpy as np

        self._require(outputs_ND)
        chosen_d = _chosen(self.output.num_values)
        answers_Nd = outputs_ND[:, chosen_d].astype(np.float64)
        if len(chosen_d) < self.output.num_values:
            answers_Nd[~np.isfinite(outputs_ND).all(axis=1)] = np.nan
        return answers_Nd

    def share(self, answers: Answers, reference: Answers) -> Shares_N:
        """1 − the mean of |error| / standard deviation of the reference over all images, 0 to 1.

        A value that the reference gives alike for all images, or for the only one, is compared with its own size.
        """
        import numpy as np

        with np.errstate(invalid="ignore"):
            error_N = (np.abs(answers - reference) / self._spread_d(reference)).mean(axis=1)
        shares_N: Shares_N = np.clip(1 - np.where(np.isnan(error_N), np.inf, error_N), 0, 1)
        return shares_N

    def share_of_truth(self, answers: Answers, truth: NDArray[Any]) -> Shares_N:
        """The same with true values, (N, D), (N,) of one, or maps."""
        return self.share(answers, self.read(truth.reshape(len(truth), -1)))

    def distance(self, reference_ND: NDArray[Any], outputs_ND: NDArray[Any]) -> NDArray[numpy.float64]:
        """Mean of the squared errors, in variances of the reference."""
        import numpy as np

        reference_Nd, answers_Nd = self.read(reference_ND), self.read(outputs_ND)
        with np.errstate(invalid="ignore"):
            distance_N = (((answers_Nd - reference_Nd) / self._spread_d(reference_Nd)) ** 2).mean(axis=1)
        return np.where(np.isnan(distance_N), np.inf, distance_N)

    def _constants(self, reference: Answers) -> Iterator[Any]:
        """The median of each value."""
        import numpy as np

        yield np.median(reference, axis=0)

    def _spread_d(self, reference_Nd: NDArray[Any]) -> NDArray[numpy.float64]:
        """Standard deviation of each value, or of its map; of one that does not vary its size, and 1 if that is 0."""
        import numpy as np

        finite_Nd = reference_Nd[np.isfinite(reference_Nd).all(axis=1)]
        if not len(finite_Nd):
            return np.ones(reference_Nd.shape[1])
        channel_d = _chosen(self.output.num_values) // self.output.pixels
        count_C = np.maximum(np.bincount(channel_d), 1)

        def mean_d(values_Nd: NDArray[Any]) -> NDArray[Any]:
            """Over the images and the values of a map."""
            return (np.bincount(channel_d, values_Nd.mean(axis=0)) / count_C)[channel_d]

        size_d = np.sqrt(mean_d(finite_Nd**2))
        std_d = np.sqrt(mean_d((finite_Nd - mean_d(finite_Nd)) ** 2))
        return np.where(std_d > _CONSTANT * size_d, std_d, np.where(size_d > 0, size_d, 1.0))


@lru_cache(maxsize=8)
def _chosen(num_values: int) -> NDArray[numpy.int64]:
    """Which values are compared, ascending: all, or `MOST_VALUES` that lie everywhere and in no regular pattern.

    Fractions of multiples of the golden ratio spread evenly (Weyl), and are the same on every machine.
    """
    import numpy as np

    if num_values <= MOST_VALUES:
        return np.arange(num_values)
    fractions = np.arange(1, MOST_VALUES + 1) * _GOLDEN_RATIO % 1
    return np.unique((fractions * num_values).astype(np.int64))


def _cosines(answers: Answers, others: Answers) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Cosines (b, N) of some images' unit vectors with those of all images, and which they are."""
    for start in range(0, len(answers), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        yield part, answers[part] @ others.T
