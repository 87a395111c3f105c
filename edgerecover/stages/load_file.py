"""The load stage of a file from elsewhere: the file, its teacher, and the networks it came from if they are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgerecover.artifacts import Activation, InputSpec, ModelFacts, NumValues, OutputSpec, TaskKind
from edgerecover.bundle.manifest import RESERVED_NAMES, check_paths
from edgerecover.compute import Compute, choose_compute
from edgerecover.config import Target
from edgerecover.errors import BadInputError
from edgerecover.models.build.file_outputs import find_file_output
from edgerecover.models.name.spec import resolve
from edgerecover.models.onnx.file import OnnxFile, is_onnx, last_activation, own_operators, read_onnx
from edgerecover.models.pair.networks import Classifier, open_classifier
from edgerecover.progress import SILENT, Progress
from edgerecover.runtime.session.onnxruntime import Session
from edgerecover.runtime.session.probe import probe
from edgerecover.stages.export import convert_on_trial, require_converter
from edgerecover.stages.npu import require_npu
from edgerecover.stages.probe import TEACHER, Probed, probe_networks
from edgerecover.stages.request import FileRequest
from edgerecover.synthesis.record.file import read_record_of
from edgerecover.synthesis.record.values import Record
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evaluation import EvalSet, read_eval_data
from edgerecover.validation.scoring import Reference, Scorer, int8_sums_for, open_on_cpu, scorer_of


@dataclass(frozen=True)
class FileTeacher:
    """A teacher of either kind."""

    score: Scorer
    network: Classifier | None
    """None when it is an ONNX file: there is no gradient to dream along."""
    input: InputSpec
    output: OutputSpec
    classes: tuple[str, ...] | None
    facts: ModelFacts
    probed: Probed
    """What a trial of it showed, where it is a network."""

    @property
    def reference(self) -> Reference:
        """What files are compared with."""
        return Reference(self.score, measure_of(self.output))


@dataclass(frozen=True)
class LoadedFile:
    """A file that ran once, and what it is judged beside."""

    file: OnnxFile
    session: Session
    teacher: FileTeacher
    student: Classifier | None
    """The network that the file was exported from, where it is known."""
    pruned: Classifier | None
    """The network before its recovery, where it is known."""
    eval_set: EvalSet | None
    record: Record | None

    @property
    def origin(self) -> Classifier | None:
        """Whose zeros the file must have kept; None where no such network is known."""
        return self.student or self.pruned

    @property
    def one_by_one(self) -> bool:
        """The teacher decides by the images beside one in the batch, and so is judged on one image at a time."""
        return bool(self.teacher.probed.by_batch)


def load_file(request: FileRequest, progress: Progress = SILENT) -> LoadedFile:
    """Open and try everything that a validation needs.

    Raises:
        EdgeRecoverError: something cannot be used for what was asked, and why.
    """
    require_npu(request.target)
    require_converter(request.target)
    file = read_onnx(request.model_path)
    convert_on_trial(request.target, file.path)
    if request.out is not None:
        _check_names(file)
    teacher = _open_teacher(request, choose_compute(request.device), progress)
    session = _open_file(file, teacher.input, _num_values(file, teacher.output), request.target)
    _check_activation(file, session, teacher.output)
    if teacher.probed.by_batch and session.layout.batch != 1:
        raise BadInputError(
            f"{teacher.probed.by_batch}; so the decisions of a file that takes more than one image at once are not "
            "defined image by image",
            hint="export the file for a batch of one, which is judged one image at a time",
        )
    student, pruned = (_open_beside(request, path, teacher) for path in (request.student, request.pruned))
    eval_set = None
    if request.eval_data is not None:
        eval_set = read_eval_data(request.eval_data, teacher.input, teacher.output, teacher.classes, progress)
    return LoadedFile(file, session, teacher, student, pruned, eval_set, _record(request, teacher))


def _open_teacher(request: FileRequest, compute: Compute, progress: Progress) -> FileTeacher:
    said = resolve(request.model_path, request.flags, teacher=request.teacher)
    path = said.teacher_path
    if path is None:
        raise BadInputError(
            f"{request.model_path}: no teacher is named, so there is nothing to compare with",
            hint="give the dense network with --teacher (a checkpoint, or an .onnx file), or as teacher in model.toml",
        )
    if not path.exists():
        raise BadInputError(f"teacher {path}: no such file", hint="correct --teacher, or teacher in model.toml")
    if is_onnx(path):
        return _open_onnx_teacher(request, path, compute)
    opened = open_classifier(
        path,
        replace(request.flags, arch=request.teacher_arch or request.flags.arch),
        belongs_to=request.model_path,
        is_teacher=True,
    )
    if opened.doubt:
        progress.note(opened.doubt)
    probed = probe_networks({TEACHER: opened.network}, opened.input, compute, progress)
    score = scorer_of(opened.network, probed.compute, one_by_one=bool(probed.by_batch))
    return FileTeacher(score, opened, opened.input, opened.output, opened.classes, opened.facts, probed)


def _open_onnx_teacher(request: FileRequest, path: Path, compute: Compute) -> FileTeacher:
    """An ONNX file that decides; its input is what flags or a TOML file say, for the file says no mean and std."""
    said = [
        # An ONNX file has no code to run, so none needs trust.
        resolve(file, replace(request.flags, arch=None, trust_code=True), teacher=None)
        for file in (path, request.model_path)
    ]
    named_by, input = next(((spec.input_source, spec.input) for spec in said if spec.input), ("", None))
    if input is None:
        raise BadInputError(
            f"teacher {path}: its input is unknown: an ONNX file holds no mean and std",
            hint="give --input-shape, --mean and --std, or an [input] table in model.toml beside it",
        )
    file = read_onnx(path)
    named = next((spec.outputs for spec in said if spec.outputs), {})
    output = find_file_output(file, input, next((spec.task for spec in said if spec.task), None), named)
    session = _open_file(file, input, _num_values(file, output) if output else None, request.target)
    output = output or OutputSpec.one_label(session.num_values)
    classes = next((spec.classes for spec in said if spec.classes), None)
    if classes and output.parts:
        raise BadInputError(
            f"teacher {path}: it has several outputs, {', '.join(output.names)}, and model.toml names classes, but not "
            "of which",
            hint=f"move `classes` into the table of the output that has them, [outputs.{output.names[0]}]",
        )
    if not output.parts and output.name in named:
        classes = named[output.name].classes or classes
    if classes and output.num_classes not in (None, len(classes)):
        raise BadInputError(
            f"teacher {path}: its output has {output.num_classes} classes, but model.toml names {len(classes)}",
            hint="correct `classes` in model.toml",
        )
    facts = replace(file.facts, output=output, input=input, input_source=named_by)
    return FileTeacher(session.run, None, input, output, classes, facts, Probed(compute))


def _open_file(file: OnnxFile, input: InputSpec, num_values: NumValues | None, target: Target) -> Session:
    """The file in this process, once it has lived through a first run in another."""
    try:
        probe(file.path, input.shape, num_values)
    except BadInputError as error:
        if foreign := own_operators(file.model):
            raise BadInputError(
                f"{error.message}; it uses custom operators: {', '.join(foreign[:5])}",
                hint="export it with standard ONNX operators; what onnxruntime cannot run cannot be judged here",
            ) from error
        raise
    return open_on_cpu(file.path, input.shape, num_values, int8_sums_for(target))


def _num_values(file: OnnxFile, output: OutputSpec) -> NumValues:
    """By which a file's outputs are found: by name where the only one has one that the file uses."""
    if output.name in {one.name for one in file.model.graph.output}:
        return {output.name: output.num_values}
    return output.num_values_in_file


def _check_activation(file: OnnxFile, session: Session, output: OutputSpec) -> None:
    """Where a score decides by itself, file and teacher must have it on the same scale.

    Raises:
        BadInputError: one of them ends in a sigmoid, the other does not.
    """
    outputs = [part.output for part in output.parts] or [output]
    for one, index in zip(outputs, session.output_indices, strict=True):
        if not one.has_threshold:
            continue
        found = last_activation(file.model, session.outputs[index], of_last_part=one.task is TaskKind.DETECTION)
        if found is not one.activation:
            raise BadInputError(
                f"{file.path}: its last operator is {_LAST[found]}, and the teacher's is {_LAST[one.activation]}: the "
                "same number means another answer",
                hint="export the file as the teacher is: with the last sigmoid, or without it",
            )


_LAST = {Activation.SIGMOID: "a sigmoid", Activation.NONE: "no sigmoid", Activation.SOFTMAX: "a softmax"}


def _check_names(file: OnnxFile) -> None:
    """Weight files keep their names in a bundle, where some names are taken."""
    taken = {*RESERVED_NAMES, "model.onnx"}
    try:
        check_paths(dict.fromkeys(file.external))
        clash = next((name for name in file.external if name.partition("/")[0].casefold() in taken), None)
    except ValueError as error:
        clash = str(error)
    if clash is not None:
        raise BadInputError(
            f"{file.path}: its weights are in {clash}, a name that bundles reserve",
            hint="save the model again with its weights inside, or under another name",
        )


def _open_beside(request: FileRequest, path: Path | None, teacher: FileTeacher) -> Classifier | None:
    if path is None:
        return None
    opened = open_classifier(
        path,
        request.flags,
        belongs_to=request.model_path,
        teacher=teacher.network.network if teacher.network else None,
    )
    if (opened.output.shape, opened.input.shape) != (teacher.output.shape, teacher.input.shape):
        raise BadInputError(
            f"{path}: takes {list(opened.input.shape)} and gives {list(opened.output.shape)}, the teacher takes "
            f"{list(teacher.input.shape)} and gives {list(teacher.output.shape)}",
            hint="name the network that this file was made from",
        )
    return opened


def _record(request: FileRequest, teacher: FileTeacher) -> Record | None:
    if teacher.network is None and request.record is not None:
        raise BadInputError(
            f"--record {request.record}: a record guides dreams, and an ONNX teacher cannot dream",
            hint="give the teacher's PyTorch checkpoint",
        )
    return read_record_of(request.record, teacher.network.network, teacher.input.shape) if teacher.network else None
