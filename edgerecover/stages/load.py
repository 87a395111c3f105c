"""The load stage: all that can be known of a request before anything is made for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgerecover.bundle.write import check_writable
from edgerecover.compute import Compute, choose_compute
from edgerecover.config import Target
from edgerecover.distributed import ALONE, Ranks, check_same
from edgerecover.errors import BadInputError
from edgerecover.export.onnx import check_size
from edgerecover.models.network.digest import weights_sha256
from edgerecover.models.pair.networks import Models, open_models
from edgerecover.progress import SILENT, Progress
from edgerecover.pruning import Pruning
from edgerecover.report.words import input_words
from edgerecover.stages.engine import builder_notes, require_builder
from edgerecover.stages.export import (
    TwinFile,
    Write,
    check_trial,
    convert_on_trial,
    export_dense,
    exporter_for,
    require_converter,
)
from edgerecover.stages.npu import require_npu
from edgerecover.stages.precision import precisions_of
from edgerecover.stages.probe import STUDENT, TEACHER, Probed, check_connected, probe_networks
from edgerecover.stages.prune import prune_student
from edgerecover.stages.request import Request
from edgerecover.synthesis.record.file import read_record_of
from edgerecover.synthesis.record.values import Record
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evaluation import EvalSet, read_eval_data
from edgerecover.validation.scoring import Reference, scorer_of


@dataclass(frozen=True)
class Loaded:
    """Networks that were tried, and what came with them."""

    models: Models
    probed: Probed
    record: Record | None = None
    """Of the teacher's activations."""
    eval_set: EvalSet | None = None
    dense: TwinFile | None = None
    """The teacher as a file; None in a process that only assists."""

    @property
    def compute(self) -> Compute:
        """As all networks can be computed."""
        return self.probed.compute

    @property
    def one_by_one(self) -> bool:
        """A network decides by the images beside one in the batch, and so is judged on one image at a time."""
        return bool(self.probed.by_batch)

    @property
    def reference(self) -> Reference:
        """The teacher, as what files are compared with."""
        teacher = scorer_of(self.models.teacher, self.compute, one_by_one=self.one_by_one)
        return Reference(teacher, measure_of(self.models.output))

    def pruned(self, pruning: Pruning, target: Target) -> Loaded:
        """With the student as magnitude pruning leaves it.

        Raises:
            EdgeRecoverError: as `prune_student` does.
        """
        return replace(self, models=prune_student(self.models, pruning, target))


def check_request(request: Request) -> None:
    """Refuse what can be refused before a file is opened.

    Raises:
        BadInputError: the bundle cannot be written, or the target takes no such batch or precision.
        MissingError: the engine of the target could not be built, or its NPU compiled for, or MNN, which it runs.
    """
    check_writable(request.out)
    require_builder(request.target)
    require_npu(request.target)
    require_converter(request.target)
    precisions_of(request.target, request.precisions)
    static = request.target.static_batch
    if request.batch is None and static is not None and static.value:
        raise BadInputError(
            f"--batch 0: target {request.target.name} does not take files with a dynamic batch size ({static.source})",
            hint="name the batch size that it will run, e.g. --batch 1",
        )


def load(request: Request, folder: Path, ranks: Ranks = ALONE, progress: Progress = SILENT) -> Loaded:
    """Open, check and try everything that a run needs; the dense network is exported on trial.

    Args:
        request: of the user.
        folder: where the dense network's file goes.
        ranks: the first process tries the networks for all.
        progress: told of every warning.

    Raises:
        EdgeRecoverError: something cannot be used for what was asked, and why.
    """
    models, record = _open(request)
    progress.note(f"input: {input_words(models.student_facts)}")
    for note in builder_notes(request.target):
        progress.note(note)
    for warning in models.warnings:
        progress.note(warning)
    eval_set = None
    if request.eval_data is not None:
        eval_set = read_eval_data(request.eval_data, models.input, models.output, models.classes, progress)
    probed = ranks.from_first(partial(_probe, request, models, progress))
    probed = replace(probed, compute=replace(probed.compute, num_processes=ranks.size))
    for warning in probed.warnings:
        progress.note(warning)
    dense = _export_on_trial(models, folder, exporter_for(request, models.output))
    convert_on_trial(request.target, Path(dense.exported.path))
    check_trial(dense.exported, models.teacher, models.input, models.output, one_by_one=bool(probed.by_batch))
    return Loaded(models, probed, record, eval_set, dense)


def load_to_assist(request: Request, ranks: Ranks) -> Loaded:
    """The same for a process that only shares the work of the first.

    Raises:
        EdgeRecoverError: as `load` does.
    """
    models, record = _open(request)
    return Loaded(models, ranks.from_first(lambda: _probe(request, models)), record)


def check_same_networks(models: Models, ranks: Ranks) -> None:
    """Several processes must have opened the same networks.

    Raises:
        BadInputError: they have not.
    """
    if ranks.size > 1:
        for what, network in (("the teacher", models.teacher), ("the student", models.student)):
            check_same(ranks, what, weights_sha256(network))


def _open(request: Request) -> tuple[Models, Record | None]:
    models = open_models(
        request.model_path,
        request.flags,
        teacher=request.teacher,
        teacher_arch=request.teacher_arch,
        will_prune=request.pruning is not None,
    )
    return models, read_record_of(request.record, models.teacher, models.input.shape)


def _probe(request: Request, models: Models, progress: Progress = SILENT) -> Probed:
    """What a trial of the networks shows; refuses those that no file of this request can stand for."""
    networks = {TEACHER: models.teacher, STUDENT: models.student}
    probed = probe_networks(networks, models.input, choose_compute(request.device), progress)
    check_connected(models.student, models.masks, models.student_facts.sparsity, models.input)
    if probed.by_batch and request.batch != 1:
        size = "with a dynamic batch size" if request.batch is None else f"of {request.batch} images at once"
        raise BadInputError(
            f"{probed.by_batch}; so the decisions of a file {size} are not defined image by image",
            hint="export with --batch 1, which is judged one image at a time; or give the network running statistics",
        )
    return probed


def _export_on_trial(models: Models, folder: Path, write: Write) -> TwinFile:
    """The dense network as a file: an operator that cannot be exported is found before anything is made."""
    for network in (models.teacher, models.student):
        check_size(network)
    if models.student_facts.macs_kept is not None or not models.same_architecture:
        trial = folder / "trial.onnx"
        write(models.student, models.input, trial)
        trial.unlink()
    return export_dense(models.teacher, models.input, folder, write)
