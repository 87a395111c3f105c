"""How right a network is on images with truth: measures from 0 to 1, which is all right.

Shapes: N images, H height, W width, D outputs, K labels or classes, M boxes, A candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import task_detector

from edgerecover.artifacts import Activation, OutputSpec, TaskKind
from edgerecover.tasks.measure import measure_of

_NUM_QUERIES = 500
"""Whose nearest neighbours are searched for at once."""


def share_decided_right(logits_N1: np.ndarray, truth_N: np.ndarray) -> float:
    """Share of images whose one logit has the right sign."""
    return float(((logits_N1[:, 0] > 0) == (truth_N > 0)).mean())


def mean_average_precision(logits_NK: np.ndarray, truth_NK: np.ndarray) -> float:
    """Average precision of each label (area under precision over recall, in steps), and their mean."""
    order = np.argsort(-logits_NK, axis=0, kind="stable")
    is_hit_NK = np.take_along_axis(truth_NK, order, axis=0) > 0
    precision_NK = is_hit_NK.cumsum(0) / np.arange(1, len(is_hit_NK) + 1)[:, None]
    return float(((precision_NK * is_hit_NK).sum(0) / is_hit_NK.sum(0)).mean())


def mean_f1(logits_NK: np.ndarray, truth_NK: np.ndarray) -> float:
    """F1 of each label, given where its logit is above 0, and their mean."""
    given_NK, is_true_NK = logits_NK > 0, truth_NK > 0
    both_K = (given_NK & is_true_NK).sum(0)
    return float((2 * both_K / np.maximum(given_NK.sum(0) + is_true_NK.sum(0), 1)).mean())


def recall_at_1(embeddings_ND: np.ndarray, truth_N: np.ndarray) -> float:
    """Share of images whose nearest other image, by cosine, is of the same class."""
    return float(np.concatenate([is_same_QN[:, 0] for is_same_QN in _neighbours(embeddings_ND, truth_N)]).mean())


def mean_average_precision_at_r(embeddings_ND: np.ndarray, truth_N: np.ndarray) -> float:
    """MAP@R (Musgrave et al. 2020, arXiv 2003.08505): R is the number of other images of an image's class.

    Mean over its R nearest images of the precision up to there, where that image is of its class, and else 0.
    """
    num_others_N = np.bincount(truth_N)[truth_N] - 1
    ranks_N = np.arange(1, len(truth_N))
    sums = []
    for is_same_QN, num_others_Q in zip(_neighbours(embeddings_ND, truth_N), _in_parts(num_others_N), strict=True):
        precision_QN = is_same_QN.cumsum(1) / ranks_N
        counts_QN = is_same_QN & (ranks_N <= num_others_Q[:, None])
        sums.append((precision_QN * counts_QN).sum(1) / np.maximum(num_others_Q, 1))
    return float(np.concatenate(sums).mean())


def _neighbours(embeddings_ND: np.ndarray, truth_N: np.ndarray) -> Iterator[np.ndarray]:
    """For some images (Q) at a time, whether each other image, nearest first, is of the same class: (Q, N - 1)."""
    unit_ND = embeddings_ND / np.maximum(np.linalg.norm(embeddings_ND, axis=1, keepdims=True), 1e-12)
    for own_Q in _in_parts(np.arange(len(unit_ND))):
        cosines_QN = unit_ND[own_Q] @ unit_ND.T
        cosines_QN[np.arange(len(own_Q)), own_Q] = -np.inf
        order_QN = np.argsort(-cosines_QN, axis=1, kind="stable")[:, :-1]
        yield truth_N[order_QN] == truth_N[own_Q, None]


def _in_parts(values_N: np.ndarray) -> list[np.ndarray]:
    return [values_N[start : start + _NUM_QUERIES] for start in range(0, len(values_N), _NUM_QUERIES)]


def spread_explained(outputs_ND: np.ndarray, truth_ND: np.ndarray) -> float:
    """1 - root mean square error / standard deviation of the truth, no less than 0 per output; mean over outputs."""
    error_D = np.sqrt(((outputs_ND - truth_ND) ** 2).mean(0))
    return float(np.maximum(0.0, 1 - error_D / truth_ND.std(0)).mean())


def mean_intersection_over_union(logits_NKHW: np.ndarray, truth_NHW: np.ndarray) -> float:
    """Over all pixels of all images, for each class; mean over classes, ground included. Maps may come in one row."""
    logits_NKHW = logits_NKHW.reshape(len(truth_NHW), -1, *truth_NHW.shape[1:])
    num_classes = logits_NKHW.shape[1]
    pairs = num_classes * truth_NHW.ravel() + logits_NKHW.argmax(1).ravel()
    counts_KK = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    both_K = counts_KK.diagonal()
    return float((both_K / np.maximum(counts_KK.sum(0) + counts_KK.sum(1) - both_K, 1)).mean())


def mean_box_f1(outputs: np.ndarray, truth_NM5: np.ndarray) -> float:
    """Mean over images of the F1 of boxes, as `--eval-data` measures it.

    Outputs are (N, 4 + K, A) candidates, maybe in one row, whose scores are probabilities if all are from 0 to 1.
    """
    num_classes, side = task_detector.NUM_CLASSES, task_detector.SIDE
    outputs_NVA = outputs.reshape(len(truth_NM5), 4 + num_classes, -1)
    scores_NKA = outputs_NVA[:, 4:]
    is_logit = bool(((scores_NKA < 0) | (scores_NKA > 1)).any())
    output = OutputSpec(
        TaskKind.DETECTION,
        outputs_NVA.shape[1:],
        Activation.NONE if is_logit else Activation.SIGMOID,
        input_sides=(side, side),
    )
    measure = measure_of(output)
    answers = measure.read(outputs_NVA.reshape(len(truth_NM5), -1))
    return float(measure.share_of_truth(answers, truth_NM5).mean())


@dataclass(frozen=True)
class Truth:
    """A measure of outputs against what is true, from 0 to 1."""

    name: str
    measure: Callable[[np.ndarray, np.ndarray], float]


TRUTHS: Mapping[str, tuple[Truth, ...]] = {
    "binary": (Truth("accuracy", share_decided_right),),
    "multi-label": (Truth("F1", mean_f1), Truth("mean average precision", mean_average_precision)),
    "embedding": (Truth("recall@1", recall_at_1), Truth("MAP@R", mean_average_precision_at_r)),
    "regression": (Truth("spread explained", spread_explained),),
    "segmentation": (Truth("mIoU", mean_intersection_over_union),),
    "detection": (Truth("box F1", mean_box_f1),),
}
"""By task, what reports call it first."""


def won_back(dense: float, pruned: float, recovered: float) -> float | None:
    """Share of what pruning took away; None where it took nothing."""
    return (recovered - pruned) / (dense - pruned) if dense > pruned else None
