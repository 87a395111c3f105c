"""What `synthesize` does: a teacher's synthetic images as arrays, for quantisers and other tools that calibrate.

They are the images that `run` works with, under the same key: what one made the other reuses.
"""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgerecover import __version__
from edgerecover.artifacts import SyntheticFacts, TaskKind, sha256_of, to_json
from edgerecover.compute import choose_compute
from edgerecover.errors import BadInputError
from edgerecover.files import building_beside, move_into_place
from edgerecover.models.onnx.file import is_onnx
from edgerecover.models.pair.networks import Classifier, open_classifier
from edgerecover.progress import SILENT, Progress
from edgerecover.report.picture import SHEET_NAME, contact_sheet
from edgerecover.run_folder import held
from edgerecover.stages.probe import TEACHER, probe_networks
from edgerecover.stages.request import DreamRequest
from edgerecover.stages.synthesize import Images, folder_of, make_images
from edgerecover.synthesis.image_set import ImageSet
from edgerecover.synthesis.record.file import read_record_of
from edgerecover.synthesis.sets import SPLITS
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source

FACTS_NAME = "synthetic.json"
_BATCH = 256


@dataclass(frozen=True)
class ImageFiles:
    """What `synthesize_images` wrote."""

    files: tuple[str, ...]
    facts: SyntheticFacts
    task: TaskKind
    """What the teacher is for."""


def synthesize_images(request: DreamRequest, progress: Progress = SILENT) -> ImageFiles:
    """Dream from a teacher and write each set as `NAME.npy`, float32 network inputs (N, C, H, W).

    The folder holds `NAME_targets.npy` beside it (int64 (N,), where the images were made for classes), `dreams.png`
    and `synthetic.json`: shapes, pixel scale, digests. It appears whole or not at all.

    Raises:
        BadInputError: the teacher cannot be opened or gives no gradient, or `out` holds something else.
        StageError: the images diverged.
    """
    if is_onnx(request.teacher):
        raise BadInputError(
            f"{request.teacher}: an ONNX file gives no gradients, which dreams need",
            hint="name the dense network's PyTorch checkpoint",
        )
    with held(request.work, request.out, progress):
        return _synthesize_images(request, progress)


def _synthesize_images(request: DreamRequest, progress: Progress) -> ImageFiles:
    _require_free(request.out)
    wished = choose_compute(request.device)
    teacher = open_classifier(request.teacher, request.flags)
    if teacher.doubt:
        progress.note(teacher.doubt)
    compute = probe_networks({TEACHER: teacher.network}, teacher.input, wished, progress).compute
    record = read_record_of(request.record, teacher.network, teacher.input.shape)
    source = Source(teacher.network, teacher.input, teacher.output, compute, record)
    settled = settle(request.profile, source, progress, request.work)
    folder = folder_of(source, settled.profile, request.seed, request.work)
    images = make_images(source, settled, folder, seed=request.seed, splits=request.splits, progress=progress)
    request = replace(request, profile=settled.profile)
    try:
        files = _write(request, teacher, images)
    except OSError as error:
        raise BadInputError(
            f"--out {request.out}: {error.strerror or error}", hint="free space there, or name another folder"
        ) from error
    return ImageFiles(files, images.facts, teacher.output.task)


def _require_free(out: Path) -> None:
    """Images of an earlier run are replaced; anything else is left alone."""
    ours = {FACTS_NAME, SHEET_NAME, *(f"{split}{end}.npy" for split in SPLITS for end in ("", "_targets"))}
    free = not out.exists() or (out.is_dir() and {path.name for path in out.iterdir()} <= ours)
    if out.is_symlink() or not free:
        raise BadInputError(
            f"--out {out}: it already exists and is not a folder of synthetic images",
            hint="name another folder, or remove it yourself",
        )


def _write(request: DreamRequest, teacher: Classifier, images: Images) -> tuple[str, ...]:
    """Whole at `request.out`, or nothing; the names of the files."""
    with building_beside(request.out) as building:
        building.mkdir()
        for split in request.splits:
            _write_set(building, split, getattr(images.sets, split))
        (building / SHEET_NAME).write_bytes(contact_sheet(getattr(images.sets, request.splits[0]))[0])
        described = _describe(request, teacher, images, building)
        (building / FACTS_NAME).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        files = tuple(sorted(path.name for path in building.iterdir()))
        move_into_place(building, request.out)
    return files


def _write_set(folder: Path, name: str, images: ImageSet) -> None:
    """Through a memory map: a set need not fit in memory."""
    import numpy as np

    shape = (len(images), *images.bytes_of([0]).shape[1:])
    array_NCHW = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
    start = 0
    for batch_NCHW in images.batches(_BATCH):
        array_NCHW[start : start + len(batch_NCHW)] = batch_NCHW
        start += len(batch_NCHW)
    array_NCHW.flush()
    if targets := images.targets():
        np.save(folder / f"{name}_targets.npy", np.array(targets, np.int64), allow_pickle=False)


def _describe(request: DreamRequest, teacher: Classifier, images: Images, folder: Path) -> dict[str, Any]:
    sets = images.sets
    scale = getattr(sets, request.splits[0]).scale
    return {
        "edgerecover_version": __version__,
        "teacher": request.teacher.name,
        "teacher_sha256": teacher.facts.sha256,
        "architecture": teacher.facts.architecture,
        "profile": request.profile.name,
        "seed": request.seed,
        "record": request.record.name if request.record else None,
        "layout": "NCHW",
        "dtype": "float32",
        "scale": "network inputs: (pixel - mean) / std, pixels from range[0] to range[1]",
        "input": to_json(teacher.input),
        "lowest": list(scale.low),
        "highest": list(scale.high),
        "output": to_json(teacher.output),
        "num_classes": teacher.output.num_classes,
        "classes": list(teacher.classes) if teacher.classes else None,
        "teacher_agrees_with_target": images.facts.teacher_agrees_with_target,
        "sets": {split: {"num_images": len(getattr(sets, split))} for split in request.splits},
        "files": {path.name: {"sha256": sha256_of(path)} for path in sorted(folder.iterdir())},
    }
