"""One process of the benchmark: all patterns of one (network, seed, method), so that its peak memory is the method's.

Started by recovery.py with a JSON description on the command line; writes one JSON and one .npz of logits per pattern.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import copy
import json
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grid import METHODS, RACE
from networks import pruned_file
from torch import Tensor, nn

from edgerecover.artifacts import Proportion, SyntheticFacts, to_json
from edgerecover.compute import Compute, choose_compute
from edgerecover.config import Profile, Recovery, Synthesis
from edgerecover.export.onnx import export
from edgerecover.files import replace_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.network.norms import batch_norms_of
from edgerecover.models.network.sparsity import measure
from edgerecover.models.pair.networks import Models, open_models
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import Recovered, recover
from edgerecover.recovery.logits import logits_on
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.machine.host import this_host
from edgerecover.runtime.machine.memory import peak_bytes
from edgerecover.runtime.session.onnxruntime import open_session
from edgerecover.synthesis.image_set import ImageSet, PixelScale, SyntheticSets, write_shard
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evaluation import read_eval_data
from edgerecover.validation.fidelity import agreement, shares_of_truth
from edgerecover.validation.prediction import predict

_EXPORT_BATCH = 100
_OPSET = 18
_NUM_REAL_CALIBRATION = 512
_SHARD = 512


@dataclass(frozen=True)
class Task:
    """What recovery.py asks of one process."""

    network: str
    folder: str
    """The network's, as networks.prepare left it."""
    method: str
    seed: int
    patterns: tuple[str, ...]
    results: str
    """Folder of this (network, seed, method)."""
    images: dict[str, Any]
    """Profile whose synthetic sets are used, resolved."""
    recovery: dict[str, Any]
    """Settings of the recovery, resolved."""
    num_threads: int
    device: str


@dataclass(frozen=True)
class Images:
    """What a method learns from and is judged on."""

    sets: SyntheticSets
    held_back: ImageSet
    facts: SyntheticFacts


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.num_threads)
    compute = choose_compute(task.device)
    results = Path(task.results)
    results.mkdir(parents=True, exist_ok=True)
    dense = open_models(_pruned(task, task.patterns[0]), _AS_THE_FOLDER_SAYS, will_prune=False)
    recipe = _settled(task, dense, compute)
    images = _images(task, recipe, dense, compute)
    for pattern in task.patterns:
        _run_cell(task, recipe, pattern, images, compute)
    replace_file(results / "process.json", json_bytes(_process(task, images, compute)))


_AS_THE_FOLDER_SAYS = ModelFlags(trust_code=True)


def _settled(task: Task, models: Models, compute: Compute) -> Profile:
    """What the settings leave to the teacher decided, as a run decides it."""
    profile = Profile.model_validate({**task.images, "recovery": task.recovery})
    return settle(profile, _source(models, compute)).profile


def _source(models: Models, compute: Compute) -> Source:
    return Source(models.teacher, models.input, models.output, compute)


def _pruned(task: Task, pattern: str) -> Path:
    return pruned_file(Path(task.folder), pattern)


# --- images -------------------------------------------------------------------------------------------------


def _images(task: Task, recipe: Profile, models: Models, compute: Compute) -> Images:
    settings, source = recipe.synthesis, _source(models, compute)
    folder = Path(task.folder) / f"dreams-{synthesis_key(source, settings, task.seed)}"
    sets, facts = synthesize(source, settings, seed=task.seed, folder=folder)
    if METHODS[task.method].kind == "recover on real":
        return Images(_real_sets(task, models, sets.held_back), sets.held_back, facts)
    return Images(sets, sets.held_back, facts)


def _real_sets(task: Task, models: Models, held_back: ImageSet) -> SyntheticSets:
    """Real train images in the place of dreams; what judges agreement stays synthetic."""
    folder = Path(task.folder) / "real"
    folder.mkdir(exist_ok=True)
    with np.load(Path(task.folder) / "train.npz", allow_pickle=False) as arrays:
        pixels_NCHW = np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
    num_calibration = min(_NUM_REAL_CALIBRATION, len(pixels_NCHW) // 4)
    scale = PixelScale(*models.input.bounds())
    return SyntheticSets(
        train=on_disk(folder, "train", pixels_NCHW[num_calibration:], scale),
        calibration=on_disk(folder, "calibration", pixels_NCHW[:num_calibration], scale),
        held_back=held_back,
    )


def on_disk(folder: Path, name: str, pixels_NCHW: np.ndarray, scale: PixelScale) -> ImageSet:
    starts = range(0, len(pixels_NCHW), _SHARD)
    shards = (
        write_shard(folder, f"{name}-{start:05d}", pixels_NCHW[start : start + _SHARD], (), 0, 0.0) for start in starts
    )
    return ImageSet(folder, scale, tuple(shards))


# --- one cell -----------------------------------------------------------------------------------------------


def _run_cell(task: Task, recipe: Profile, pattern: str, images: Images, compute: Compute) -> None:
    models = open_models(_pruned(task, pattern), _AS_THE_FOLDER_SAYS, will_prune=False)
    shorter = METHODS[task.method].kind == "shorter"
    tries = []
    for changes in RACE if shorter else ({},):
        tried = recipe.recovery.model_copy(update=changes)
        started = time.perf_counter()
        recovered = _recovered(task, models, images.sets, recipe.synthesis, tried, compute)
        seconds = time.perf_counter() - started
        judged, logits = _judged(task, models, recovered.student, images.held_back)
        tries.append(
            {
                "changes": changes,
                "num_steps": tried.num_steps,
                "recover_s": seconds,
                **judged,
                "rungs": to_json(recovered.rungs),
            }
        )
    cell = {
        "network": task.network,
        "pattern": pattern,
        "method": task.method,
        "seed": task.seed,
        "sparsity": measure(recovered.student).sparsity,
        "synthesis_s": _synthesis_s(images.facts),
        **tries[-1],
        "tries": tries if shorter else [],
        "images": task.images,
        "recovery": task.recovery,
        **machine(task.num_threads, compute),
    }
    stem = Path(task.results) / pattern.replace(":", "-")
    replace_file(stem.with_suffix(".npz"), _npz(logits))
    replace_file(stem.with_suffix(".json"), json_bytes(cell))


def _recovered(
    task: Task, models: Models, sets: SyntheticSets, synthesis: Synthesis, settings: Recovery, compute: Compute
) -> Recovered:
    kind = METHODS[task.method].kind
    if kind == "as is":
        return Recovered(models.student, ())
    if kind == "plain bn":
        return Recovered(with_plain_bn(models.student, sets.train, settings.batch_size, compute), ())
    return recover(
        Pair.of(models), sets, settings, Execution(compute),
        seed=task.seed,
        synthesis=None if kind == "recover on real" else synthesis,
    )  # fmt: skip


@torch.no_grad()
def with_plain_bn(student: nn.Module, images: ImageSet, batch_size: int, compute: Compute) -> nn.Module:
    """What is usually done: reset BN, one pass in training mode, a plain average over batches."""
    network = compute.place(copy.deepcopy(student)).eval()
    for layer in batch_norms_of(network).values():
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    for batch_NCHW in images.batches(batch_size):
        network(compute.images(batch_NCHW))
    return network.cpu().eval()


def _judged(
    task: Task, models: Models, student: nn.Module, held_back: ImageSet
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Accuracy on real test images and agreement on held-out ones; of the exported file where it is the student's."""
    test = read_eval_data(Path(task.folder) / "test.npz", models.input, models.output, models.classes)
    cpu = choose_compute("cpu")
    teacher, pruned = models.teacher.cpu(), models.student.cpu()
    test_NCHW = np.concatenate([images for images, _ in test.batches(_EXPORT_BATCH)])
    held_back_NCHW = held_back.images_of(range(len(held_back)))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        exported = export(student, models.input, path, opset=_OPSET, batch=_EXPORT_BATCH)
        session = open_session(path, ("CPUExecutionProvider",), num_threads=task.num_threads)
        logits = {
            "test_teacher": _logits(teacher, test_NCHW),
            "test_pruned": _logits(pruned, test_NCHW),
            "test_exported": session.run(test_NCHW),
            "held_back_teacher": logits_on(teacher, held_back, cpu).numpy(),
            "held_back_pruned": logits_on(pruned, held_back, cpu).numpy(),
            "held_back_exported": session.run(held_back_NCHW),
        }
    names = ("teacher", "pruned", "exported")
    measure = measure_of(models.output)
    right = {name: shares_of_truth(logits[f"test_{name}"], test.labels, measure) for name in names}
    judged = {
        "accuracy": {name: to_json(Proportion(int(hits_N.sum()), len(test))) for name, hits_N in right.items()},
        "agreement": {
            name: to_json(agreement(logits[f"held_back_{name}"], logits["held_back_teacher"], measure))
            for name in names[1:]
        },
        "predicted": to_json(predict(logits["held_back_exported"], logits["held_back_teacher"])),
        "exporter": exported.exporter,
        "file_bytes": exported.size_bytes,
    }
    return judged, logits


@torch.no_grad()
def _logits(network: nn.Module, images_NCHW: np.ndarray) -> np.ndarray:
    parts: list[Tensor] = [network(part) for part in torch.from_numpy(images_NCHW).split(_EXPORT_BATCH)]
    return torch.cat(parts).numpy()


# --- the process --------------------------------------------------------------------------------------------


def _process(task: Task, images: Images, compute: Compute) -> dict[str, Any]:
    facts = images.facts
    return {
        "network": task.network,
        "method": task.method,
        "seed": task.seed,
        "patterns": task.patterns,
        "synthesis_s": _synthesis_s(facts),
        "images_per_s": facts.images_per_s,
        "num_synthesized": facts.num_train + facts.num_calibration + facts.num_held_back,
        "peak_memory_bytes": peak_bytes(),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if compute.device.type == "cuda" else None,
        **machine(task.num_threads, compute),
    }


def _synthesis_s(facts: SyntheticFacts) -> float:
    """From the shards' own clocks: the same for the process that made the set and for those that found it."""
    num_images = facts.num_train + facts.num_calibration + facts.num_held_back
    return num_images / facts.images_per_s if facts.images_per_s else 0.0


def machine(num_threads: int, compute: Compute) -> dict[str, Any]:
    return {
        "device": str(compute),
        "num_threads": num_threads,
        "host": to_json(this_host()),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "torchvision", "onnxruntime", "numpy")},
        },
    }


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


if __name__ == "__main__":
    main()
