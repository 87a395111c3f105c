r"""Does agreement on dreams predict what accuracy is kept? Students whose real accuracy is known, and the curve.

    python benchmarks/prediction.py DATA --networks demo resnet8 resnet20 resnet56      # measure, fit, print
    python benchmarks/prediction.py --write                # fit what was measured, and ship it with edgerecover

DATA is the folder of benchmarks/recovery.py. Every student is judged on held-back dreams (its reading and its plain
agreement) and on real images that no student learnt from (its accuracy as a share of the teacher's): those of the
train set after the first 5,728, for the embedded demo its test images. Each is written to --results as soon as it is
judged, and not made again. The curve is fitted for each network on the others; its errors are what reports state.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgerecover.artifacts import InputSpec, to_json
from edgerecover.config import load_profile
from edgerecover.demo import ARCHITECTURE, demo_files
from edgerecover.device import choose_compute
from edgerecover.files import replace_file
from edgerecover.models.networks import open_models
from edgerecover.prune import apply_masks, global_magnitude_masks
from edgerecover.recover.distill import distill
from edgerecover.recover.stage import logits_on
from edgerecover.recover.statistics import repair_statistics
from edgerecover.synthesize.image_set import ImageSet, SyntheticSets
from edgerecover.synthesize.settle import settle
from edgerecover.synthesize.stage import synthesis_key, synthesize
from edgerecover.validate import prediction
from edgerecover.validate.evaluation import read_eval_data
from edgerecover.validate.fidelity import agreement
from edgerecover.validate.prediction import LITTLE_LOST, Calibration, reading

IMAGENET = InputSpec((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NETWORKS = {
    "resnet20": ("akamaster_resnet20-12fca82f.th", IMAGENET),
    "resnet56": ("akamaster_resnet56-4bfd9763.th", IMAGENET),
    "resnet8": (
        "mlperftiny_resnet8_state_dict.pt",
        InputSpec((3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 255.0)),
    ),
}
SHIPPED = Path(prediction.__file__).with_name("prediction.json")
RESULTS = Path(__file__).with_name("prediction-students.json")
SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
TRAINED_SPARSITIES = (0.75, 0.85, 0.9, 0.95)
NUM_TRAIN_IMAGES = 5728
FINE_TUNING_STEPS, DISTILLATION_STEPS = 300, (60, 200)
KINDS = ("pruned", "fine-tuned", "repaired", "distilled")
"""The first two as users bring them, the others brought back on dreams."""


@dataclass(frozen=True)
class Student:
    """One judged student."""

    network: str
    name: str
    kind: str
    reading: float
    agreement: float
    kept: float
    """Accuracy on real images / the teacher's on the same."""


@dataclass(frozen=True)
class Case:
    """A teacher with its dreams and its real images, as tensors of network inputs."""

    network: str
    teacher: nn.Module
    sets: SyntheticSets
    train: tuple[torch.Tensor, torch.Tensor] | None
    test: tuple[torch.Tensor, torch.Tensor]
    flip: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="left out: only fit and print")
    parser.add_argument("--networks", nargs="+", default=["demo", "resnet8", "resnet20"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("benchmark-results/prediction"))
    parser.add_argument("--write", action="store_true", help="put the curves where edgerecover reads them")
    asked = parser.parse_args()
    if asked.data:
        for network in asked.networks:
            measure(open_case(network, asked.data, asked.work), asked.results)
    students = read(asked.results)
    print(table(students))
    if asked.write:
        replace_file(SHIPPED, (json.dumps(to_json(calibrate(students)), indent=1) + "\n").encode())


# --- measuring ----------------------------------------------------------------------------------------------


def open_case(network: str, data: Path, work: Path) -> Case:
    teacher, input = open_demo() if network == "demo" else open_network(network, data)
    compute = choose_compute("cpu")
    profile = load_profile("demo" if network == "demo" else "balanced")
    profile = settle(profile, teacher, input, 10, compute).profile
    key = synthesis_key(teacher, input, 10, profile.synthesis, 0, compute.arithmetic)
    sets, _ = synthesize(
        teacher, input, 10, profile.synthesis, seed=0, folder=work / f"dreams-{key}", compute=compute
    )  # fmt: skip
    if network == "demo":
        return Case(network, teacher, sets, None, real_images(demo_files().test_images, input), flip=False)
    images_NCHW, labels_N = real_images(data / "cifar10_png_train7728.npz", input)
    cut = NUM_TRAIN_IMAGES
    return Case(
        network, teacher, sets, (images_NCHW[:cut], labels_N[:cut]), (images_NCHW[cut:], labels_N[cut:]), flip=True
    )


def open_demo() -> tuple[nn.Module, InputSpec]:
    models = open_models(
        demo_files().dense, arch=ARCHITECTURE, teacher=None, input_flags=None, trust_code=True, will_prune=True
    )
    return models.teacher.requires_grad_(False), models.input


def open_network(network: str, data: Path) -> tuple[nn.Module, InputSpec]:
    weights, input = NETWORKS[network]
    models = open_models(
        data / "weights" / weights,
        arch=f"{data / 'models.py'}:{network}",
        teacher=None,
        input_flags=input,
        trust_code=True,
        will_prune=True,
    )
    return models.teacher.requires_grad_(False), models.input


def real_images(path: Path, input: InputSpec) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*read_eval_data(path, input, 10).batches(1000), strict=True)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def measure(case: Case, results: Path) -> None:
    """Judge every student that is not in the results yet."""
    compute = choose_compute("cpu")
    done = {(s.network, s.name) for s in read(results)}
    teacher_NK = logits_on(case.teacher, case.sets.held_back, compute).numpy()
    teacher_accuracy = accuracy(case.teacher, *case.test)
    for name, kind, make in recipes(case):
        if (case.network, name) in done:
            continue
        student = make()
        student_NK = logits_on(student, case.sets.held_back, compute).numpy()
        judged = Student(
            network=case.network,
            name=name,
            kind=kind,
            reading=reading(student_NK, teacher_NK),
            agreement=agreement(student_NK, teacher_NK).value,
            kept=accuracy(student, *case.test) / teacher_accuracy,
        )
        print(judged, flush=True)
        write(results, [*read(results), judged])


def recipes(case: Case) -> Iterator[tuple[str, str, object]]:
    """Name, kind and maker of every student of a network."""
    for sparsity in SPARSITIES:
        masks = global_magnitude_masks(case.teacher, sparsity)
        tag = f"{100 * sparsity:g}"
        yield f"pruned-{tag}", "pruned", lambda masks=masks: pruned(case, masks)
        yield f"repaired-{tag}", "repaired", lambda masks=masks: repaired(case, masks)
        if sparsity not in TRAINED_SPARSITIES:
            continue
        for steps in DISTILLATION_STEPS:
            yield f"distilled{steps}-{tag}", "distilled", lambda masks=masks, n=steps: distilled(case, masks, n)
        if case.train:
            yield f"fine-tuned-{tag}", "fine-tuned", lambda masks=masks: fine_tuned(case, masks)


def pruned(case: Case, masks: dict[str, torch.Tensor]) -> nn.Module:
    student = copy.deepcopy(case.teacher)
    apply_masks(student, masks)
    return student


def repaired(case: Case, masks: dict[str, torch.Tensor]) -> nn.Module:
    student = pruned(case, masks)
    repair_statistics(student, case.teacher, case.sets.train, 64, choose_compute("cpu"))
    return student


def distilled(case: Case, masks: dict[str, torch.Tensor], num_steps: int) -> nn.Module:
    student = repaired(case, masks)
    settings = load_profile("balanced").recovery.model_copy(update={"num_steps": num_steps, "flip": case.flip})
    train: ImageSet = case.sets.train
    distill(student, case.teacher, masks, train, settings, seed=0, compute=choose_compute("cpu"))
    return student


def fine_tuned(case: Case, masks: dict[str, torch.Tensor]) -> nn.Module:
    """As someone with labels does it after pruning: no teacher, no dreams."""
    assert case.train is not None
    images_NCHW, labels_N = case.train
    student = pruned(case, masks).train().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=FINE_TUNING_STEPS, pct_start=0.1)
    for _ in range(FINE_TUNING_STEPS):
        chosen = torch.randint(len(images_NCHW), (64,), generator=generator)
        batch_NCHW = images_NCHW[chosen]
        flips = torch.rand(64, 1, 1, 1, generator=generator) < 0.5
        loss = F.cross_entropy(student(torch.where(flips, batch_NCHW.flip(3), batch_NCHW)), labels_N[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        apply_masks(student, masks)
        schedule.step()
    return student.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(network: nn.Module, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> float:
    hits = [(network(x).argmax(1) == y).sum() for x, y in zip(images_NCHW.split(500), labels_N.split(500), strict=True)]
    return float(sum(hits)) / len(labels_N)


def read(results: Path) -> list[Student]:
    return [Student(**row) for row in json.loads(results.read_text())] if results.exists() else []


def write(results: Path, students: list[Student]) -> None:
    rows = ",\n".join(json.dumps(asdict(student)) for student in students)
    replace_file(results, f"[\n{rows}\n]\n".encode())


# --- fitting ------------------------------------------------------------------------------------------------


def fit(readings_N: np.ndarray, kept_N: np.ndarray, num_classes: int = 10) -> tuple[float, float]:
    """Intercept and slope of least mean absolute error, by search over a grid: few numbers, and no local minimum."""
    grid = np.meshgrid(np.linspace(-6, 2, 161), np.linspace(0.5, 6, 111))
    intercepts, slopes = (part.ravel()[:, None] for part in grid)
    chance = 1 / num_classes
    predicted = chance + (1 - chance) / (1 + np.exp(-(intercepts + slopes * readings_N)))
    best = int(np.abs(predicted - kept_N).mean(1).argmin())
    return round(float(intercepts[best, 0]), 3), round(float(slopes[best, 0]), 3)


def calibrate(students: list[Student]) -> Calibration:
    """The curve over all networks, with the errors of predictions made without a network for its own students."""
    predicted_N = left_out(students)
    error_N = np.abs(predicted_N - [s.kept for s in students])
    little = predicted_N >= LITTLE_LOST
    intercept, slope = fit(np.array([s.reading for s in students]), np.array([s.kept for s in students]))
    return Calibration(
        made_by="python benchmarks/prediction.py --write",
        intercept=intercept,
        slope=slope,
        error_little_lost=round(float(error_N[little].mean()), 4),
        error_much_lost=round(float(error_N[~little].mean()), 4),
        num_students=len(students),
        networks=tuple(sorted({s.network for s in students})),
    )


def left_out(students: list[Student]) -> np.ndarray:
    """What is predicted for each student by the curve of the other networks' students."""
    network_N = np.array([s.network for s in students])
    reading_N, kept_N = np.array([s.reading for s in students]), np.array([s.kept for s in students])
    predicted_N = np.zeros(len(students))
    for network in sorted(set(network_N)):
        others = network_N != network
        curve = Calibration("", *fit(reading_N[others], kept_N[others]), 0.0, 0.0, 0, ())
        predicted_N[~others] = [curve.kept(value, 10) for value in reading_N[~others]]
    return predicted_N


def table(students: list[Student]) -> str:
    """Rank correlation of reading and plain agreement with what is kept, and mean error in points, by kind."""
    lines = [
        "| students | number | Spearman, reading | Spearman, agreement | mean error, points "
        "| of those predicted 80 % and more | mean error of agreement read as it is |",
        "|---|---|---|---|---|---|---|",
    ]
    predicted_N = left_out(students)
    rows = [("all", [True] * len(students))]
    rows += [(kind, [s.kind == kind for s in students]) for kind in KINDS]
    rows += [(network, [s.network == network for s in students]) for network in sorted({s.network for s in students})]
    return "\n".join([*lines, *(_row(name, students, predicted_N, np.array(chosen)) for name, chosen in rows)])


def _row(name: str, students: list[Student], predicted_N: np.ndarray, chosen_N: np.ndarray) -> str:
    kept, agreed, read_ = (
        np.array([getattr(s, field) for s in students])[chosen_N] for field in ("kept", "agreement", "reading")
    )
    error_points = 100 * np.abs(predicted_N[chosen_N] - kept)
    little = predicted_N[chosen_N] >= LITTLE_LOST
    high = f"{error_points[little].mean():.1f} ({little.sum()})" if little.any() else "–"
    return (
        f"| {name} | {len(kept)} | {spearman(read_, kept):.2f} | {spearman(agreed, kept):.2f} "
        f"| {error_points.mean():.1f} | {high} | {100 * np.abs(agreed - kept).mean():.1f} |"
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; ties share their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1]) if len(a) > 1 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


if __name__ == "__main__":
    main()
