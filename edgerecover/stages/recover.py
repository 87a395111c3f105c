"""The recover stage: the rungs in batches that memory suffices for, or a recovery that the run folder holds already."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from edgerecover.compute import is_out_of_memory, release_memory
from edgerecover.config import Profile, in_batches_of
from edgerecover.distributed import Ranks
from edgerecover.progress import SILENT, Progress
from edgerecover.recovery.checkpoints import Checkpoints
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import Recovered, recover
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.store import read_recovered, recovery_key, write_recovered
from edgerecover.run_folder import discard
from edgerecover.stages.load import Loaded
from edgerecover.stages.request import Request
from edgerecover.stages.synthesize import Images

_LEAST_BATCH = 4
"""Images: below, batch norm has no statistics to speak of."""


def recover_student(
    request: Request, loaded: Loaded, images: Images, ranks: Ranks, progress: Progress = SILENT
) -> tuple[Profile, Recovered, bool]:
    """Recover the student; when out of memory, again with half the batch.

    A recovery in smaller batches is another one: it has a key of its own, and the report names its batch.

    Returns:
        The profile with the batch size that memory sufficed for, the recovery, and whether it was there already.

    Raises:
        StageError: the student diverged.
    """
    profile = images.profile
    asked = profile.recovery.batch_size
    while True:
        folder = _folder(request, profile, loaded, images)
        checkpoints = Checkpoints(folder / "steps", request.checkpoint_every_s, progress)
        if request.fresh and ranks.is_first:
            discard(folder)
        found = read_recovered(folder, loaded.models.student) if ranks.is_first else None
        if ranks.from_first(partial(bool, found)):
            progress.note("reusing the finished recovery")
            return profile, found or Recovered(loaded.models.student, ()), True
        try:
            made = _recover(request, profile, loaded, images, checkpoints, ranks, progress)
            break
        except Exception as error:
            # Of several processes the others may have enough, and wait: this one says so, and the run ends.
            if not is_out_of_memory(error) or profile.recovery.batch_size < _LEAST_BATCH or ranks.size > 1:
                raise
        release_memory()
        smaller = in_batches_of(profile.recovery, profile.recovery.batch_size // 2)
        progress.note(f"out of memory at batch size {profile.recovery.batch_size}; retrying with {smaller.batch_size}")
        profile = profile.model_copy(update={"recovery": smaller})
    if profile.recovery.batch_size < asked:
        warning = (
            f"out of memory at batch size {asked}: recovered at batch size {profile.recovery.batch_size}, "
            "which changes the result"
        )
        made = replace(made, warnings=(warning, *made.warnings))
    if ranks.is_first:
        write_recovered(folder, made)
        checkpoints.discard()
    return profile, made, False


def _folder(request: Request, profile: Profile, loaded: Loaded, images: Images) -> Path:
    """Where the run folder keeps this recovery: named by all that it depends on."""
    models = loaded.models
    key = recovery_key(
        models.student, models.masks, f"{images.key} {images.sets.sha256}", profile.recovery, request.seed
    )
    return request.work / f"recovered-{key}"


def _recover(
    request: Request,
    profile: Profile,
    loaded: Loaded,
    images: Images,
    checkpoints: Checkpoints,
    ranks: Ranks,
    progress: Progress,
) -> Recovered:
    models, asked = loaded.models, images.profile.recovery.batch_size
    # Refreshes dream too, in batches of their own.
    dreamt_at_once = max(1, profile.synthesis.batch_size * profile.recovery.batch_size // asked)
    return recover(
        Pair.of(models),
        images.sets,
        profile.recovery,
        Execution(loaded.compute, progress, checkpoints, ranks),
        seed=request.seed,
        synthesis=in_batches_of(profile.synthesis, dreamt_at_once),
        record=loaded.record,
    )
