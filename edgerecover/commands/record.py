"""What `record` does: a dense network and its owner's images in, an activation record out."""

from __future__ import annotations

from pathlib import Path

from edgerecover.artifacts import OutputSpec, RecordFacts, TaskKind, sha256_of
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
    output = OutputSpec(TaskKind.ONE_LABEL, (teacher.num_classes,))
    images = read_eval_data(data, teacher.input, output, teacher.classes, progress)
    record = recording.record(teacher.network, images, teacher.num_classes, progress)
    try:
        size_bytes = write_record(out, record)
    except OSError as error:
        raise BadInputError(
            f"--out {out}: {error.strerror or error}",
            hint=unwritable_hint(error, "name a file in a folder that is there"),
        ) from error
    return RecordFacts(out.name, sha256_of(out), size_bytes, record.kind, record.num_images, record.noise)
