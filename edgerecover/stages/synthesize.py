"""The synthesize stage: a profile's open questions settled by the teacher, then its images, made or found again."""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgerecover.artifacts import SyntheticFacts, to_json
from edgerecover.config import Profile
from edgerecover.distributed import ALONE, Ranks
from edgerecover.progress import SILENT, Progress
from edgerecover.run_folder import discard
from edgerecover.stages.load import Loaded
from edgerecover.stages.load_file import LoadedFile
from edgerecover.stages.request import FileRequest, Request
from edgerecover.synthesis.image_set import ImageSet, SyntheticSets
from edgerecover.synthesis.sets import SPLITS, procedural_set, synthesis_key, synthesize
from edgerecover.synthesis.settle import Settled, settle
from edgerecover.synthesis.source import Source
from edgerecover.validation.evaluation import EvalSet
from edgerecover.validation.scoring import Images as ScoredImages

GOLDEN_IMAGES = 16


def source_of(loaded: Loaded) -> Source:
    """The teacher of a run, as what images are made from."""
    models = loaded.models
    return Source(models.teacher, models.input, models.output, loaded.compute, loaded.record)


def folder_of(source: Source, profile: Profile, seed: int, work: Path) -> Path:
    """Where `work` keeps the images of a settled profile: named by all that they depend on."""
    return work / f"dreams-{synthesis_key(source, profile.synthesis, seed)}"


@dataclass(frozen=True)
class Images:
    """What came of it."""

    sets: SyntheticSets
    facts: SyntheticFacts
    profile: Profile
    """Without open questions."""
    key: str
    """Of all that the images depend on."""

    def golden_NCHW(self) -> Any:
        """A few network inputs, float32 (n, C, H, W), that latency is measured with and a device is checked with."""
        return self.sets.held_back.images_of(range(min(GOLDEN_IMAGES, len(self.sets.held_back))))


def make_images_for_run(
    request: Request,
    loaded: Loaded,
    ranks: Ranks,
    progress: Progress = SILENT,
    announce: Callable[[Profile], None] = lambda _: None,
) -> Images:
    """The sets of a run.

    Args:
        request: of the user.
        loaded: the teacher.
        ranks: the processes that share the work.
        progress: where to report.
        announce: told the settled profile where one process has to make them all.

    Raises:
        StageError: the images diverged.
    """
    source = source_of(loaded)
    reused_from = None if request.fresh else request.work
    settled = ranks.from_first(partial(settle, request.profile, source, progress, reused_from))
    folder = folder_of(source, settled.profile, request.seed, request.work)
    if request.fresh and ranks.is_first:
        discard(folder)
    if ranks.size == 1 and not folder.exists():
        announce(settled.profile)
    ranks.wait()  # until the first has discarded what is not to be used again
    return make_images(source, settled, folder, seed=request.seed, ranks=ranks, progress=progress)


def make_images(
    source: Source,
    settled: Settled,
    folder: Path,
    *,
    seed: int,
    splits: tuple[str, ...] = SPLITS,
    ranks: Ranks = ALONE,
    progress: Progress = SILENT,
) -> Images:
    """Make the sets of a settled profile, or take those that the folder holds already.

    Args:
        source: what they are made from.
        settled: the profile.
        folder: as `folder_of` names it.
        seed: of all randomness.
        splits: which sets.
        ranks: the processes that share the work.
        progress: where to report.

    Raises:
        StageError: the images diverged.
    """
    settings = settled.profile.synthesis
    sets, facts = synthesize(source, settings, seed=seed, folder=folder, splits=splits, progress=progress, ranks=ranks)
    facts = replace(facts, mirror_correlation=settled.mirror_correlation)
    return Images(sets, facts, settled.profile, folder.name.partition("-")[2])


# --- what a file from elsewhere is judged on ------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """Images that a file is judged on."""

    images: ScoredImages
    golden: ImageSet
    """Synthetic images, of which some go into the bundle."""
    facts: SyntheticFacts

    def golden_NCHW(self) -> Any:
        """A few network inputs, float32 (n, C, H, W), that latency is measured with and a device is checked with."""
        return self.golden.images_of(range(min(GOLDEN_IMAGES, len(self.golden))))


@dataclass(frozen=True)
class _RealImages:
    """Labelled images without their labels."""

    labelled: EvalSet

    def __len__(self) -> int:
        return len(self.labelled)

    def batches(self, batch_size: int) -> Iterator[Any]:
        return (images_NCHW for images_NCHW, _ in self.labelled.batches(batch_size))


def find_evidence(request: FileRequest, loaded: LoadedFile, progress: Progress = SILENT) -> Evidence:
    """Held-back dreams; of an ONNX teacher, real images where there are some, else fractals.

    Raises:
        StageError: the images diverged.
    """
    teacher = loaded.teacher
    if teacher.network is not None:
        network = teacher.network.network
        source = Source(network, teacher.input, teacher.output, teacher.probed.compute, loaded.record)
        settled = settle(request.profile, source, progress, request.work)
        folder = folder_of(source, settled.profile, request.seed, request.work)
        images = make_images(source, settled, folder, seed=request.seed, splits=("held_back",), progress=progress)
        network.cpu()
        return Evidence(images.sets.held_back, images.sets.held_back, images.facts)
    described = json.dumps([to_json(teacher.input), request.seed], sort_keys=True)
    folder = request.work / f"fractals-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    fractals, facts = procedural_set(
        teacher.input, request.profile.synthesis.num_held_back, seed=request.seed, folder=folder
    )
    if loaded.eval_set is None:
        return Evidence(fractals, fractals, facts)
    real = SyntheticFacts(0, 0, len(loaded.eval_set), None, 0.0, facts.reused, "real images")
    return Evidence(_RealImages(loaded.eval_set), fractals, real)
