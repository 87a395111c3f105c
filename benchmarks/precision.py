"""What fp16 and int8 cost: trained networks, dense, pruned and recovered, by every int8 scheme and seed of calibration.

    python benchmarks/precision.py ../shared/data --networks resnet20 --patterns 75 --seeds 0 1 2

Nothing is refused here, so that what is lost can be read: agreement with the teacher on the calibration dreams, below
that of float32, and accuracy on real test images. Prints Markdown; JSON lines go to RESULTS/precision.jsonl.
"""

# Shapes: N images, K classes.

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from networks import NETWORKS, prepare, prune, pruned_file

from edgerecover.artifacts import Exported, Precision, Variant
from edgerecover.compute import choose_compute
from edgerecover.config import load_profile
from edgerecover.export.onnx import export
from edgerecover.export.precision import SCHEMES, Calibration, make_variants
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import Models, open_models
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.logits import logits_on
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.session.onnxruntime import CPU, open_session
from edgerecover.synthesis.image_set import SyntheticSets
from edgerecover.synthesis.sets import synthesis_key, synthesize
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source
from edgerecover.tasks.measure import measure_of
from edgerecover.validation.evaluation import EvalSet, read_eval_data

Record = dict[str, Any]
_OPSET = 18


def main() -> None:
    arguments = _parser().parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    records = []
    with (arguments.results / "precision.jsonl").open("w", encoding="utf-8") as file:
        for record in measure(arguments):
            records.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(f"{record['network']} {record['student']} {record['precision']}", file=sys.stderr, flush=True)
    print(markdown(records))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["resnet20", "resnet56"])
    parser.add_argument("--patterns", nargs="+", default=["75"])
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=["u8s8", "u8s7", "s8s8", "tensorrt"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the calibration set")
    parser.add_argument("--profile", default="fast", help="how images are dreamt and students recovered")
    parser.add_argument("--teacher-steps", type=int, default=6000, help="where DATA has no checkpoint")
    parser.add_argument("--results", type=Path, default=Path("benchmark-results"))
    return parser


def measure(arguments: argparse.Namespace) -> Iterator[Record]:
    for network in arguments.networks:
        folder = arguments.results / network
        prepare(network, arguments.data, folder, teacher_steps=arguments.teacher_steps, device="cpu")
        for pattern in arguments.patterns:
            prune(folder, pattern)
            models = open_models(pruned_file(folder, pattern), ModelFlags(trust_code=True), will_prune=False)
            yield from _of_models(network, pattern, models, folder, arguments)


def _of_models(
    network: str, pattern: str, models: Models, folder: Path, arguments: argparse.Namespace
) -> Iterator[Record]:
    compute = choose_compute("cpu")
    source = Source(models.teacher, models.input, models.output, compute)
    profile = settle(load_profile(arguments.profile), source).profile
    real = read_eval_data(folder / "test.npz", models.input, models.output)

    def dreams(seed: int) -> SyntheticSets:
        return synthesize(
            source, profile.synthesis, seed=seed,
            folder=folder / f"dreams-{synthesis_key(source, profile.synthesis, seed)}",
            splits=("train", "calibration") if seed == arguments.seeds[0] else ("calibration",),
        )[0]  # fmt: skip

    sets = {seed: dreams(seed) for seed in arguments.seeds}
    recovered = recover(
        Pair.of(models), sets[arguments.seeds[0]],
        profile.recovery, Execution(compute), seed=0, synthesis=profile.synthesis,
    ).student  # fmt: skip
    for student, module in (("dense", models.teacher), (f"{pattern} pruned", models.student),
                            (f"{pattern} recovered", recovered)):  # fmt: skip
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            float32 = export(module, models.input, place / "float32.onnx", opset=_OPSET, batch=None)
            for record in _of_student(float32, models, sets, real, place, arguments.schemes):
                yield {"network": network, "student": student, **record}


def _of_student(
    float32: Exported,
    models: Models,
    sets: dict[int, SyntheticSets],
    real: EvalSet,
    place: Path,
    schemes: list[str],
) -> Iterator[Record]:
    reference_NK = _scores(Path(float32.path), real)
    yield {"precision": "fp32", "seed": 0, "lost": 0.0, **_on_real_images(reference_NK, reference_NK, real)}
    for seed, of_seed in sets.items():
        measure, images = measure_of(models.output), of_seed.calibration
        logits_NK = logits_on(models.teacher, images, choose_compute("cpu")).numpy()
        calibration = Calibration(images, measure.read(logits_NK), measure)
        for number, scheme in enumerate(schemes):
            wanted = [Precision.FP16, Precision.INT8] if not number else [Precision.INT8]
            started = time.perf_counter()
            answers = make_variants(
                float32, wanted, SCHEMES[scheme], calibration, models.input, place, max_points_lost=100.0
            )
            seconds = time.perf_counter() - started
            for answer in answers:
                assert isinstance(answer, Variant), answer
                chosen = next(one for one in answer.tries if one.chosen)
                name = "fp16" if answer.precision is Precision.FP16 else f"int8 {scheme}"
                found_NK = _scores(Path(answer.file.path), real)
                yield {
                    "precision": name, "seed": seed, "lost": chosen.points_lost, "way": chosen.name,
                    "all_tries": {one.name: [one.points_lost, one.kl] for one in answer.tries},
                    "kept": len(answer.kept_higher), "seconds": seconds,
                    **_on_real_images(found_NK, reference_NK, real),
                }  # fmt: skip


def _scores(path: Path, real: EvalSet) -> np.ndarray:
    session = open_session(path, [CPU], num_threads=1, exact_int8=True)
    return np.concatenate([session.run(images_NCHW) for images_NCHW, _ in real.batches(100)])


def _on_real_images(found_NK: np.ndarray, reference_NK: np.ndarray, real: EvalSet) -> Record:
    labels_N = np.concatenate([labels_N for _, labels_N in real.batches(100)])
    return {
        "accuracy": 100 * float((found_NK.argmax(1) == labels_N).mean()),
        "same": 100 * float((found_NK.argmax(1) == reference_NK.argmax(1)).mean()),
        "num_real": len(labels_N),
    }


def markdown(records: list[Record]) -> str:
    """One row for each student and precision: means over the seeds, with the lowest and highest."""
    lines = [
        "| network | student | precision | points lost on dreams | real accuracy, % | same decision as fp32, real, % |",
        "|---|---|---|---|---|---|",
    ]
    by_row = sorted(records, key=lambda r: next(number for number, s in enumerate(records) if _row(s) == _row(r)))
    for (network, student, precision), group in groupby(by_row, key=_row):
        of_row = list(group)
        cells = [_spread([record[key] for record in of_row]) for key in ("lost", "accuracy", "same")]
        lines.append(f"| {network} | {student} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(record: Record) -> tuple[str, str, str]:
    return record["network"], record["student"], record["precision"]


def _spread(values: list[float]) -> str:
    if max(values) - min(values) < 0.05:
        return f"{mean(values):.1f}"
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
