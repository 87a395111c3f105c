"""Peak memory and cost per image as the synthetic set grows: from shards on disk to distillation and judging.

    python benchmarks/memory.py [--images 1000,50000] [--size 224] [--dream] [--work FOLDER] [--out memory.json]

The pipeline's own code on a small network, so that the images and not the model decide: shards are made (of white
noise, the cheapest there is, or with --dream by two steps of gradients), read back and proven by their digests, the
teacher decides on all of them, statistics are repaired on all of them, each is distilled on once, and an exported file
is judged on all of them. Each number of images runs in a process of its own. Time is the processor's, so that a busy
machine does not count. Peak memory is what the process held more than after one batch had been through it.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgerecover.artifacts import OutputSpec

NUM_CLASSES = 1000
BATCH_SIZE = 64


def main() -> None:
    """Print a table: a row for each step, a pair of columns for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", default="1000,50000")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dream", action="store_true", help="make images by gradients, not of noise")
    parser.add_argument("--work", type=Path, help="where the shards go; removed afterwards")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measured(int(arguments.images), arguments.size, arguments.dream, arguments.work)))
        return
    found = {}
    for num_images in map(int, arguments.images.split(",")):
        work = Path(tempfile.mkdtemp(prefix="memory-", dir=arguments.work))
        command = [sys.executable, __file__, "--child", "--images", str(num_images), "--size", str(arguments.size)]
        command += ["--dream"] if arguments.dream else []
        try:
            done = subprocess.run([*command, "--work", str(work)], check=True, stdout=subprocess.PIPE, text=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        found[num_images] = json.loads(done.stdout.splitlines()[-1])
        print(f"{num_images:,} images: {json.dumps(found[num_images])}", file=sys.stderr)
    print(table(found))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def table(found: dict[int, dict[str, dict[str, float]]]) -> str:
    """Milliseconds of processor time for an image, and MB at peak."""
    head = "| step |" + "".join(f" {n:,} images, ms each | peak MB |" for n in found)
    rows = [
        f"| {step} |"
        + "".join(
            f" {values[step]['ms_per_image']:.2f} | {values[step]['peak_mb']:,.0f} |" for values in found.values()
        )
        for step in next(iter(found.values()))
    ]
    return "\n".join([head, "|---|" + "---|---|" * len(found), *rows])


def measured(num_images: int, size: int, dream: bool, work: Path) -> dict[str, dict[str, float]]:
    """Each step's milliseconds of processor time per image and peak memory in 10^6 bytes."""
    import torch

    from edgerecover.artifacts import InputSpec
    from edgerecover.compute import choose_compute
    from edgerecover.config import load_profile
    from edgerecover.export.onnx import export
    from edgerecover.pruning import apply_masks, global_magnitude_masks
    from edgerecover.recovery.checkpoints import Checkpoints
    from edgerecover.recovery.distill import distill
    from edgerecover.recovery.execution import Execution
    from edgerecover.recovery.logits import numpy_logits
    from edgerecover.recovery.pair import Pair
    from edgerecover.recovery.statistics import repair_statistics
    from edgerecover.report.picture import contact_sheet
    from edgerecover.stages.validate import Beside, judge_file
    from edgerecover.synthesis.sets import synthesize
    from edgerecover.synthesis.source import Source
    from edgerecover.tasks.measure import measure_of
    from edgerecover.validation.evidence import decisions_over
    from edgerecover.validation.scoring import Reference, open_on_cpu, scorer_of

    torch.manual_seed(0)
    input = InputSpec((3, size, size), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    compute = choose_compute("cpu")
    teacher = small_network().eval().requires_grad_(False)
    student = copy.deepcopy(teacher)
    masks = global_magnitude_masks(student, 0.5)
    apply_masks(student, masks)
    profile = load_profile("balanced")
    output = OutputSpec.one_label(NUM_CLASSES)
    counts = {"num_train": num_images, "num_calibration": BATCH_SIZE, "num_held_back": BATCH_SIZE}
    synthesis = profile.synthesis.model_copy(
        update={
            **counts,
            "source": "dream" if dream else "noise",
            "num_steps": 2,
            "batch_size": BATCH_SIZE,
            "flip": False,
        }
    )
    num_steps = num_images // BATCH_SIZE
    recovery = profile.recovery.model_copy(
        update={"num_steps": num_steps, "batch_size": BATCH_SIZE, "flip": True, "crop_border": "zero"}
    )
    file = export(student, input, work / "model.onnx", opset=18, batch=None)
    session = open_on_cpu(Path(file.path), input.shape, NUM_CLASSES)
    # Once through everything, so that what libraries keep for themselves is there before it is counted.
    warm = torch.zeros(BATCH_SIZE, *input.shape)
    for network in (teacher, student):
        compute.place(network)(compute.images(warm).requires_grad_()).sum().backward()
    scorer_of(teacher)(warm.numpy())
    session.run(warm.numpy())
    found: dict[str, dict[str, float]] = {}
    own_bytes = resident_bytes()

    @contextmanager
    def step(name: str) -> Iterator[None]:
        reset_peak()
        started_s = time.process_time()
        yield
        seconds = time.process_time() - started_s
        found[name] = {"ms_per_image": 1e3 * seconds / num_images, "peak_mb": (peak_bytes() - own_bytes) / 1e6}
        print(f"  {name}: {found[name]}", file=sys.stderr, flush=True)

    def make():  # type: ignore[no-untyped-def]
        source = Source(teacher, input, output, compute)
        return synthesize(source, synthesis, seed=0, folder=work / "dreams")[0]

    with step("shards are made"):
        make()
    with step("shards are read back and proven"):
        sets = make()
    with step("the teacher decides on all of them"):
        decisions_over(numpy_logits(teacher, sets.train, compute), measure_of(output))
    with step("statistics are repaired on all of them"):
        repair_statistics(Pair(student, teacher, output=output), sets.train, BATCH_SIZE, Execution(compute))
    with step("each is distilled on once"):
        execution = Execution(compute, checkpoints=Checkpoints(work / "steps"))
        distill(Pair(student, teacher, masks, output=output), sets.train, recovery, execution, seed=0)
    with step("a sheet of some of them"):
        contact_sheet(sets.train)
    with step("the exported file is judged on all of them"):
        reference = Reference(scorer_of(teacher), measure_of(output))
        beside = Beside(reference, scorer_of(student), scorer_of(student))
        judge_file(session, beside, sets.train, None, None, two_four=None, is_predictable=True)  # type: ignore[arg-type]
    return found


def small_network():  # type: ignore[no-untyped-def]
    """Convolutions of stride 4, 2 and 2, and a thousand classes."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=4, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, NUM_CLASSES),
    )  # fmt: skip


def resident_bytes() -> int:
    """Of this process now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Most since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Linux forgets the peak when a 5 is written here."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
