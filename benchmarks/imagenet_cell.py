"""One process of imagenet.py: the dreams of one profile, or one student of one method, judged on real images.

Started with a JSON description on the command line; writes one JSON. CPU seconds are this process's own, user and
system; those of judging on real images, which no user would spend, are left out.
"""

# Shapes: N images, C channels, H height, W width, K classes.

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import variance_matching
from networks import pruned_file
from torch import nn
from worker import json_bytes, machine, on_disk, with_plain_bn

from edgerecover.artifacts import Proportion, SyntheticFacts, to_json
from edgerecover.compute import Compute, choose_compute
from edgerecover.config import Profile
from edgerecover.export.onnx import export
from edgerecover.files import replace_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import Models, open_models
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.logits import logits_on
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.machine.memory import peak_bytes
from edgerecover.runtime.session.onnxruntime import open_session
from edgerecover.synthesis.image_set import PixelScale, SyntheticSets
from edgerecover.synthesis.procedural import procedural_images
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evaluation import EvalSet, read_eval_data
from edgerecover.validation.fidelity import agreement, shares_of_truth
from edgerecover.validation.prediction import predict
from edgerecover.validation.scoring import Scorer

_JUDGED_AT_ONCE = 25
_OPSET = 18


@dataclass(frozen=True)
class Method:
    """A way to bring the student back, and the images it is done on."""

    meaning: str
    how: Literal["recover", "plain bn", "variance matching"]
    on: Literal["dreams", "noise", "real", "all real"]
    profile: str = "fast"
    """Whose dreams and recovery are used."""


METHODS = {
    "fast": Method("our profile `fast`", "recover", "dreams"),
    "balanced": Method("our profile `balanced`", "recover", "dreams", "balanced"),
    "bn-dreams": Method("BN re-estimated plainly on `fast`'s dreams", "plain bn", "dreams"),
    "bn-noise": Method("BN re-estimated plainly on as much noise", "plain bn", "noise"),
    "bn-real": Method("BN re-estimated plainly on real images that are not judged on", "plain bn", "real"),
    "variance-dreams": Method("variance matching, arXiv 2605.21426, on `fast`'s dreams", "variance matching", "dreams"),
    "variance-real": Method("the same on real images that are not judged on", "variance matching", "real"),
    "ceiling-fast": Method("`fast`'s recovery on all real images, the judged ones among them", "recover", "all real"),
    "ceiling-balanced": Method("`balanced`'s on the same", "recover", "all real", "balanced"),
    "unseen-fast": Method("`fast`'s recovery on real images that are not judged on", "recover", "real"),
}


@dataclass(frozen=True)
class Task:
    folder: str
    """The network's: dense.pt, model.toml, pruned students, test.npz to judge on, real.npz."""
    profile: dict[str, Any]
    """As asked for."""
    seed: int
    out: str
    num_threads: int
    device: str
    pattern: str = ""
    """Empty: only the dreams are made."""
    method: str = ""
    settled: dict[str, Any] | None = None
    """The profile with what it leaves to the teacher decided, where an earlier process has."""


class CpuClock:
    """CPU seconds of this process but for what is `apart`."""

    def __init__(self) -> None:
        self._apart_s = 0.0
        self._lap_s = time.process_time()

    def lap(self) -> float:
        """Since the last lap."""
        now_s = time.process_time() - self._apart_s
        lap_s, self._lap_s = now_s - self._lap_s, now_s
        return lap_s

    @contextmanager
    def apart(self) -> Iterator[None]:
        started_s = time.process_time()
        yield
        self._apart_s += time.process_time() - started_s


@dataclass
class Setting:
    """What every method works with."""

    models: Models
    recipe: Profile
    dreams: SyntheticSets
    facts: SyntheticFacts
    test: EvalSet
    compute: Compute
    clock: CpuClock = field(default_factory=CpuClock)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.num_threads)
    compute = choose_compute(task.device)
    record = run_cell(task, compute) if task.pattern else make_dreams(task, compute)
    record |= {"peak_memory_bytes": peak_bytes(), **machine(task.num_threads, compute)}
    replace_file(Path(task.out), json_bytes(record))


def open_setting(task: Task, compute: Compute, *, pattern: str) -> tuple[Setting, dict[str, float]]:
    """With the dreams made where they are missing, and the CPU seconds of what was done."""
    folder, clock = Path(task.folder), CpuClock()
    models = open_models(
        pruned_file(folder, pattern) if pattern else folder / "dense.pt",
        ModelFlags(trust_code=True),
        will_prune=not pattern,
    )
    clock.lap()
    source = Source(models.teacher, models.input, models.output, compute)
    recipe = settle(Profile.model_validate(task.settled or task.profile), source).profile
    settled_s = clock.lap()
    kept = folder / f"dreams-{synthesis_key(source, recipe.synthesis, task.seed)}"
    dreams, facts = synthesize(source, recipe.synthesis, seed=task.seed, folder=kept)
    spent = {"settle_cpu_s": settled_s, "synthesis_cpu_s": clock.lap()}
    test = read_eval_data(folder / "test.npz", models.input, models.output, models.classes)
    return Setting(models, recipe, dreams, facts, test, compute), spent


def make_dreams(task: Task, compute: Compute) -> dict[str, Any]:
    """What the dreams of a profile cost; of a set that an earlier process has begun, what this one added."""
    setting, spent = open_setting(task, compute, pattern="")
    return {
        "seed": task.seed,
        "profile": task.profile,
        "settled": setting.recipe.model_dump(mode="json"),
        **spent,
        "num_images": sum(len(images) for images in (setting.dreams.train, setting.dreams.calibration))
        + len(setting.dreams.held_back),
        "facts": to_json(setting.facts),
        "teacher": to_json(accuracy(setting.models.teacher, setting)),
    }


def run_cell(task: Task, compute: Compute) -> dict[str, Any]:
    """The student of one method, its accuracy on real images, and what was spent on it."""
    setting, _ = open_setting(task, compute, pattern=task.pattern)
    method = METHODS[task.method]
    sets = other_images(task, method, setting)
    rungs: list[dict[str, Any]] = []
    setting.clock.lap()
    if method.how == "recover":
        student = _climb(task, method, sets, setting, rungs)
    else:
        student = _repaired(method, sets, setting)
        rungs.append({"name": task.method, "cpu_s": setting.clock.lap(), **_judged(student, setting)})
    return {
        "pattern": task.pattern,
        "method": task.method,
        "seed": task.seed,
        "num_learnt_from": len(sets.train),
        "teacher": to_json(accuracy(setting.models.teacher, setting)),
        "rungs": rungs,
        "recover_cpu_s": sum(rung["cpu_s"] for rung in rungs),
        **_of_the_file(student, setting),
        "profile": task.profile,
    }


def _climb(task: Task, method: Method, sets: SyntheticSets, setting: Setting, rungs: list[dict[str, Any]]) -> nn.Module:
    """The student that the ladder hands back; `rungs` gets each one's real accuracy on the way."""

    def watch(name: str, student: nn.Module) -> None:
        cpu_s = setting.clock.lap()
        rungs.append({"name": name, "cpu_s": cpu_s, **_judged(student, setting)})

    models = setting.models
    recovered = recover(
        Pair.of(models), sets, setting.recipe.recovery,
        Execution(setting.compute), seed=task.seed,
        synthesis=setting.recipe.synthesis if method.on == "dreams" else None, watch=watch,
    )  # fmt: skip
    for rung, known in zip(rungs, recovered.rungs, strict=True):
        rung |= to_json(known)
    return recovered.student


def _repaired(method: Method, sets: SyntheticSets, setting: Setting) -> nn.Module:
    student, batch_size = setting.models.student, setting.recipe.recovery.batch_size
    if method.how == "plain bn":
        return with_plain_bn(student, sets.train, batch_size, setting.compute)
    return variance_matching.repair(student, setting.models.teacher, sets.train, batch_size, setting.compute)


def other_images(task: Task, method: Method, setting: Setting) -> SyntheticSets:
    """Dreams, or other images in the place of those that are learnt from; what chooses and judges stays synthetic."""
    dreams, input = setting.dreams, setting.models.input
    if method.on == "dreams":
        return dreams
    folder = Path(task.folder) / "other-images"
    folder.mkdir(exist_ok=True)
    scale = PixelScale(*input.bounds())
    if method.on == "noise":
        noise_NCHW = procedural_images("noise", len(dreams.train), input.shape, input.bounds(), task.seed)
        train = on_disk(folder, f"noise{task.seed}", scale.encode(noise_NCHW), scale)
    else:
        files = ("real.npz", "test.npz") if method.on == "all real" else ("real.npz",)
        parts = [np.load(Path(task.folder) / name, allow_pickle=False)["images"] for name in files]
        train = on_disk(folder, method.on.replace(" ", "-"), np.concatenate(parts).transpose(0, 3, 1, 2), scale)
    return SyntheticSets(train, dreams.calibration, dreams.held_back)


# --- judging --------------------------------------------------------------------------------------------------


def accuracy(network: nn.Module, setting: Setting) -> Proportion:
    """On the real test images, in float32."""

    def logits_of(images_NCHW: Any) -> Any:
        return network(setting.compute.images(images_NCHW)).float().cpu().numpy()

    with setting.clock.apart(), torch.no_grad():
        return Proportion(_num_right(logits_of, setting), len(setting.test))


def _num_right(score: Scorer, setting: Setting) -> int:
    measure = measure_of(setting.models.output)
    return sum(
        int(shares_of_truth(score(images_NCHW), labels_N, measure).sum())
        for images_NCHW, labels_N in setting.test.batches(_JUDGED_AT_ONCE)
    )


def _judged(student: nn.Module, setting: Setting) -> dict[str, Any]:
    return {"accuracy": to_json(accuracy(setting.compute.place(student), setting))}


def _of_the_file(student: nn.Module, setting: Setting) -> dict[str, Any]:
    """Of the exported file: accuracy, agreement with the teacher on held-out dreams, and the share predicted."""
    held_back, input = setting.dreams.held_back, setting.models.input
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export(student.cpu(), input, path, opset=_OPSET, batch=_JUDGED_AT_ONCE)
        session = open_session(path, ("CPUExecutionProvider",), num_threads=torch.get_num_threads())
        num_right = _num_right(session.run, setting)
        student_NK = np.concatenate([session.run(images_NCHW) for images_NCHW in held_back.batches(_JUDGED_AT_ONCE)])
    teacher_NK = logits_on(setting.models.teacher, held_back, setting.compute).numpy()
    return {
        "exported": asdict(Proportion(num_right, len(setting.test))),
        "agreement": to_json(agreement(student_NK, teacher_NK, measure_of(setting.models.output))),
        "predicted": to_json(predict(student_NK, teacher_NK)),
    }


if __name__ == "__main__":
    main()
