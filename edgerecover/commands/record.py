"""What `record` does: a dense network and its owner's images in, an activation record out."""

from __future__ import annotations

from pathlib import Path

from edgerecover.artifacts import RecordFacts, TaskKind, sha256_of
from edgerecover.errors import (
    BadInputError,
    unwritable_hint,
)
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_classifier
from edgerecover.progress import SILENT, Progress
from edgerecover.synthesis.record.file import write_record
from edgerecover.synthesis.record.make import Recording
from edgerecover.validation.evaluation import read_eval_data


def make_record(
    model_path: Path,
    data: Path,
    out: Path,
    recording: Recording,
    flags: ModelFlags,
    progress: Progress = SILENT,
) -> RecordFacts:
    """Write the activation record of a dense network from its owner's labelled images.

    Raises:
        BadInputError: the checkpoint or the images cannot be used, or `out` cannot be written.
    """
    teacher = open_classifier(model_path, flags)
    if teacher.doubt:
        progress.note(teacher.doubt)
    if teacher.output.task is not TaskKind.ONE_LABEL:
        raise BadInputError(
            f"{model_path}: records are made class by class, of networks that give one label for each image; this one "
            f"is for {teacher.output.description}",
            hint="recover it from its batch norm statistics, without a record",
        )
    images = read_eval_data(data, teacher.input, teacher.output, teacher.classes, progress)
    record = recording.record(teacher.network, images, teacher.output.shape[0], progress)
    try:
        size_bytes = write_record(out, record)
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}",
            hint=unwritable_hint(error, "name a file in a folder that is there"),
        ) from error
    return RecordFacts(out.name, sha256_of(out), size_bytes, record.kind, record.num_images, record.noise)
