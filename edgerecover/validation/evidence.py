"""Reasons not to trust a run's own numbers, in sentences for the report.

Agreement with a teacher says little when the teacher decides by chance, knows one class only, or was never asked about
half of them. Such input is recovered as far as it can be, and the report says what that is worth.

Shapes: N images, n of them at a time, D outputs for each, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgerecover.artifacts import (
    Accuracy,
    Descent,
    Fidelity,
    Lineage,
    ModelFacts,
    Pattern,
    Proportion,
    Rung,
    SyntheticFacts,
    TaskKind,
)
from edgerecover.errors import BadInputError
from edgerecover.tasks.measure import Measure, words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CONSTANT = 1e-5
"""Logits that move by less than this fraction of their size from image to image differ by rounding alone."""
_HIGH_CHANCE = 0.9
"""Agreement with a teacher of one and the same answer, from which the images tell little."""
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class Decisions:
    """How often the teacher decides for each class on the synthetic train images."""

    counts: tuple[int, ...]

    @property
    def num_images(self) -> int:
        """N."""
        return sum(self.counts)

    @property
    def seen(self) -> tuple[int, ...]:
        """The classes it decides for at least once."""
        return tuple(number for number, count in enumerate(self.counts) if count)

    @property
    def unseen(self) -> tuple[int, ...]:
        """The classes it never decides for."""
        return tuple(number for number, count in enumerate(self.counts) if not count)

    @property
    def chance(self) -> float:
        """Agreement of a student that always answers the teacher's most frequent class, 0 to 1."""
        return max(self.counts) / self.num_images


def decisions_of(teacher_ND: NDArray[Any], measure: Measure, images: str = "dreams") -> Decisions | None:
    """Count the teacher's decisions on its own dreams, or other `images`; see `decisions_over`."""
    return decisions_over([teacher_ND], measure, images)


def decisions_over(
    teacher_outputs: Iterable[NDArray[Any]], measure: Measure, images: str = "dreams"
) -> Decisions | None:
    """Count the teacher's decisions from outputs (n, D) that come batch by batch, for more images than fit in memory.

    None for tasks without classes, whose teacher is checked alone.

    Raises:
        BadInputError: the outputs are not finite, or the same for every image: there is nothing to learn from.
    """
    import numpy as np

    num_images = num_broken = 0
    counts, lowest_D, highest_D = (np.asarray(start) for start in (0, np.inf, -np.inf))
    for outputs_nD in teacher_outputs:
        is_finite_n = np.isfinite(outputs_nD).all(axis=1)
        num_images += len(outputs_nD)
        num_broken += int((~is_finite_n).sum())
        if measure.has_classes:
            decided_n = measure.read(outputs_nD)[is_finite_n]
            counts = counts + np.bincount(decided_n, minlength=measure.output.num_classes or 0)
        lowest_D = np.minimum(lowest_D, outputs_nD.min(axis=0))
        highest_D = np.maximum(highest_D, outputs_nD.max(axis=0))
    if num_broken:
        raise BadInputError(
            f"the teacher's {measure.words.score}s are NaN or infinite on {num_broken:,} of {num_images:,} {images}",
            hint="try the teacher on a few real images: its weights, or mean and std of its input, may be damaged",
        )
    largest = max(np.abs(lowest_D).max(), np.abs(highest_D).max())
    if num_images > 1 and (highest_D - lowest_D).max() <= _CONSTANT * largest:
        raise BadInputError(
            f"the teacher's {measure.words.score}s are the same on all {num_images:,} {images}: it tells no images "
            "apart, and there is nothing to recover from it",
            hint="try the teacher on a few real images: it may be untrained, or a layer of it all zeros",
        )
    return Decisions(tuple(int(count) for count in counts)) if measure.has_classes else None


@dataclass(frozen=True)
class Claims:
    """What a report says of a file, and of which images: the numbers whose worth may be in doubt."""

    decisions: Decisions | None
    """The teacher's, on the images that the file was judged on or, in a run, on the dreams it was recovered with; None
    for tasks without classes."""
    synthetic: SyntheticFacts
    """How many images there were, and how many the teacher reads as the class they were made for."""
    fidelity: Fidelity
    """Agreement with the teacher on held-out images."""
    accuracy: Accuracy | None
    """On real images; None where there were none."""
    classes: Sequence[str] | None
    """Names by class index; None where they are unknown."""
    task: TaskKind = TaskKind.ONE_LABEL
    """What the network is for."""


def doubts(
    claims: Claims,
    student: ModelFacts,
    teacher: ModelFacts,
    rungs: Sequence[Rung],
    lineage: Lineage | None,
    *,
    same_architecture: bool = True,
    has_record: bool = False,
) -> tuple[str, ...]:
    """What the reader of a run's report must know before trusting its numbers.

    Args:
        claims: of the report.
        student: as it came.
        teacher: what it was pruned from, or learns from.
        rungs: of the recovery.
        lineage: of the student as it came; None where it is unknown.
        same_architecture: the student is its teacher with zeros or fewer channels.
        has_record: an activation record of the teacher was used.
    """
    decisions = claims.decisions
    return (
        *_about_student(student, teacher, same_architecture),
        *_about_statistics(teacher, has_record),
        *(_about_teacher(claims, decisions) if decisions else ()),
        *(_about_classes(claims, decisions) if decisions else ()),
        *_about_lineage(lineage, rungs),
        *_about_rungs(rungs),
        *(_about_recovery(claims, decisions, same_architecture) if decisions else _about_same_answers(claims)),
        *_about_outputs(claims),
    )


def doubts_of_file(claims: Claims) -> tuple[str, ...]:
    """What the reader of a report on a file that was recovered elsewhere must know before trusting its numbers."""
    decisions = claims.decisions
    if decisions is None:
        return (*_about_same_answers(claims), *_about_outputs(claims))
    return (
        *_about_teacher(claims, decisions),
        *_about_classes_judged(claims, decisions),
        *_about_file(claims, decisions),
    )


def _about_student(student: ModelFacts, teacher: ModelFacts, same_architecture: bool) -> Iterator[str]:
    sparsity = student.sparsity
    as_dense = sparsity.pattern is Pattern.DENSE or sparsity.num_zeros <= teacher.sparsity.num_zeros
    as_dense &= sparsity.num_zero_norm_channels <= teacher.sparsity.num_zero_norm_channels
    if same_architecture and as_dense and student.num_parameters == teacher.num_parameters:
        yield "the student is as dense as its teacher: nothing was pruned, and there is next to nothing to recover"
    empty = sparsity.empty_layers
    if empty:
        verb, pronoun = ("has", "it") if len(empty) == 1 else ("have", "them")
        yield (
            f"{_count(len(empty), 'layer')} {verb} no weight left ({_list_names(empty)}): images reach the logits past "
            f"{pronoun}, and no recovery under this mask can change that"
        )


def _about_statistics(teacher: ModelFacts, has_record: bool) -> Iterator[str]:
    if not teacher.num_batch_norms and not has_record:
        yield (
            "the teacher holds no statistics of real images: no layer of it normalises by running statistics, as batch "
            "norm does, and no activation record came with it. Its dreams follow its class scores and what is true of "
            "images in general, and nothing shows how near they are to what it was trained on: agreement on them is "
            "weaker evidence than for a network with batch norm, and the accuracy kept is not predicted from it; judge "
            "the model with --eval-data where you can"
        )


def _about_teacher(claims: Claims, decisions: Decisions) -> Iterator[str]:
    synthetic, accuracy = claims.synthetic, claims.accuracy
    guess = 1 / len(decisions.counts)
    share = synthetic.teacher_agrees_with_target
    is_proven = accuracy is not None and not _may_be_chance(accuracy.teacher, guess)
    if share is not None and not is_proven and _may_be_chance(_proportion(share, decisions.num_images), guess):
        yield (
            f"the teacher reads {share:.1%} of its own dreams as the class they were made for, which is chance "
            f"({guess:.1%}): the dreams may have had too few steps (synthesis.num_steps), the teacher may be untrained "
            "or damaged, or mean and std of its input may be wrong. A few labelled images (--eval-data) tell which; "
            "until then agreement is worth little"
        )
    if accuracy is not None and _may_be_chance(accuracy.teacher, guess):
        yield (
            f"the teacher itself is right on {accuracy.teacher.value:.1%} of {accuracy.source}, which is chance "
            f"({guess:.1%}): check mean and std of its input, and that the labels number the classes as it does"
        )


def _about_classes(claims: Claims, decisions: Decisions) -> Iterator[str]:
    synthetic, classes = claims.synthetic, claims.classes
    num_classes = len(decisions.counts)
    names = classes or [f"class {number}" for number in range(num_classes)]
    if len(decisions.seen) == 1:
        (only,) = decisions.seen
        yield (
            f"the teacher reads all {decisions.num_images:,} dreams as {names[only]}: agreement with it proves "
            "nothing, for a student that never looks at the image reaches it too"
        )
    elif synthetic.num_train < num_classes:
        yield (
            f"{synthetic.num_train:,} train images cannot show all {num_classes:,} classes, and the teacher finds "
            f"{len(decisions.seen):,} in them: recovery may lose the others, and agreement would not tell; "
            "use a profile with more images"
        )
    elif decisions.unseen:
        yield (
            f"the teacher finds no {_list_names([names[number] for number in decisions.unseen])} in "
            f"{decisions.num_images:,} dreams: recovery may lose {_pronoun(decisions.unseen)}, "
            "and agreement would not tell"
        )


def _about_lineage(lineage: Lineage | None, rungs: Sequence[Rung]) -> Iterator[str]:
    if lineage is None or lineage.descent is Descent.COPIED:
        return
    found = {
        Descent.RECALIBRATED: f"{_count(len(lineage.own), 'batch norm statistic')} of the student are not the "
        "teacher's: they were re-estimated after it was pruned",
        Descent.TRAINED: f"{_count(len(lineage.own), 'tensor')} of the student "
        f"{'is' if len(lineage.own) == 1 else 'are'} not the teacher's, by {lineage.deviation:.2%} of the weights' "
        "size: it was trained since it was pruned, or pruned from another network",
        Descent.UNRELATED: "the student's weights cannot be compared with the teacher's",
    }[lineage.descent]
    if rungs[-1].chosen and len(rungs) == 1:
        yield (
            f"{found}. It is handed back as it came: what a student has learnt from real data can be lost on dreams "
            "without a trace, and agreement says little about it (edgerecover help how-recovery-works). Where you "
            'know better, set recovery.fine_tuned = "recover" in a profile of your own and judge with --eval-data'
        )
    elif not rungs[0].chosen and lineage.descent is Descent.TRAINED:
        yield (
            f"{found}. It was changed nevertheless, and its real accuracy may have fallen although agreement rose: "
            "judge it with --eval-data"
        )


def _about_classes_judged(claims: Claims, decisions: Decisions) -> Iterator[str]:
    synthetic, classes = claims.synthetic, claims.classes
    num_classes, images = len(decisions.counts), f"{decisions.num_images:,} {synthetic.source}"
    names = classes or [f"class {number}" for number in range(num_classes)]
    if len(decisions.seen) == 1:
        yield (
            f"the teacher reads all {images} as {names[decisions.seen[0]]}: agreement with it proves nothing, for a "
            "file that never looks at the image reaches it too"
        )
    elif decisions.unseen:
        yield (
            f"the teacher finds no {_list_names([names[number] for number in decisions.unseen])} in {images}: "
            f"agreement says nothing about {_pronoun(decisions.unseen)}"
        )


def _about_file(claims: Claims, decisions: Decisions) -> Iterator[str]:
    synthetic, fidelity = claims.synthetic, claims.fidelity
    if len(decisions.seen) > 1 and _may_be_chance(fidelity.exported, decisions.chance):
        yield (
            f"the file is at chance level: it agrees with the teacher on {fidelity.exported.value:.1%} of held-out "
            f"{synthetic.source}, and always answering the same class would on {decisions.chance:.1%}; do not deploy it"
        )


def _about_rungs(rungs: Sequence[Rung]) -> Iterator[str]:
    for rung in rungs:
        if rung.name.endswith("(diverged)"):
            yield f"{rung.name}: its loss stopped being a number; a lower recovery.lr in a profile of your own may help"


def _about_recovery(claims: Claims, decisions: Decisions, same_architecture: bool) -> Iterator[str]:
    fidelity = claims.fidelity
    if len(decisions.seen) == 1:
        return
    chance = decisions.chance
    if fidelity.recovered is None or fidelity.pruned is None:
        return
    if _may_be_chance(fidelity.recovered, chance):
        yield (
            f"the recovered student is at chance level: it agrees with the teacher on "
            f"{fidelity.recovered.value:.1%} of held-out dreams, and always answering the same class would on "
            f"{chance:.1%}; do not deploy it"
        )
    elif claims.accuracy is None and _may_be_chance(fidelity.pruned, chance):
        came = "the pruned student" if same_architecture else "the student of another architecture, as it came,"
        yield (
            f"{came} decided by chance ({fidelity.pruned.value:.1%} agreement), so the recovered one knows only what "
            "dreams taught it; judge it with --eval-data if you can"
        )


def _about_same_answers(claims: Claims) -> Iterator[str]:
    """Of tasks without classes, by the numbers alone: intervals of proportions are wide for them (docs/adr/0052)."""
    fidelity, images = claims.fidelity, f"held-out {claims.synthetic.source}"
    agreement, chance = words_of(claims.task).agreement, fidelity.chance
    if chance is None:
        return
    same = f"always giving the same answer would have {chance:.1%}"
    if chance >= _HIGH_CHANCE:
        yield (
            f"the teacher answers nearly alike on all {images}: the file has {agreement} {fidelity.exported.value:.1%} "
            f"on them, and {same}, so that agreement proves little"
        )
    elif fidelity.exported.value <= chance:
        yield (
            f"the file is at chance level: {agreement} {fidelity.exported.value:.1%} on {images}, and {same}; do "
            "not deploy it"
        )
    elif claims.accuracy is None and fidelity.pruned is not None and fidelity.pruned.value <= chance:
        yield (
            f"before recovery the student was at chance level: {agreement} {fidelity.pruned.value:.1%} on {images}, "
            f"and {same}; the recovered one knows only what dreams taught it, so judge it with --eval-data if you can"
        )


def _about_outputs(claims: Claims) -> Iterator[str]:
    """Of several outputs, those with classes: a weighted mean does not show that one of them says nothing."""
    images = f"held-out {claims.synthetic.source}"
    for name, fidelity in claims.fidelity.by_output.items():
        if fidelity.by_class and sum(total > 0 for total in fidelity.by_class.totals) == 1:
            yield (
                f"output {name}: the teacher gives one and the same class on all {images}: agreement of this output "
                "proves nothing"
            )
    for name, accuracy in (claims.accuracy.by_output if claims.accuracy else {}).items():
        guess = 1 / len(accuracy.by_class.totals) if accuracy.by_class else 0.0
        if accuracy.by_class and _may_be_chance(accuracy.teacher, guess):
            yield (
                f"output {name}: the teacher itself is right on {accuracy.teacher.value:.1%} of {accuracy.source}, "
                f"which is chance ({guess:.1%}): check mean and std of its input, and that the labels number the "
                "classes as it does"
            )


def _may_be_chance(hits: Proportion, chance: float) -> bool:
    return hits.interval()[0] <= chance


def _proportion(share: float, total: int) -> Proportion:
    return Proportion(math.floor(share * total + 0.5), total)


def _list_names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _pronoun(items: Sequence[object]) -> str:
    return "it" if len(items) == 1 else "them"
