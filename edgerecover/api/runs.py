"""`recover` and `validate`: `edgerecover run` and `edgerecover validate`, from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgerecover.api.display import watching
from edgerecover.api.given import (
    DEVICES,
    Classes,
    Device,
    FilePath,
    Given,
    Network,
    Task,
    architecture_of,
    architecture_of_student,
    eval_data_of,
    flags_from,
    network_of,
    path_of,
    precisions_from,
    pruning_of,
    require_choice,
    require_least,
)
from edgerecover.api.place import place_of
from edgerecover.api.reports import RecoveryReport, Report
from edgerecover.api.words import errors_in_python
from edgerecover.commands.inputs import require_checkpoint, require_file

if TYPE_CHECKING:
    from torch import Tensor

    from edgerecover.progress import Progress
    from edgerecover.pruning import PruningPattern


def recover(
    student: Network,
    teacher: Network | None = None,
    *,
    target: FilePath,
    profile: FilePath = "balanced",
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: Sequence[float] | None = None,
    assume: bool = False,
    masks: Mapping[str, Tensor] | None = None,
    classes: Classes | None = None,
    pattern: PruningPattern | None = None,
    sparsity: float | None = None,
    for_runtime: str | None = None,
    eval_data: FilePath | tuple[object, object] | None = None,
    record: FilePath | None = None,
    batch: int = 1,
    precision: Iterable[str] = (),
    arch: str | None = None,
    task: Task | None = None,
    teacher_arch: str | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
    seed: int = 0,
    device: Device = "auto",
    out: FilePath | None = None,
    force: bool = False,
    run_folder: FilePath | None = None,
    resume: bool = True,
    checkpoint_every: float = 60.0,
    progress: bool | Progress = True,
) -> RecoveryReport:
    """Recover a pruned network without data, export it, judge the exported file and pack it: `edgerecover run`.

    A failed gate is the report's `verdict`, not an error.

    Args:
        student: the pruned network, in memory or as a checkpoint's path. It is not changed.
        teacher: the dense network; None: `model.toml` names it, its weights are in the checkpoint, or the student is
            dense and `pattern` and `sparsity` say how to prune it.
        target: device that the model is for: a name from `edgerecover targets list`, or a .toml file.
        profile: recipe: a name from `edgerecover profiles list`, or a .toml file.
        input_shape: (C, H, W). A network in memory needs it; a file's may be known.
        mean: one number per channel; None: 0.
        std: one number per channel; None: 1.
        pixel_range: lowest and highest pixel before mean and std; None: 0 and 1.
        assume: accept the input of a library's own weights though it may be wrong: for another number of classes, or
            where the teacher's batch norm contradicts it.
        masks: of a student in memory, by name in its `state_dict()`: nonzero where a weight is kept. None: every zero
            of a weight is pruned.
        classes: names of the classes of a student in memory; of several outputs, {"digit": names}.
        pattern: prune a dense student first: "unstructured", "layerwise", "2:4" or "channel".
        sparsity: fraction of the weights to prune; for channels, of the MACs.
        for_runtime: put the zeros where this runtime gains by them: "mnn"; `sparsity` is then of those layers' weights.
        eval_data: real images to judge on, never to train on: (images, labels) as arrays or tensors, an .npz file, or a
            folder with one subfolder per class. Pixels are read as docs/reference/images.md says.
        record: activation record of the teacher.
        batch: static batch size of the exported file; 0: dynamic.
        precision: precisions allowed besides float32: "fp16", "int8"; empty: the target's.
        arch: architecture of a student's file, if nothing beside it says.
        task: what the network is for: "one-label", "binary", "multi-label", "embedding", "regression",
            "segmentation" or "detection"; None: what a `model.toml` or its outputs tell.
        teacher_arch: architecture of a teacher's file, if it is not the student's.
        trust_code: run the Python code that a `model.toml` names, without a record of trust.
        trust_pickle: unpickle a file that is a whole module, which runs whatever code it names.
        seed: of all randomness.
        device: to compute on: "auto", "cuda" or "cpu".
        out: folder of the bundle; None: a temporary one, see `Report.save_bundle`.
        force: replace the bundle of another model or target at `out`.
        run_folder: where finished steps and the log are kept, for the next call to reuse; None: a temporary one.
        resume: reuse the finished steps in `run_folder`.
        checkpoint_every: seconds between checkpoints of an unfinished step.
        progress: True shows bars on stderr or in the notebook, False nothing; or an object with the methods of
            `edgerecover.progress.Progress`.

    Raises:
        EdgeRecoverError: something cannot be used for what was asked; its message ends with what to do next.
    """
    from edgerecover.commands.run import run_and_keep
    from edgerecover.config import load_profile, load_target
    from edgerecover.models.network.outputs import own_network
    from edgerecover.stages.request import Request

    with errors_in_python(recover), place_of(out, run_folder, "student") as place:
        loaded_target, loaded_profile = load_target(os.fspath(target)), load_profile(os.fspath(profile))
        require_least("seed", seed, 0)
        require_least("batch", batch, 0)
        require_least("checkpoint_every", checkpoint_every, 0)
        require_choice("device", device, DEVICES)
        given = network_of(student, "student", place.inputs, masks, classes)
        taught = network_of(teacher, "teacher", place.inputs) if teacher is not None else None
        require_checkpoint(given.path)
        place.require_free(given, loaded_target.name, force=force)
        request = Request(
            model_path=given.path,
            target=loaded_target,
            profile=loaded_profile,
            out=place.bundle,
            work=place.work,
            flags=flags_from(
                architecture_of_student(given, taught, arch),
                input_shape,
                mean,
                std,
                pixel_range,
                trust_code=trust_code,
                trust_pickle=trust_pickle,
                assume=assume,
                task=task,
            ),
            teacher=taught.path if taught else None,
            teacher_arch=architecture_of(taught, teacher_arch, "teacher_arch") if taught else teacher_arch,
            pruning=pruning_of(pattern, sparsity, for_runtime),
            eval_data=eval_data_of(eval_data),
            record=path_of(record),
            seed=seed,
            device=device,
            batch=batch or None,
            precisions=precisions_from(precision),
            fresh=not resume,
            checkpoint_every_s=checkpoint_every,
        )
        with watching("recover", place.work, progress) as shown:
            ran = run_and_keep(request, shown)
        report = RecoveryReport(ran.report, place.bundle, own_network(ran.student))
        place.leave_to(report)
        return report


def validate(
    model: FilePath,
    teacher: Network | None = None,
    *,
    target: FilePath,
    student: Network | None = None,
    pruned: Network | None = None,
    profile: FilePath = "balanced",
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixel_range: Sequence[float] | None = None,
    assume: bool = False,
    eval_data: FilePath | tuple[object, object] | None = None,
    record: FilePath | None = None,
    arch: str | None = None,
    task: Task | None = None,
    teacher_arch: str | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
    seed: int = 0,
    device: Device = "auto",
    out: FilePath | None = None,
    force: bool = False,
    run_folder: FilePath | None = None,
    progress: bool | Progress = True,
) -> Report:
    """Judge an ONNX file that was recovered elsewhere against its dense teacher, and pack it: `edgerecover validate`.

    Parameters that `recover` has too mean the same here. A failed gate is the report's `verdict`, not an error.

    Args:
        model: path of the ONNX file.
        teacher: the dense network, in memory, as a checkpoint's path, or as an ONNX file's; None: the TOML file beside
            `model` names it.
        target: device that the model is for.
        student: the network that `model` was exported from, for comparison.
        pruned: the network before its recovery; `model` must not be worse.
        profile: gates and recipe of the images.
        input_shape: (C, H, W).
        mean: one number per channel; None: 0.
        std: one number per channel; None: 1.
        pixel_range: lowest and highest pixel before mean and std; None: 0 and 1.
        assume: accept the input of a library's own weights though it may be wrong: for another number of classes, or
            where the teacher's batch norm contradicts it.
        eval_data: real images to judge on.
        record: activation record of the teacher.
        arch: architecture of the files.
        task: what the network is for: "one-label", "binary", "multi-label", "embedding", "regression",
            "segmentation" or "detection"; None: what a `model.toml` or its outputs tell.
        teacher_arch: architecture of the teacher's file, if it is another one.
        trust_code: run the Python code that a `model.toml` names.
        trust_pickle: unpickle a file that is a whole module.
        seed: of all randomness.
        device: to compute on.
        out: folder of the bundle; None: a temporary one.
        force: replace the bundle of another model or target at `out`.
        run_folder: where images and the log are kept; None: a temporary one.
        progress: True, False, or an object that is told everything.

    Raises:
        EdgeRecoverError: something cannot be used for what was asked; its message ends with what to do next.
    """
    from edgerecover.commands.validate import validate_file
    from edgerecover.config import load_profile, load_target
    from edgerecover.stages.request import FileRequest

    with errors_in_python(validate), place_of(out, run_folder, Path(model).stem) as place:
        loaded_target, loaded_profile = load_target(os.fspath(target)), load_profile(os.fspath(profile))
        require_least("seed", seed, 0)
        require_choice("device", device, DEVICES)
        file = Given(Path(model), None)
        require_file(file.path)
        taught, made, before = (
            network_of(network, name, place.inputs) if network is not None else None
            for network, name in ((teacher, "teacher"), (student, "student"), (pruned, "pruned"))
        )
        place.require_free(file, loaded_target.name, force=force)
        own = next((one for one in (made, before) if one is not None and one.live is not None), file)
        request = FileRequest(
            model_path=file.path,
            target=loaded_target,
            profile=loaded_profile,
            work=place.work,
            out=place.bundle,
            teacher=taught.path if taught else None,
            student=made.path if made else None,
            pruned=before.path if before else None,
            flags=flags_from(
                architecture_of(own, arch, "arch"),
                input_shape,
                mean,
                std,
                pixel_range,
                trust_code=trust_code,
                trust_pickle=trust_pickle,
                assume=assume,
                task=task,
            ),
            teacher_arch=architecture_of(taught, teacher_arch, "teacher_arch") if taught else teacher_arch,
            eval_data=eval_data_of(eval_data),
            record=path_of(record),
            seed=seed,
            device=device,
        )
        with watching("validate", place.work, progress) as shown:
            report = Report(validate_file(request, shown), place.bundle)
        place.leave_to(report)
        return report
