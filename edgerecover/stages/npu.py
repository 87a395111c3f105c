"""The NPU stage: the int8 file, compiled for each generation of NPU of the target and judged in its emulation.

Decisions in the emulation are the NPU's; times are not, and none are taken.
"""

# Shapes: N images, C channels, H height, W width, K classes.
# ruff: noqa: TID253 - runs networks; only what calls the stages imports it

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgerecover.artifacts import Outcome, Precision, Race, Variant, sha256_of
from edgerecover.artifacts.judged import GateStatus
from edgerecover.artifacts.npu import NpuFile
from edgerecover.config import Profile, Target
from edgerecover.errors import BadInputError, MissingError, StageError
from edgerecover.export.npu import tidy_context
from edgerecover.progress import SILENT, Progress
from edgerecover.runner.answers import check
from edgerecover.runtime.session.npu import NpuProcess, require_npu_compiler
from edgerecover.validation.fidelity import agreement
from edgerecover.validation.gates import precision_status
from edgerecover.validation.parity import compare, precision_loss
from edgerecover.validation.scoring import BATCH, Images, Reference, Scores, open_on_cpu

if TYPE_CHECKING:
    from edgerecover.stages.load_file import LoadedFile
    from edgerecover.stages.request import FileRequest
    from edgerecover.stages.synthesize import Evidence

_MAX_PIXELS = 2**21
"""Of all images that one generation is emulated on: 2,048 of 32 by 32, 41 of 224 by 224. The emulation takes one or two
seconds for an image of the latter size."""


@dataclass(frozen=True)
class NpuFiles:
    """What came of it; all empty for a target without such an NPU."""

    made: tuple[NpuFile, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Compiled files that may ship, by path inside a bundle."""
    unfit: Mapping[Precision, str] = field(default_factory=dict)
    """The int8 variant, where the NPU reads it otherwise than the CPU does."""
    notes: tuple[str, ...] = ()
    """For people."""


@dataclass(frozen=True)
class _Judge:
    """What the compiled files are judged with."""

    folder: Path
    images: Scores
    """Network inputs, (N, C, H, W)."""
    golden: Scores
    """Network inputs, (N, C, H, W)."""
    teacher: Reference
    cpu_scores: Scores
    """Of the int8 file on the images, (N, D)."""
    cpu_golden_scores: Scores
    profile: Profile


def require_npu(target: Target) -> None:
    """Find out before hours of work whether files can be compiled for the target's NPU in the end.

    Raises:
        MissingError: what compiles them is not installed.
    """
    if target.npu_generations is not None:
        require_npu_compiler()


def compile_variants(
    variants: Sequence[Variant],
    target: Target,
    profile: Profile,
    teacher: Reference,
    held_back: Images,
    golden_NCHW: Scores,
    folder: Path,
    progress: Progress = SILENT,
) -> NpuFiles:
    """Compile the int8 variant for each generation of NPU that the target names, and judge it in the emulation.

    Args:
        variants: of one network; their files' paths in full.
        target: names the generations.
        profile: its gates decide what the NPU may decide otherwise than the CPU.
        teacher: decides what agreement is.
        held_back: images that nothing has touched; as many as the emulation has time for are used.
        golden_NCHW: network inputs of the golden check.
        folder: where compiled files go.
        progress: where to report.

    Raises:
        MissingError: what compiles and emulates is not installed.
    """
    if target.npu_generations is None:
        return NpuFiles()
    int8 = next((variant for variant in variants if variant.precision is Precision.INT8), None)
    if int8 is None:
        return NpuFiles(notes=("nothing was compiled for the NPU, which needs an int8 file: none was made",))
    path = Path(int8.file.path)
    images_NCHW = _first_of(held_back)
    with tempfile.TemporaryDirectory(prefix="edgerecover-") as scratch:
        cpu = open_on_cpu(path, images_NCHW.shape[1:], teacher.measure.output.num_values_in_file)
        judge = _Judge(
            Path(scratch), images_NCHW, golden_NCHW, teacher, cpu.run(images_NCHW), cpu.run(golden_NCHW), profile
        )
        np.save(judge.folder / "images.npy", np.concatenate([images_NCHW, golden_NCHW]))
        made: list[NpuFile] = []
        with progress.task("compile for the NPU", len(target.npu_generations.value), "generations") as task:
            for generation in target.npu_generations.value:
                made.append(_file_for(generation, path, folder, judge))
                task.advance()
    files = {one.file: folder / Path(one.file).name for one in made if one.file}
    notes = tuple(f"not shipped for NPU generation {one.generation}: {one.problem}" for one in made if one.problem)
    unfit = {} if files else {Precision.INT8: f"it fits no NPU of the target: {made[-1].problem}"}
    return NpuFiles(tuple(made), files, unfit, notes)


def compile_given(
    request: FileRequest, loaded: LoadedFile, evidence: Evidence, folder: Path, progress: Progress = SILENT
) -> NpuFiles:
    """The same for a file from elsewhere, where it is quantised.

    Args:
        request: of the user.
        loaded: the file and its teacher.
        evidence: what it is judged on.
        folder: where compiled files go.
        progress: where to report.

    Raises:
        MissingError: what compiles and emulates is not installed.
    """
    file, made = loaded.file, []
    if file.is_quantized:
        exported = replace(file.exported(loaded.session.batch), path=str(file.path))
        made.append(Variant(Precision.INT8, exported, "as it came", (), ""))
    return compile_variants(
        made, request.target, request.profile, loaded.teacher.reference, evidence.images, evidence.golden_NCHW(),
        folder, progress,
    )  # fmt: skip


def that_may_ship(npu: NpuFiles, race: Race) -> NpuFiles:
    """Nothing is shipped for the NPU if the int8 file itself does not pass.

    Args:
        npu: what was compiled from the int8 variant.
        race: of the variants on this machine.
    """
    passing = {one.precision for one in race.runners if one.outcome in (Outcome.SHIPPED, Outcome.SLOWER)}
    if Precision.INT8 in passing or not npu.files:
        return npu
    problem = "the int8 file that it was compiled from does not pass, see the race"
    made = tuple(replace(one, file="", problem=one.problem or problem) for one in npu.made)
    return replace(npu, made=made, files={}, notes=(*npu.notes, f"nothing is shipped for the NPU: {problem}"))


def _first_of(held_back: Images) -> Scores:
    """As many images as are emulated, (N, C, H, W)."""
    batches = []
    wanted = 0
    for batch_NCHW in held_back.batches(BATCH):
        wanted = wanted or max(1, _MAX_PIXELS // (batch_NCHW.shape[2] * batch_NCHW.shape[3]))
        batches.append(np.asarray(batch_NCHW, np.float32))
        if sum(map(len, batches)) >= wanted:
            break
    return np.concatenate(batches)[:wanted]


def _file_for(generation: str, onnx: Path, folder: Path, judge: _Judge) -> NpuFile:
    """Compiled, run in the emulation, and judged; its `problem` says why it is not to be shipped."""
    name = f"{Precision.INT8.value}.npu-v{generation}.onnx"
    out, scores = folder / name, judge.folder / "scores.npy"
    made = NpuFile(generation)
    try:
        with NpuProcess() as process:
            compiled = process.compile(onnx, generation, out)
            on_cpu = tidy_context(out, onnx)
            made = replace(
                made,
                sha256=sha256_of(out),
                size_bytes=out.stat().st_size,
                chip=compiled.chip,
                compiler=compiled.compiler,
                compile_s=compiled.seconds,
                on_cpu=on_cpu,
            )
            process.score(out, judge.folder / "images.npy", scores)
    except MissingError:
        raise
    except (BadInputError, StageError) as error:
        return replace(made, problem=error.message)
    judged = _judged(made, np.load(scores), judge)
    return replace(judged, file=f"engines/{name}") if not judged.problem else judged


def _judged(made: NpuFile, scores_ND: Scores, judge: _Judge) -> NpuFile:
    held_ND, golden_ND = scores_ND[: len(judge.images)], scores_ND[len(judge.images) :]
    score, measure = judge.teacher.score, judge.teacher.measure
    words = measure.words
    teacher_ND = score(judge.images)
    golden = check(golden_ND, judge.cpu_golden_scores, score(judge.golden), measure, Precision.INT8, Precision.INT8)
    taught, on_cpu, on_npu = map(measure.read, (teacher_ND, judge.cpu_scores, held_ND))
    loss = precision_loss(taught, on_cpu, on_npu, measure)
    limit = judge.profile.gates.max_precision_loss_points
    problem = ""
    if not golden.passed:
        problem = (
            f"the NPU reads the file otherwise than the CPU: {golden.same_decisions} of {golden.num_images} golden "
            f"images are {words.alike}, and scores differ by up to {golden.largest_difference:.2g} standard deviations"
        )
    elif precision_status(loss, limit) is GateStatus.FAIL:
        problem = (
            f"on the NPU it loses {loss.points:.1f} points of {words.name} against the CPU on {loss.num_images} "
            f"images; {limit:g} are allowed"
        )
    return replace(
        made,
        agreement=agreement(held_ND, teacher_ND, measure),
        cpu_agreement=agreement(judge.cpu_scores, teacher_ND, measure),
        parity=compare(judge.cpu_scores, held_ND, measure),
        loss=loss,
        golden=golden,
        problem=problem,
    )
