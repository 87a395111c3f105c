"""Intervals of percentiles from samples that are not independent: the block bootstrap (Künsch 1989, Ann. Stat. 17(3)).

Neighbouring queries share the machine's mood: a clock that fell, a neighbour that woke up. Resampling single samples
would pretend that each one was news; so whole rounds are drawn. NumPy is loaded only when an interval is asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_RESAMPLES = 1000
RUN_EXPONENT = 1 / 3
"""Blocks drawn together, as a power of their number: 3 of 30."""
LEAST_BLOCKS = 8
"""Fewer rounds than these say too little: then the samples are cut into about √n neighbouring pieces instead."""
_SEED = 20_261_121
_AT_ONCE = 100
"""Resamples computed together: bounds the memory."""


def blocks_of(num_samples: int, round_sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes of the blocks that are drawn: the rounds where there are enough of them, else about √n pieces."""
    sizes = tuple(size for size in round_sizes if size)
    if len(sizes) >= LEAST_BLOCKS and sum(sizes) == num_samples:
        return sizes
    num_blocks = max(1, math.isqrt(num_samples))
    edges = [round(number * num_samples / num_blocks) for number in range(num_blocks + 1)]
    return tuple(after - before for before, after in itertools.pairwise(edges))


@lru_cache(maxsize=32)
def percentile_interval(
    samples: tuple[float, ...], round_sizes: tuple[int, ...], percent: float, coverage: float
) -> tuple[float, float]:
    """Interval of the nearest-rank percentile that holds `coverage` of its resampled values.

    It is never narrower than that of as many independent samples: a resample cannot hold a slower query than any that
    was seen, so that far out it alone is too sure (docs/adr/0022).

    Args:
        samples: in the order they were taken.
        round_sizes: how many of them belong to each round.
        percent: 0 to 100.
        coverage: 0 to 1.
    """
    sizes = blocks_of(len(samples), round_sizes)
    low, high = _quantiles(_resample(samples, sizes, _draws(len(sizes), _SEED), percent), coverage)
    least, most = order_interval(samples, percent, coverage)
    return min(low, least), max(high, most)


def order_interval(samples: Sequence[float], percent: float, coverage: float) -> tuple[float, float]:
    """Interval of that percentile were the samples independent (David & Nagaraja, Order Statistics, 7.1)."""
    ordered = sorted(samples)
    n, q = len(ordered), percent / 100
    half = NormalDist().inv_cdf((1 + coverage) / 2) * math.sqrt(n * q * (1 - q))
    low = min(n, max(1, math.floor(n * q - half)))
    high = min(n, max(1, math.ceil(n * q + half) + 1))
    return ordered[low - 1], ordered[high - 1]


@lru_cache(maxsize=32)
def ratio_interval(
    above: tuple[float, ...],
    above_sizes: tuple[int, ...],
    below: tuple[float, ...],
    below_sizes: tuple[int, ...],
    coverage: float,
) -> tuple[float, float, float]:
    """How many times larger typical samples of `above` are than those of `below`, and the interval of that.

    Of one race, the median over rounds of the ratio of medians within a round: what slowed a round slowed both. Else,
    or with few rounds, the ratio of the medians of all samples, each side drawn on its own.
    """
    paired = len(above_sizes) == len(below_sizes) >= LEAST_BLOCKS and all(above_sizes + below_sizes)
    if paired:
        return _paired_ratio(above, above_sizes, below, below_sizes, coverage)
    return _unpaired_ratio(above, above_sizes, below, below_sizes, coverage)


def _paired_ratio(
    above: Sequence[float],
    above_sizes: Sequence[int],
    below: Sequence[float],
    below_sizes: Sequence[int],
    coverage: float,
) -> tuple[float, float, float]:
    import numpy as np

    ratios = _medians(above, above_sizes) / np.maximum(_medians(below, below_sizes), np.finfo(float).tiny)
    drawn = ratios[_runs(len(ratios), _SEED)]
    low, high = _quantiles(np.median(drawn, axis=1), coverage)
    point = float(np.median(ratios))
    return point, min(low, point), max(high, point)


def _medians(samples: Sequence[float], sizes: Sequence[int]) -> NDArray[Any]:
    import numpy as np

    return np.array([np.median(part) for part in np.split(np.asarray(samples, float), np.cumsum(sizes)[:-1])])


def _unpaired_ratio(
    above: Sequence[float],
    above_sizes: Sequence[int],
    below: Sequence[float],
    below_sizes: Sequence[int],
    coverage: float,
) -> tuple[float, float, float]:
    import numpy as np

    sides = []
    for seed, (samples, sizes) in enumerate(((above, above_sizes), (below, below_sizes)), _SEED):
        blocks = blocks_of(len(samples), sizes)
        sides.append(_resample(samples, blocks, _draws(len(blocks), seed), 50))
    low, high = _quantiles(sides[0] / np.maximum(sides[1], np.finfo(float).tiny), coverage)
    under = nearest_rank(below, 50)
    point = nearest_rank(above, 50) / under if under else math.inf
    return point, min(low, point), max(high, point)


def nearest_rank(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(percent * len(ordered) / 100)) - 1]


def _draws(num_blocks: int, seed: int) -> NDArray[Any]:
    """How often each block is in each resample, (NUM_RESAMPLES, num_blocks).

    Drawn are runs of neighbouring blocks, the first following the last (circular: Politis & Romano 1992): a noisy
    neighbour stays for more than one round.
    """
    import numpy as np

    drawn = _runs(num_blocks, seed)
    rows = np.arange(len(drawn))[:, None] * num_blocks
    counts = np.bincount((rows + drawn).ravel(), minlength=len(drawn) * num_blocks)
    return counts.reshape(len(drawn), num_blocks)


def _runs(num_blocks: int, seed: int) -> NDArray[Any]:
    """Numbers of the blocks in each resample, (NUM_RESAMPLES, about num_blocks)."""
    import numpy as np

    length = max(1, round(num_blocks**RUN_EXPONENT))
    random = np.random.default_rng(seed)
    starts = random.integers(num_blocks, size=(NUM_RESAMPLES, -(-num_blocks // length)))
    return ((starts[:, :, None] + np.arange(length)) % num_blocks).reshape(NUM_RESAMPLES, -1)


def _resample(samples: Sequence[float], sizes: Sequence[int], draws: NDArray[Any], percent: float) -> NDArray[Any]:
    """The percentile in each resample: sorted once, then only weights change."""
    import numpy as np

    values = np.asarray(samples, dtype=float)
    order = np.argsort(values, kind="stable")
    block_of_sorted = np.repeat(np.arange(len(sizes)), sizes)[order]
    found = []
    for start in range(0, len(draws), _AT_ONCE):
        so_far = np.cumsum(draws[start : start + _AT_ONCE, block_of_sorted], axis=1)
        ranks = np.maximum(1, np.ceil(percent * so_far[:, -1:] / 100))
        found.append(values[order[np.argmax(so_far >= ranks, axis=1)]])
    return np.concatenate(found)


def _quantiles(values: NDArray[Any], coverage: float) -> tuple[float, float]:
    import numpy as np

    tail = (1 - coverage) / 2
    low, high = np.quantile(values, (tail, 1 - tail), method="nearest")
    return float(low), float(high)
