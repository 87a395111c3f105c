r"""What is a prediction of the accuracy kept worth? Students whose real accuracy is known, the curve, its coverage.

    python benchmarks/prediction.py DATA                                   # measure what is not recorded, fit, print
    python benchmarks/prediction.py DATA --networks demo resnet20          # of these networks alone
    python benchmarks/prediction.py DATA --folder FOLDER --images NPZ      # of one of your own
    python benchmarks/prediction.py                                        # fit what was recorded, print
    python benchmarks/prediction.py --write                                # and ship it with edgerecover

DATA is the folder of benchmarks/recovery.py, with Fashion-MNIST. FOLDER is one as `edgerecover run` takes it, with
dense.pt and model.toml; NPZ its real images, `images` and `labels`. Every student is judged on held-out dreams (its
reading, and its plain agreement) and on real images that no student learnt from: its accuracy as a share of the
teacher's. Each is written to --results as soon as it is judged, and not made again. For every student the table has
the prediction and the interval that the *other* networks' students lead to.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from prediction_curve import FEWEST_NETWORKS, Student, calibrate, holds, interval, left_out
from prediction_networks import SOURCES, Case, Images, open_case, own_folder
from torch import Tensor, nn

from edgerecover.artifacts import to_json
from edgerecover.compute import choose_compute
from edgerecover.config import load_profile
from edgerecover.files import replace_file
from edgerecover.pruning import apply_masks, global_magnitude_masks
from edgerecover.recovery.distill import distill
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.layerwise import fit_layers
from edgerecover.recovery.logits import logits_on
from edgerecover.recovery.pair import Pair
from edgerecover.recovery.statistics import repair_statistics
from edgerecover.tasks.measure import measure_of
from edgerecover.validation import prediction
from edgerecover.validation.fidelity import agreement
from edgerecover.validation.prediction import reading

SHIPPED = Path(prediction.__file__).with_name("prediction.json")
RESULTS = Path(__file__).with_name("prediction-students.json")
DISTILLATION_STEPS = 40
KINDS = ("pruned", "repaired", "solved", "distilled")
"""As they came; after statistics repair; then least squares; then a short distillation."""
LITTLE_LOST = 0.8
Masks = dict[str, Tensor]
Recipe = tuple[str, str, Callable[[], nn.Module]]
"""Name, kind and maker."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="left out: only fit and print")
    parser.add_argument("--networks", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--folder", type=Path, help="of one more network; needs --images")
    parser.add_argument("--images", type=Path, help="real images of that network")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("benchmark-results/prediction"))
    parser.add_argument("--write", action="store_true", help="put the curve where edgerecover reads it")
    asked = parser.parse_args()
    if (asked.folder is None) != (asked.images is None):
        parser.error("--folder and --images go together")
    if asked.data:
        sources = {name: SOURCES[name] for name in asked.networks}
        if asked.folder:
            sources[asked.folder.resolve().name] = own_folder(asked.folder, asked.images)
        for name, source in sources.items():
            measure(open_case(name, source, asked.data, asked.work), asked.results)
    students = read(asked.results)
    if len({s.network for s in students}) < FEWEST_NETWORKS:
        parser.exit(0, f"{asked.results}: too few networks to judge one by the others\n")
    print(table(students))
    if asked.write:
        replace_file(SHIPPED, (json.dumps(to_json(shipped(students)), indent=1) + "\n").encode())


# --- measuring ----------------------------------------------------------------------------------------------


def measure(case: Case, results: Path) -> None:
    """Judge every student that is not in the results yet."""
    compute = choose_compute("cpu")
    done = {(s.network, s.name) for s in read(results)}
    teacher = case.teacher.network
    teacher_NK = logits_on(teacher, case.sets.held_back, compute).numpy()
    teacher_accuracy = accuracy(teacher, case.teacher.judged_on)
    print(f"{case.name}: the teacher has {100 * teacher_accuracy:.1f} % right", flush=True)
    for name, kind, make in recipes(case):
        if (case.name, name) in done:
            continue
        student = make()
        student_NK = logits_on(student, case.sets.held_back, compute).numpy()
        found = reading(student_NK, teacher_NK)
        judged = Student(
            network=case.name,
            name=name,
            kind=kind,
            num_classes=case.teacher.output,
            num_images=len(teacher_NK),
            reading=round(found.value, 4),
            standard_error=round(found.standard_error, 4),
            agreement=round(agreement(student_NK, teacher_NK, measure_of(case.teacher.output)).value, 5),
            kept=round(accuracy(student, case.teacher.judged_on) / teacher_accuracy, 5),
        )
        print(judged, flush=True)
        write(results, [*read(results), judged])


def recipes(case: Case) -> Iterator[Recipe]:
    """Every student of a network; each makes those that it starts from anew."""
    for sparsity in case.source.sparsities:
        masks = global_magnitude_masks(case.teacher.network, sparsity)
        tag = f"{100 * sparsity:g}"
        yield f"pruned-{tag}", "pruned", lambda masks=masks: pruned(case, masks)
        yield f"repaired-{tag}", "repaired", lambda masks=masks: repaired(case, masks)
        if sparsity in case.source.recovered:
            yield f"solved-{tag}", "solved", lambda masks=masks: solved(case, masks)
            yield f"distilled-{tag}", "distilled", lambda masks=masks: distilled(case, masks)


def pruned(case: Case, masks: Masks) -> nn.Module:
    student = copy.deepcopy(case.teacher.network)
    apply_masks(student, masks)
    return student


def repaired(case: Case, masks: Masks) -> nn.Module:
    student = pruned(case, masks)
    pair = Pair(student, case.teacher.network, output=case.teacher.output)
    repair_statistics(pair, case.sets.train, case.source.batch_size, Execution(choose_compute("cpu")))
    return student


def solved(case: Case, masks: Masks) -> nn.Module:
    student = repaired(case, masks)
    pair = Pair(student, case.teacher.network, masks, output=case.teacher.output)
    fit_layers(pair, case.sets.train, case.source.batch_size, Execution(choose_compute("cpu")))
    return student


def distilled(case: Case, masks: Masks) -> nn.Module:
    student = solved(case, masks)
    changes = {"num_steps": DISTILLATION_STEPS, "flip": case.source.flip}
    settings = load_profile("balanced").recovery.model_copy(update=changes)
    pair = Pair(student, case.teacher.network, masks, output=case.teacher.output)
    distill(pair, case.sets.train, settings, Execution(choose_compute("cpu")), seed=0)
    return student


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    batches = zip(*(part.split(50) for part in images), strict=True)
    return sum(int((network(x).argmax(1) == y).sum()) for x, y in batches) / len(images[1])


def read(results: Path) -> list[Student]:
    return [Student(**row) for row in json.loads(results.read_text())] if results.exists() else []


def write(results: Path, students: Sequence[Student]) -> None:
    rows = ",\n".join(json.dumps(asdict(student)) for student in students)
    replace_file(results, f"[\n{rows}\n]\n".encode())


# --- telling ------------------------------------------------------------------------------------------------


def shipped(students: Sequence[Student]) -> prediction.Calibration:
    """Curve and interval over all networks, with the coverage that they had without a network for its own students."""
    held = [holds(*pair) for pair in zip(left_out(students), students, strict=True)]
    return replace(calibrate(students), coverage=round(sum(held) / len(held), 3))


def table(students: Sequence[Student]) -> str:
    """Coverage, error and width in points, by what is predicted, kind and network; each network's from the others."""
    curves = left_out(students)
    ends_N2 = 100 * np.array([interval(*pair) for pair in zip(curves, students, strict=True)])
    predicted_N = 100 * np.array([c.kept(s.reading, s.num_classes) for c, s in zip(curves, students, strict=True)])
    kept_N = 100 * np.array([s.kept for s in students])
    held_N = np.array([holds(*pair) for pair in zip(curves, students, strict=True)])
    little_N = predicted_N >= 100 * LITTLE_LOST
    rows = {"all": np.ones(len(students), bool)}
    rows |= {"predicted 80 % and more": little_N, "predicted less": ~little_N}
    rows |= {kind: np.array([s.kind == kind for s in students]) for kind in KINDS}
    rows |= {name: np.array([s.network == name for s in students]) for name in sorted({s.network for s in students})}
    lines = [
        "| students | number | truth in the interval | mean error, points | mean width, points "
        "| median width | agreement read as it is errs by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, chosen in rows.items():
        if not chosen.any():
            continue
        width = (ends_N2[:, 1] - ends_N2[:, 0])[chosen]
        agreed = 100 * np.array([s.agreement for s in students])[chosen]
        lines.append(
            f"| {name} | {chosen.sum()} | {100 * held_N[chosen].mean():.0f} % "
            f"| {np.abs(predicted_N - kept_N)[chosen].mean():.1f} | {width.mean():.0f} | {np.median(width):.0f} "
            f"| {np.abs(agreed - kept_N[chosen]).mean():.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
