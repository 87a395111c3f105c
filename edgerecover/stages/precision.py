"""The precision stage: the files of a recovered network in every precision that its target can use."""

# Shapes: N images, K classes.

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.artifacts import Exported, InputSpec, Int8Sums, Precision, RefusedVariant, Variant
from edgerecover.artifacts.int8 import Int8Scheme, scheme_named
from edgerecover.config import Target
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import export
from edgerecover.export.precision.make import MAX_POINTS_LOST, make_variants
from edgerecover.export.precision.trial import Calibration
from edgerecover.models.network.digest import weights_sha256
from edgerecover.progress import SILENT, Progress
from edgerecover.recovery.checkpoints import Checkpoints
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import Recovered
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.quantized import DistilledForInt8, distil_for_int8
from edgerecover.synthesis.image_set import ImageSet, SyntheticSets
from edgerecover.validation.scoring import int8_sums_for, outputs_of

if TYPE_CHECKING:
    from edgerecover.stages.load import Loaded
    from edgerecover.stages.request import Request
    from edgerecover.stages.synthesize import Images

_DEFAULT_SCHEME = "u8s8"
"""Of a target that names none, when int8 is asked for all the same."""
_CHOSEN_ON = 512
"""Images."""


@dataclass(frozen=True)
class Variants:
    """What was made, float32 first, and what could not be."""

    made: tuple[Variant, ...]
    refused: tuple[RefusedVariant, ...]


def precisions_of(target: Target, asked: Sequence[Precision]) -> tuple[Precision, ...]:
    """Float32 first, then what was asked for or, where nothing was, what the target can use.

    Raises:
        BadInputError: the target cannot use what was asked for.
    """
    usable = tuple(Precision(name) for name in target.precisions.value)
    if unusable := [precision for precision in asked if precision not in usable]:
        raise BadInputError(
            f"--precision {unusable[0].value}: target {target.name} does not use it; "
            f"it takes {', '.join(precision.value for precision in usable)}",
            hint="leave out --precision to ship the fastest one that passes",
        )
    wanted = asked or usable
    return (Precision.FP32, *(precision for precision in wanted if precision is not Precision.FP32))


def make_variants_of(
    request: Request,
    loaded: Loaded,
    images: Images,
    recovered: Recovered,
    exported: Exported,
    folder: Path,
    progress: Progress = SILENT,
) -> Variants:
    """Make every precision that was asked for; int8 that loses too much is distilled in before it is given up.

    Args:
        request: names target and precisions; its profile says what a precision may cost, and how to distil.
        loaded: teacher, masks, and which channels are which.
        images: calibration, and of train what is missing, to choose on; train to distil on.
        recovered: the network that the float32 file was made from.
        exported: the float32 file, its path in full.
        folder: where the files go.
        progress: where to report.

    Raises:
        BadInputError: the float32 file cannot be prepared or run.
    """
    wanted = precisions_of(request.target, request.precisions)
    if wanted == (Precision.FP32,):
        return Variants((Variant(Precision.FP32, exported, "as exported", (), ""),), ())
    models, target = loaded.models, request.target
    scheme = scheme_named(target.int8_scheme.value if target.int8_scheme else _DEFAULT_SCHEME)
    chosen_on = _chosen_on(images.sets)
    reference = loaded.reference
    calibration = Calibration(
        chosen_on, outputs_of(reference.score, chosen_on, reference.measure).answers, reference.measure
    )
    answers = make_variants(
        exported, wanted, scheme, calibration, models.input, folder,
        max_points_lost=request.profile.gates.max_precision_loss_points, sums=int8_sums_for(target), progress=progress,
    )  # fmt: skip
    # What others have trained would be lost in distillation, as it would be in recovery.
    if not recovered.handed_back and request.profile.recovery.num_steps:
        answers = tuple(
            _distil(answer, scheme, calibration, request, loaded, images.sets, recovered, exported, folder, progress)
            if isinstance(answer, RefusedVariant) and answer.precision is Precision.INT8 and answer.tries
            else answer
            for answer in answers
        )
    return Variants(
        made=tuple(answer for answer in answers if isinstance(answer, Variant)),
        refused=tuple(answer for answer in answers if isinstance(answer, RefusedVariant)),
    )


def _chosen_on(sets: SyntheticSets) -> ImageSet:
    """The calibration set and as much of the training set as makes `_CHOSEN_ON` images.

    Of 128 images, one decision is almost the point that a precision may cost; what is chosen would be chosen by chance.
    """
    shards, missing = list(sets.calibration.shards), _CHOSEN_ON - len(sets.calibration)
    for shard in sets.train.shards:
        if missing <= 0:
            break
        shards.append(shard)
        missing -= shard.num_images
    return replace(sets.calibration, shards=tuple(shards))


def _distil(
    refused: RefusedVariant,
    scheme: Int8Scheme,
    calibration: Calibration,
    request: Request,
    loaded: Loaded,
    sets: SyntheticSets,
    recovered: Recovered,
    exported: Exported,
    folder: Path,
    progress: Progress,
) -> Variant | RefusedVariant:
    models, profile, student = loaded.models, request.profile, recovered.student
    described = [
        weights_sha256(student), sets.sha256, repr(scheme), profile.recovery.model_dump(mode="json"), request.seed,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    work = None if request.fresh else request.work
    checkpoints = Checkpoints(work, request.checkpoint_every_s, progress)
    distilled = distil_for_int8(
        replace(Pair.of(models), student=student), sets.train, profile.recovery, scheme,
        Execution(loaded.compute, progress, checkpoints.under(f"int8-{key}")), seed=request.seed,
    )  # fmt: skip
    answer = make_distilled(
        distilled, exported, scheme, calibration, models.input, folder,
        max_points_lost=profile.gates.max_precision_loss_points, sums=int8_sums_for(request.target), progress=progress,
    )  # fmt: skip
    return replace(answer, tries=(*refused.tries, *answer.tries))


def make_distilled(
    distilled: DistilledForInt8,
    float32: Exported,
    scheme: Int8Scheme,
    calibration: Calibration,
    input: InputSpec,
    folder: Path,
    *,
    max_points_lost: float = MAX_POINTS_LOST,
    sums: Int8Sums = Int8Sums.EXACT,
    progress: Progress = SILENT,
) -> Variant | RefusedVariant:
    """Export a student that was distilled for int8, and make its int8 variant in `folder`.

    Args:
        distilled: the student, and how many steps it took.
        float32: the export of the student before distillation: agreement lost is counted from it.
        scheme: of int8.
        calibration: what the variant is chosen on.
        input: of the network.
        folder: where `int8.onnx` goes.
        max_points_lost: agreement that int8 may cost, in percentage points.
        sums: of int8, as the variant's tries are measured.
        progress: where to report.

    Raises:
        StageError: the file cannot be written.
        BadInputError: the student can no longer be exported.
    """
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as temporary:
        path = Path(temporary) / "float32.onnx"
        exported = export(distilled.student, input, path, opset=float32.opset, batch=float32.batch)
        (answer,) = make_variants(
            exported, [Precision.INT8], scheme, calibration, input, folder,
            counted_from=float32, max_points_lost=max_points_lost, sums=sums, progress=progress,
        )  # fmt: skip
    how = f"after {distilled.num_steps} steps of quantisation-aware distillation"
    tries = tuple(replace(one, name=f"{how}, {one.name}") for one in answer.tries)
    if isinstance(answer, Variant):
        return replace(answer, scheme=f"{answer.scheme}, {how}", tries=tries)
    return replace(answer, reason=f"{how}: {answer.reason}", tries=tries)
