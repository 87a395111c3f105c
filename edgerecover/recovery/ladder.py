"""The recovery stage: a ladder of rungs, each judged on images that no rung trains on; the best student is returned."""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - works on networks throughout; only the pipeline imports it

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import nn

from edgerecover.artifacts import Descent, Lineage, Rung
from edgerecover.config import Recovery, Synthesis
from edgerecover.distributed import ALONE
from edgerecover.models.build.architectures import load_state
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.pruning import apply_masks
from edgerecover.recovery.blockwise import reconstruct_blocks
from edgerecover.recovery.checkpoints import NO_CHECKPOINTS, State
from edgerecover.recovery.distill import distill
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.judge import CalibrationJudge, Judge, Onlooker, Watch, state_on_cpu
from edgerecover.recovery.layerwise import fit_layers
from edgerecover.recovery.lineage import is_protected, lineage_of
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.statistics import repair_statistics
from edgerecover.runtime.machine.memory import release_freed_memory
from edgerecover.synthesis.image_set import ImageSet, SyntheticSets
from edgerecover.synthesis.record.values import Record


@dataclass(frozen=True)
class Recovered:
    """The best student found, and what each rung was worth."""

    student: nn.Module
    """On the CPU, in eval mode, without gradients."""
    rungs: tuple[Rung, ...]
    """In the order climbed; the first is the original student. Exactly one is `chosen`."""
    lineage: Lineage | None = None
    """Where the original student's weights came from."""
    warnings: tuple[str, ...] = ()
    """Problems that were worked around, for the report."""

    @property
    def handed_back(self) -> bool:
        """Whether the student was returned unchanged because it had been fine-tuned."""
        own = self.lineage is not None and self.lineage.descent in (Descent.TRAINED, Descent.UNRELATED)
        return own and len(self.rungs) == 1


def recover(
    pair: Pair,
    sets: SyntheticSets,
    settings: Recovery,
    execution: Execution,
    *,
    seed: int,
    synthesis: Synthesis | None = None,
    record: Record | None = None,
    watch: Watch = lambda _name, _student: None,
) -> Recovered:
    """Repair statistics, fit layers, reconstruct blocks, distil, and keep the best of all rungs on the calibration set.

    The original student is one of the candidates. A later rung replaces an earlier one only where it agrees on more
    images, or comes nearer to the teacher's logits, than chance would explain; where the images cannot distinguish the
    two, the earlier one is kept, and a warning says so. So the result is never worse by that measure. For a fine-tuned
    student that measure says little: it is returned unchanged, unless it knows no class or `settings.fine_tuned` is
    "recover" (docs/adr/0016).

    Args:
        pair: the original student and its teacher; neither is changed.
        sets: train to learn from, calibration to choose by; the held-out set is not used.
        settings: of the profile.
        execution: the first of its processes alone judges, checkpoints and reports, and its answer counts. A run that
            resumes ends with the student of an uninterrupted one.
        seed: of batch order and augmentation.
        synthesis: how the sets were made, so that distillation can make more images; None leaves those out.
        record: of the teacher's activations, where the sets were made with one.
        watch: called with each rung's name and its student, which it must leave as it is.
    """
    if not execution.ranks.is_first:
        execution = replace(execution, checkpoints=NO_CHECKPOINTS)
    original, pair = pair.student, pair.copy_to(execution.compute)
    is_guided = bool(batch_norms_of(pair.teacher)) or record is not None
    judge = (
        CalibrationJudge(pair, sets.calibration, execution, is_guided, watch)
        if execution.ranks.is_first
        else Onlooker()
    )
    lineage = lineage_of(pair)
    if settings.fine_tuned == "keep" and execution.ranks.from_first(
        lambda: is_protected(lineage, pair, sets, execution.compute)
    ):
        execution.progress.note("the student has been fine-tuned: it is returned unchanged")
        judge.consider("as it came (fine-tuned)", pair.student, 0.0)
        return Recovered(copy.deepcopy(original).cpu().eval().requires_grad_(False), judge.rungs(), lineage)
    judge.consider("pruned" if pair.channels.related else "as it came", pair.student, 0.0)
    if settings.repair_statistics and batch_norms_of(pair.student):
        _repair(pair, sets.train, settings, execution, judge)
    if settings.layerwise and pair.channels.related:
        _fit(pair, sets.train, settings, execution, judge)
    if settings.blockwise and settings.blockwise.num_steps and pair.channels.related:
        _reconstruct(pair, sets.train, settings, execution, judge, seed)
    warnings: tuple[str, ...] = ()
    if settings.num_steps:
        warnings = _distil(pair, sets.train, settings, execution, judge, seed, synthesis, record)
    best = copy.deepcopy(original).cpu()
    load_state(best, judge.best_state)
    apply_masks(best, pair.masks)
    return Recovered(best.eval().requires_grad_(False), judge.rungs(), lineage, (*warnings, *judge.doubts()))


def _repair(pair: Pair, images: ImageSet, settings: Recovery, execution: Execution, judge: Judge) -> None:
    with _rung("statistics repair", pair.student, judge, execution) as is_done:
        if not is_done:
            # With several processes, none records how far its share got: the work is quickly redone.
            kept = execution.checkpoints if execution.ranks.size == 1 else NO_CHECKPOINTS
            repair_statistics(pair, images, settings.batch_size, replace(execution, checkpoints=kept))


def _fit(pair: Pair, images: ImageSet, settings: Recovery, execution: Execution, judge: Judge) -> None:
    with _rung("layer-wise least squares", pair.student, judge, execution) as is_done:
        if not is_done and execution.ranks.is_first:
            fit_layers(pair, images, settings.batch_size, replace(execution, ranks=ALONE))
        load_state(pair.student, execution.ranks.from_first(lambda: state_on_cpu(pair.student)))


def _reconstruct(
    pair: Pair, images: ImageSet, settings: Recovery, execution: Execution, judge: Judge, seed: int
) -> None:
    """Train block by block, from the best student so far: an earlier rung's may have too few images to help."""
    assert settings.blockwise
    load_state(pair.student, execution.ranks.from_first(lambda: judge.best_state))
    with _rung("block-wise reconstruction", pair.student, judge, execution) as is_done:
        if not is_done and execution.ranks.is_first:
            reconstruct_blocks(
                pair, images, settings.blockwise, settings.batch_size, replace(execution, ranks=ALONE),
                seed=seed, by_batch=settings.bn == "adapt",
            )  # fmt: skip
        load_state(pair.student, execution.ranks.from_first(lambda: state_on_cpu(pair.student)))


def _distil(
    pair: Pair,
    images: ImageSet,
    settings: Recovery,
    execution: Execution,
    judge: Judge,
    seed: int,
    synthesis: Synthesis | None,
    record: Record | None,
) -> tuple[str, ...]:
    """Climb the last rung; returns its warnings."""
    curve = judge.curve_of(pair.student, settings.num_steps)
    distilled = distill(
        pair, images, settings, execution,
        seed=seed, synthesis=synthesis, record=record,
        carried={"curve": curve} if curve else None, watch=curve.note if curve else None,
    )  # fmt: skip
    if settings.repair_statistics and settings.bn == "adapt" and pair.channels.related and batch_norms_of(pair.student):
        # They follow the last few batches, of few images each; now all images have a say.
        release_freed_memory()
        repair_statistics(pair, images, settings.batch_size, replace(execution, checkpoints=NO_CHECKPOINTS))
    # The rungs below still stand; a student that diverged is judged like any other, and loses or not.
    name = "distillation (diverged)" if distilled.diverged else "distillation"
    judge.consider(name, pair.student, distilled.seconds, curve.points if curve else ())
    return distilled.warnings


@contextmanager
def _rung(name: str, student: nn.Module, judge: Judge, execution: Execution) -> Iterator[bool]:
    """Judge the student after the block and record its state; yields whether an interrupted run had done so."""
    checkpoint = execution.checkpoints.of(name.replace(" ", "-"))
    done = execution.ranks.from_first(checkpoint.read)
    if done is not None:
        load_state(student, done.tensors)
    yield done is not None
    seconds = done.facts["seconds"] if done else checkpoint.seconds
    if done is None:
        checkpoint.write(State(student.state_dict(), {"seconds": seconds}))
    judge.consider(name, student, seconds)
    release_freed_memory()
