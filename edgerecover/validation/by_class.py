"""Decisions class by class, and which classes are taken for which. Shapes: N images, K classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerecover.artifacts import ByClass, Confused

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Decisions_N = NDArray[numpy.int64]

MOST_CONFUSED = 1000
"""Pairs of classes that are listed: all there can be of 32 classes."""


def by_class(
    expected_N: Decisions_N, exported_N: Decisions_N, pruned_N: Decisions_N | None, num_classes: int
) -> ByClass:
    """Count what the exported file, and the network before recovery, decide for images of each class.

    Args:
        expected_N: the teacher's decisions, or labels; one below 0 is undecided, and belongs to no class.
        exported_N: of the exported file.
        pruned_N: of the network before recovery, where it is known.
        num_classes: K.
    """
    import numpy as np

    known_N = expected_N >= 0

    def hits(decided_N: Decisions_N) -> tuple[int, ...]:
        return _counts(expected_N[known_N & (decided_N == expected_N)], num_classes)

    wrong_N = known_N & (exported_N != expected_N)
    columns = num_classes + 1  # one for what is undecided
    pairs, counts = np.unique(expected_N[wrong_N] * columns + exported_N[wrong_N] + 1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    confused = []
    for place in order[:MOST_CONFUSED]:
        expected, column = divmod(int(pairs[place]), columns)
        confused.append(Confused(expected, column - 1 if column else None, int(counts[place])))
    return ByClass(
        totals=_counts(expected_N[known_N], num_classes),
        exported=hits(exported_N),
        pruned=() if pruned_N is None else hits(pruned_N),
        confused=tuple(confused),
        num_left_out=int(counts[order[MOST_CONFUSED:]].sum()),
    )


def _counts(classes_N: Decisions_N, num_classes: int) -> tuple[int, ...]:
    import numpy as np

    return tuple(int(count) for count in np.bincount(classes_N, minlength=num_classes))
