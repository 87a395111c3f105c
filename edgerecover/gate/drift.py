"""A measurement beside numbers that were stored: the machine was in another mood then, and that is accounted for.

Runs of one file on one machine differ by more than their samples tell. With enough stored runs, their own spread says
by how much: the interval is that of the next run's median, as a Student's t prediction interval on logarithms (Hahn
1969, J. Am. Stat. Assoc. 64(327)). With fewer, only changes are told that no drift makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist, fmean, variance

from edgerecover.artifacts import Comparison, Latency, Ratio
from edgerecover.gate.duel import pool

LEAST_RUNS = 5
"""From so many stored runs on, their own spread counts."""
ASSUMED_FACTOR = 10.0
"""Before, nothing is known of how much runs differ here. On a busy machine, medians of one file differed by up to a
factor of four within half an hour (docs/adr/0027): only what is far beyond that is distinguished from drift."""
_COVERAGE = 0.98
"""Of the interval: an alarm about what did not change is to come from less than one run of a hundred."""


def against_runs(now: Latency, runs: Sequence[Latency]) -> Comparison:
    """Compare one measurement with stored ones of the same machine and scope.

    Args:
        now: measured at another time than they.
        runs: one or more, of one model.
    """
    before = replace(pool(runs), round_sizes=())
    alone = replace(now, round_sizes=()).slower_than(before)
    medians = [math.log(max(run.percentile_ms(50), 1e-9)) for run in runs]
    shift = math.log(max(now.percentile_ms(50), 1e-9)) - fmean(medians)
    half = _half_width(medians)
    # A median counts in one number only: what its own samples leave open is the least that is not known.
    return Comparison(
        latency=now,
        before=before,
        slower=Ratio(
            math.exp(shift),
            min(alone.low, math.exp(shift - half)),
            max(alone.high, math.exp(shift + half)),
        ),
        how=_how(len(runs)),
        memory_bytes=(now.memory_model_bytes,),
        memory_before_bytes=tuple(run.memory_model_bytes for run in runs),
    )


def _half_width(medians: Sequence[float]) -> float:
    """Of the interval of the next median's difference to the mean of these; all of them logarithms."""
    number = len(medians)
    if number < LEAST_RUNS:
        return math.log(ASSUMED_FACTOR)
    quantile = student_quantile((1 + _COVERAGE) / 2, number - 1)
    return quantile * math.sqrt(variance(medians) * (1 + 1 / number))


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for 4 degrees of freedom or more, within 0.3 % (Abramowitz & Stegun 26.7.5)."""
    x, n = NormalDist().inv_cdf(probability), degrees
    g1 = (x**3 + x) / 4
    g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    g4 = (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160
    return x + g1 / n + g2 / n**2 + g3 / n**3 + g4 / n**4


def _how(num_runs: int) -> str:
    if num_runs < LEAST_RUNS:
        return f"measured at different times, {num_runs} of the {LEAST_RUNS} runs that tell how much that alone changes"
    return f"measured at different times; the spread of its {num_runs} runs is allowed for"
