"""One process of peers.py: a set of images by one maker, and every student recovered on it, judged on real images."""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagenet_cell import CpuClock, Setting, accuracy
from networks import pruned_file
from torch import nn
from worker import json_bytes, machine, on_disk, with_plain_bn

from edgerecover.artifacts import SyntheticFacts, to_json
from edgerecover.compute import Compute, choose_compute
from edgerecover.config import Profile, Synthesis
from edgerecover.files import replace_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import Models, open_models
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.machine.memory import peak_bytes
from edgerecover.synthesis.image_set import ImageSet, PixelScale, SyntheticSets
from edgerecover.synthesis.sets import synthesize
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source
from edgerecover.validation.evaluation import read_eval_data

SOURCES = {
    "ours": "edgerecover, `fast`",
    "mct": "MCT, its defaults (500 steps)",
    "mct-short": "MCT, as many steps as `fast`",
}
RECOVERIES = {
    "none": "as pruned",
    "plain bn": "BN re-estimated, a plain average",
    "nncf": "NNCF's batch_norm_adaptation",
    "repair": "our statistics repair",
    "fast": "our whole ladder, `fast`",
}
_PEERS = {"model_compression_toolkit": "model-compression-toolkit", "nncf": "nncf"}
_SHARE_TO_CHOOSE_BY = 4


@dataclass(frozen=True)
class Task:
    network: str
    folder: str
    source: str
    num_images: int
    seed: int
    patterns: tuple[str, ...]
    recoveries: tuple[str, ...]
    profile: dict[str, Any]
    """`fast`, resolved."""
    out: str
    num_threads: int


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.num_threads)
    torch.manual_seed(task.seed)
    np.random.seed(task.seed)
    record = run_cell(task) | {"task": asdict(task), **machine(task.num_threads, choose_compute("cpu"))}
    replace_file(Path(task.out), json_bytes(record))


def run_cell(task: Task) -> dict[str, Any]:
    """Images, what they cost, and the accuracy of each student."""
    compute = choose_compute("cpu")
    dense = _open(task, "")
    clock = CpuClock()
    profile = Profile.model_validate(task.profile)
    recipe = settle(profile, _source(dense, compute)).profile
    settled_cpu_s = clock.lap()
    train, chosen_by = _make(task, recipe.synthesis, dense)
    # What it costs to decide on mirroring is part of making our images; MCT mirrors them all.
    made_cpu_s, made_peak_bytes = clock.lap() + (settled_cpu_s if task.source == "ours" else 0.0), peak_bytes()
    test = read_eval_data(Path(task.folder) / "test.npz", dense.input, dense.output, dense.classes)
    sets = SyntheticSets(train, chosen_by, chosen_by)
    setting = Setting(dense, recipe, sets, SyntheticFacts(0, 0, 0, None, 0.0, False), test, compute)
    students = []
    for pattern in task.patterns:
        of_pattern = replace(setting, models=_open(task, pattern))
        for name in task.recoveries:
            clock.lap()
            student = _RECOVERIES[name](of_pattern, task.seed)
            cpu_s = clock.lap()
            found = to_json(accuracy(compute.place(student), of_pattern))
            students.append({"pattern": pattern, "recovery": name, "cpu_s": cpu_s, "accuracy": found})
    return {
        "num_made": len(train) + len(chosen_by),
        "made_cpu_s": made_cpu_s,
        "made_peak_bytes": made_peak_bytes,
        "teacher": to_json(accuracy(dense.teacher, setting)),
        "students": students,
        "peers": _versions(),
    }


def _open(task: Task, pattern: str) -> Models:
    path = pruned_file(Path(task.folder), pattern) if pattern else Path(task.folder) / "dense.pt"
    return open_models(path, ModelFlags(trust_code=True), will_prune=not pattern)  # fmt: skip


# --- images -------------------------------------------------------------------------------------------------


def _source(dense: Models, compute: Compute) -> Source:
    return Source(dense.teacher, dense.input, dense.output, compute)


def _make(task: Task, settings: Synthesis, dense: Models) -> tuple[ImageSet, ImageSet]:
    """To learn from and to choose by; made anew, so that what it costs is measured whole."""
    num_chosen_by = max(1, task.num_images // _SHARE_TO_CHOOSE_BY)
    folder = Path(task.out).with_suffix("")
    for path in folder.glob("*"):
        path.unlink()
    folder.mkdir(exist_ok=True)
    if task.source == "ours":
        settings = settings.model_copy(update={"num_train": task.num_images, "num_calibration": num_chosen_by})
        sets, _ = synthesize(
            _source(dense, choose_compute("cpu")), settings,
            seed=task.seed, folder=folder, splits=("train", "calibration"),
        )  # fmt: skip
        return sets.train, sets.calibration
    images_NCHW = _of_mct(task, settings, dense, task.num_images + num_chosen_by)
    scale = PixelScale(*dense.input.bounds())
    bytes_NCHW = scale.encode(images_NCHW)
    return (
        on_disk(folder, "train", bytes_NCHW[: task.num_images], scale),
        on_disk(folder, "calibration", bytes_NCHW[task.num_images :], scale),
    )


def _of_mct(task: Task, settings: Synthesis, dense: Models, num_images: int) -> np.ndarray:
    """Network inputs (N, C, H, W), float32, by the toolkit's defaults but for the number of steps."""
    toolkit = installed("model_compression_toolkit").data_generation
    kinds = import_module("model_compression_toolkit.data_generation.common.enums").ImageNormalizationType
    steps = {} if task.source == "mct" else {"n_iter": settings.num_steps}
    config = toolkit.get_pytorch_data_generation_config(
        image_normalization_type=kinds.TORCHVISION if dense.input.mean[0] != 0.5 else kinds.KERAS_APPLICATIONS, **steps
    )
    made = toolkit.pytorch_data_generation_experimental(
        model=copy.deepcopy(dense.teacher).cpu().eval(),
        n_images=num_images,
        output_image_size=tuple(dense.input.shape[1:]),
        data_generation_config=config,
    )
    images_NCHW = torch.cat([torch.as_tensor(images).reshape(-1, *dense.input.shape) for images in made])
    return images_NCHW.detach().cpu().float().numpy()[:num_images]


# --- students -----------------------------------------------------------------------------------------------


def _as_pruned(setting: Setting, seed: int) -> nn.Module:
    return setting.models.student


def _plain_bn(setting: Setting, seed: int) -> nn.Module:
    batch_size = setting.recipe.recovery.batch_size
    return with_plain_bn(setting.models.student, setting.dreams.train, batch_size, setting.compute)


def _nncf(setting: Setting, seed: int) -> nn.Module:
    nncf = installed("nncf")
    student = copy.deepcopy(setting.models.student).cpu().eval()
    batches = [torch.from_numpy(images) for images in setting.dreams.train.batches(setting.recipe.recovery.batch_size)]
    adapted: nn.Module = nncf.batch_norm_adaptation(student, calibration_dataset=nncf.Dataset(batches))
    return adapted.eval()


def _ladder(setting: Setting, seed: int, **changes: Any) -> nn.Module:
    models = setting.models
    return recover(
        Pair.of(models), setting.dreams,
        setting.recipe.recovery.model_copy(update=changes), Execution(setting.compute), seed=seed,
    ).student  # fmt: skip


def _repair(setting: Setting, seed: int) -> nn.Module:
    return _ladder(setting, seed, layerwise=False, num_steps=0)


_RECOVERIES: dict[str, Callable[[Setting, int], nn.Module]] = {
    "none": _as_pruned,
    "plain bn": _plain_bn,
    "nncf": _nncf,
    "repair": _repair,
    "fast": _ladder,
}


def installed(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{package} cannot be imported ({error}): pip install model-compression-toolkit==2.6.1 nncf==3.4.0"
        ) from error


def _versions() -> dict[str, str]:
    found = {}
    for package in _PEERS.values():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
