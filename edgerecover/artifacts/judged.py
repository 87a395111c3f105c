"""What was measured of a file's decisions, and the judgements."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from edgerecover.artifacts.outputs import TaskKind


@dataclass(frozen=True)
class Proportion:
    """k of n with its 95 % Wilson interval (Wilson 1927).

    Where images count from 0 to 1, k is their sum: a mean of such numbers varies at most as much as a proportion, so
    the interval holds, and is wide.
    """

    hits: float
    """An integer where an image counts 0 or 1."""
    total: int

    @property
    def value(self) -> float:
        """hits / total."""
        return self.hits / self.total if self.total else 0.0

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Wilson score interval at normal quantile `z`."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class KeptZeros:
    """Whether a student's pruned weights are still zero."""

    num_regrown: int
    """Pruned weights that are no longer zero in the recovered network."""
    in_file: dict[str, int]
    """Pruned weights that are not zero in the file, by parameter; parameters without any are left out."""
    missing: tuple[str, ...]
    """Parameters that were not found in the file."""
    computed: tuple[str, ...]
    """Of those in `in_file`, parameters that the network multiplies by only after it has computed something from them
    that is not zero where they are."""


def paired_interval(lost: float, won: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of the difference of two proportions on the same images, as fractions.

    Adjusted Wald for paired proportions: Bonett & Price 2012, J. Educ. Behav. Stat. 37(4).

    Args:
        lost: images that only the first has right, or by how much more it has them right.
        won: the same of the second.
        total: images.
        z: normal quantile.
    """
    n = total + 2
    p_lost, p_won = (lost + 1) / n, (won + 1) / n
    half = z * math.sqrt((p_lost + p_won - (p_lost - p_won) ** 2) / n)
    return max(-1.0, p_lost - p_won - half), min(1.0, p_lost - p_won + half)


def difference_interval(first: Proportion, second: Proportion) -> tuple[float, float]:
    """95 % interval of the difference first - second, as fractions, on different images.

    From the Wilson intervals of both: Newcombe 1998, Statistics in Medicine 17, method 10.
    """
    (low_1, high_1), (low_2, high_2) = first.interval(), second.interval()
    difference = first.value - second.value
    below = math.hypot(first.value - low_1, high_2 - second.value)
    above = math.hypot(high_1 - first.value, second.value - low_2)
    return max(-1.0, difference - below), min(1.0, difference + above)


@dataclass(frozen=True)
class Confused:
    """Images of one class that a file decides as another."""

    expected: int
    """The class that the teacher decides for or, on labelled images, the label."""
    decided: int | None
    """The class that the file decides for; None: its scores are not numbers."""
    num_images: int


@dataclass(frozen=True)
class ByClass:
    """Decisions class by class; tuples are by class index."""

    totals: tuple[int, ...]
    """Images that the teacher decides for a class or, on labelled images, that have its label."""
    exported: tuple[int, ...]
    """Images of `totals` on which the exported file decides for that class too."""
    pruned: tuple[int, ...] = ()
    """Images of `totals` on which the network before recovery does; empty where that is unknown."""
    confused: tuple[Confused, ...] = ()
    """Most images first."""
    num_left_out: int = 0
    """Images of confusions that are too rare to be listed."""

    def exported_of(self, number: int) -> Proportion:
        """Proportion of one class, after recovery."""
        return Proportion(self.exported[number], self.totals[number])

    def pruned_of(self, number: int) -> Proportion | None:
        """Proportion of one class before recovery; None where that is unknown."""
        return Proportion(self.pruned[number], self.totals[number]) if self.pruned else None


@dataclass(frozen=True)
class Predicted:
    """The share of the teacher's accuracy that a model is expected to keep on real images; read from dreams."""

    kept: float
    """Student's accuracy / teacher's accuracy, 0 to 1."""
    low: float
    high: float
    """Ends of the interval, within 0 to 1."""
    num_students: int
    """Number of students that the interval was measured over."""
    num_networks: int
    """Number of networks that those students came from; none was used for its own prediction."""
    coverage: float | None = None
    """Share of those students whose true value the interval contained. None in reports from before there was an
    interval, where `low` and `high` are `kept` minus and plus the mean error of such predictions."""
    doubt: str | None = None
    """In what way this network is unlike those: the prediction then means nothing."""


@dataclass(frozen=True)
class Decisions:
    """Which images one model has right, one by one: two models that saw the same images are compared in pairs."""

    images_sha256: str
    """Of all images in order, and of their labels where they have any."""
    right: str
    """A "1" for each image that is, a "0" for each that is not; empty where images count from 0 to 1."""
    shares: tuple[float, ...] = ()
    """How much each image counts, where that is from 0 to 1."""

    @property
    def total(self) -> int:
        """Number of images."""
        return len(self.right) or len(self.shares)

    @property
    def hits(self) -> float:
        """Images that are right, or the sum of what they count."""
        return self.right.count("1") if self.right else sum(self.shares)

    def pairs(self, other: Decisions) -> tuple[float, float] | None:
        """How many images only this one has right, and how many only the other; None: they saw different ones.

        Where images count from 0 to 1: how much more each of the two has right, over the images on which it does.
        """
        is_graded, other_is = bool(self.shares), bool(other.shares)
        if self.images_sha256 != other.images_sha256 or (self.total, is_graded) != (other.total, other_is):
            return None
        if is_graded:
            differences = [ours - theirs for ours, theirs in zip(self.shares, other.shares, strict=True)]
            return sum(d for d in differences if d > 0), -sum(d for d in differences if d < 0)
        both = list(zip(self.right, other.right, strict=True))
        return both.count(("1", "0")), both.count(("0", "1"))


@dataclass(frozen=True)
class Fidelity:
    """How often a model decides as the teacher does, on held-out images. Never called accuracy."""

    pruned: Proportion | None
    """Of the network before recovery; None where that is unknown."""
    recovered: Proportion | None
    """Of the file's PyTorch network; None where that is unknown."""
    exported: Proportion
    predicted: Predicted | None = None
    """Of the exported file; None where the images are too weak evidence (no dreams, or those of a teacher without batch
    norm), and for a student of another architecture or that others have trained, none of which was measured."""
    by_class: ByClass | None = None
    """Class by class, by the teacher's decisions; None for tasks without classes, and in reports from before it was
    measured."""
    decisions: Decisions | None = None
    """Of the exported file: right is what the teacher decides. None in reports that were written before they were
    kept."""
    chance: float | None = None
    """What a file would have that always gives the same answer, 0 to 1; None where classes are counted, which tell."""
    by_output: dict[str, Fidelity] = field(default_factory=dict)
    """Of several outputs, each; the numbers above are then weighted means."""


@dataclass(frozen=True)
class Difference:
    """How far one quantity among a file's numbers is from PyTorch's, in its own unit."""

    max_abs: float
    deviation: float
    """Standard deviation of PyTorch's."""

    @property
    def relative(self) -> float:
        """As a fraction of the standard deviation."""
        return self.max_abs / self.deviation if self.deviation else math.inf


@dataclass(frozen=True)
class Parity:
    """The exported file against the PyTorch network it was made from, on the same held-out images."""

    num_images: int
    max_abs: float
    mean_abs: float
    logit_scale: float
    """Standard deviation of the PyTorch logits: what `max_abs` is to be read against."""
    top1_agreement: float
    by_output: dict[str, Parity] = field(default_factory=dict)
    """Of several outputs, each; the numbers above are then those of the worst."""
    by_quantity: dict[str, Difference] = field(default_factory=dict)
    """Of a detector "boxes", in pixels, and "scores", which the numbers above take together; empty for other tasks."""

    @property
    def relative(self) -> float:
        """Largest difference as a fraction of the logits' standard deviation."""
        return self.max_abs / self.logit_scale if self.logit_scale else math.inf


@dataclass(frozen=True)
class PrecisionLoss:
    """What a variant of lower precision lost against the float32 file, on the same held-out images."""

    num_images: int
    float32_only: float
    """Images on which only the float32 file decides as the teacher does; where images count from 0 to 1, how much more
    it agrees, over those on which it does."""
    variant_only: float
    """The same of the variant."""
    changed: float
    """Images on which the two decide differently; where images count from 0 to 1, how far they differ."""

    @property
    def points(self) -> float:
        """Agreement with the teacher lost, in percentage points; negative where some was won."""
        return 100 * (self.float32_only - self.variant_only) / self.num_images

    def interval_points(self) -> tuple[float, float]:
        """95 % interval of `points`."""
        low, high = paired_interval(self.float32_only, self.variant_only, self.num_images)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class Accuracy:
    """How right answers are on real images with truth, only ever from --eval-data: top-1 of one-label networks.

    All on the same images; None where not known.
    """

    source: str
    num_images: int
    teacher: Proportion
    pruned: Proportion | None
    recovered: Proportion | None
    exported: Proportion
    teacher_only: float
    """Images that the teacher gets right and the exported file wrong; where images count from 0 to 1, how much more
    right it is, over those on which it is."""
    exported_only: float
    """The same of the exported file: the pairs decide how certain the drop is."""
    by_class: ByClass | None = None
    """Class by class, by label; None for tasks without classes, and in reports from before it was measured."""
    decisions: Decisions | None = None
    """Decisions of the exported file; None in reports from before they were kept."""
    by_output: dict[str, Accuracy] = field(default_factory=dict)
    """Of several outputs, each; the numbers above are then weighted means."""


class GateStatus(str, Enum):
    """How a gate came out."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """The confidence interval straddles the limit."""
    NEEDS_DEVICE = "needs the device"
    """The limit is the target's, and this machine is not it."""
    SKIP = "skip"
    """There is nothing to compare with: no baseline yet, or one of another machine or of other images."""

    @property
    def word(self) -> str:
        """What people read, everywhere: "PASS", "FAIL", "INCONCLUSIVE", "DEVICE" or "SKIP"."""
        return "DEVICE" if self is GateStatus.NEEDS_DEVICE else self.value.upper()


@dataclass(frozen=True)
class Gate:
    """One judgement: what was measured, the limit, and how it came out."""

    name: str
    status: GateStatus
    measured: float | None
    """None where the gate was skipped."""
    limit: float
    direction: str
    """"at least" or "at most"."""
    unit: str
    """"%", "ms", "MB", "points" or ""."""
    source: str
    """Who set the limit: "profile balanced", "target jetson-orin", "limits strict.toml"."""
    message: str


def verdict_of(gates: Iterable[Gate]) -> GateStatus:
    """The worst status of the gates; one that needs the device or was skipped does not count."""
    statuses = {gate.status for gate in gates}
    return next((worst for worst in (GateStatus.FAIL, GateStatus.INCONCLUSIVE) if worst in statuses), GateStatus.PASS)


@dataclass(frozen=True)
class GoldenCheck:
    """The answers of one file on one machine, beside those of the bundle's model on the machine that packed it."""

    num_images: int
    same_decisions: int
    """Images whose answer is the golden one."""
    too_close: int
    """Of the others, those whose two best golden scores lie nearer than half the tolerance."""
    largest_difference: float
    """Between two scores, in standard deviations of the golden scores."""
    tolerance: float
    """The largest difference allowed; in the same unit."""
    is_same_precision: bool
    """The file has the precision of the bundle's model. Scores of another are meant to differ: only decisions count."""
    teacher: Proportion | None = None
    """How often the file decides as the teacher; None where the bundle does not hold the teacher's scores."""
    task: TaskKind = TaskKind.ONE_LABEL
    """What the network is for."""

    @property
    def passed(self) -> bool:
        """No clear decision differs, nor, in the same precision, any score by more than the tolerance."""
        different = self.num_images - self.same_decisions - self.too_close
        return not different and (not self.is_same_precision or self.largest_difference <= self.tolerance)
