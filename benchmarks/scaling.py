"""What several processes bring, measured on this machine's cores, and what they would bring ResNet-50 on paper.

    python benchmarks/scaling.py            # both; about ten minutes on two idle cores
    python benchmarks/scaling.py --paper    # ResNet-50's cost per image on one core, and the computation alone

The first table times the product's own synthesis and distillation of a ResNet-18 in one process of one thread, two
processes of one thread (torchrun, gloo) and one process of two threads, in turns, median of the rounds. The second
measures what an image costs a ResNet-50 at 224×224 on one core, which gives the ratio of a distillation step to a
synthesis step, and takes the speed of a GPU from what the literature reports of the same computation. No GPU was run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgerecover.artifacts import OutputSpec

ROOT = Path(__file__).resolve().parents[1]
LAYOUTS = ((1, 1), (2, 1), (1, 2))
"""Processes, threads of each."""
NUM_CLASSES = 10

# --- literature ----------------------------------------------------------------------------------------------

V100_HOURS, V100_IMAGES, V100_STEPS = 2_800, 215_000, 20_000
"""DeepInversion (Yin et al. 2020, arXiv 1912.08795): ResNet-50, 224×224."""
FAST_HOURS, FAST_IMAGES = 6.28, 140_000
"""FastDFKD (Fang et al. 2022, arXiv 2112.15278), its README: synthesis alone, by a generator; another method."""
RETIMED_HOURS, RETIMED_IMAGES, RETIMED_STEPS = 166, 140_000, 2_000
"""DeepInversion with 2,000 steps, as FastDFKD's README times it."""
IMAGES = 140_000
PASSES = 90
"""Over the images, in distillation: an assumption."""
LOCAL_BATCH = 64
"""Images of a distillation step per GPU: an assumption; the profile's batch_size is that times the GPUs."""
GRADIENT_BYTES = 25_557_032 * 4
LINK_BYTES_PER_S = 10e9
"""Between GPUs: an assumption, modest inside a node and good between nodes."""
REFRESH_EVERY, REFRESH_IMAGES, REFRESH_STEPS = 100, 256, 20
"""As in profile balanced; made by one process while the others wait."""


@dataclass(frozen=True)
class Timed:
    """One layout, one round."""

    processes: int
    threads: int
    synthesis_s: float
    distillation_s: float
    synthesis_cpu_s: float
    """Of all processes together: what the computation costs, whatever else the machine does."""
    distillation_cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="leave the measurement of processes out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="of ResNet-18's images")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="of synthesis, and of distillation times two")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write what was measured there")
    asked = parser.parse_args()
    if asked.work:
        worker(asked)
        return
    measured: dict[str, object] = {}
    if not asked.paper:
        timed = [
            run_layout(layout, asked, number) for number in range(asked.rounds) for layout in turned(LAYOUTS, number)
        ]
        measured["timed"] = [vars(one) for one in timed]
        print(table(timed, asked))
    dream_s, distil_s = resnet50_costs()
    measured |= {"dream_image_step_s": dream_s, "distil_image_step_s": distil_s}
    print(paper(dream_s, distil_s))
    if asked.json:
        asked.json.write_text(json.dumps(measured, indent=1) + "\n")


def take_states_rarely() -> None:
    """As in a run of thousands of steps, whose state is taken down every hundredth of them: here that is every step."""
    from edgerecover.recovery import training

    training._STATES = 1


def turned(items: tuple[tuple[int, int], ...], by: int) -> tuple[tuple[int, int], ...]:
    by %= len(items)
    return items[by:] + items[:by]


# --- measured ------------------------------------------------------------------------------------------------


def run_layout(layout: tuple[int, int], asked: argparse.Namespace, number: int) -> Timed:
    processes, threads = layout
    with tempfile.TemporaryDirectory(prefix="scaling-") as work:
        own = [__file__, "--work", work, "--side", asked.side, "--images", asked.images, "--steps", asked.steps]
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        command = [sys.executable, *(start if processes > 1 else []), *own]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        subprocess.run(list(map(str, command)), check=True, env=environment, stdout=subprocess.DEVNULL)
        found = json.loads((Path(work) / "seconds.json").read_text())
    timed = Timed(processes, threads, **found)
    print(f"round {number + 1}: {timed}", file=sys.stderr)
    return timed


def worker(asked: argparse.Namespace) -> None:
    """The product's own functions, between two meetings of all processes."""
    import torch
    from torchvision.models import resnet18

    from edgerecover.artifacts import InputSpec
    from edgerecover.compute import choose_compute
    from edgerecover.config import load_profile
    from edgerecover.distributed import joined
    from edgerecover.pruning import apply_masks, global_magnitude_masks
    from edgerecover.recovery.distill import distill
    from edgerecover.recovery.execution import Execution
    from edgerecover.recovery.pair import Pair
    from edgerecover.synthesis.sets import synthesize
    from edgerecover.synthesis.source import Source

    take_states_rarely()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    input = InputSpec((3, asked.side, asked.side), (0.5,) * 3, (0.25,) * 3)
    teacher, student = resnet18(num_classes=NUM_CLASSES).eval(), resnet18(num_classes=NUM_CLASSES).eval()
    masks = global_magnitude_masks(student, 0.75)
    apply_masks(student, masks)
    profile = load_profile("balanced")
    images = {"num_train": asked.images, "num_calibration": 1, "num_held_back": 1, "batch_size": 64, "flip": False}
    synthesis = profile.synthesis.model_copy(update={**images, "num_steps": asked.steps})
    learning = {"num_steps": 2 * asked.steps, "batch_size": 64, "flip": False, "crop_border": "edge", "refresh": None}
    recovery = profile.recovery.model_copy(update=learning)
    seconds = {}
    with joined("cpu", asked.work) as ranks:
        compute = choose_compute("cpu")
        teacher, student = compute.place(teacher).requires_grad_(False), compute.place(student)

        def dreams(folder: str, settings):
            return synthesize(
                Source(teacher, input, OutputSpec.one_label(NUM_CLASSES), compute),
                settings, seed=0, folder=asked.work / folder, splits=("train",), ranks=ranks,
            )[0].train  # fmt: skip

        dreams("warm-up", synthesis.model_copy(update={"num_steps": 1}))

        def timed(what: str, work):
            ranks.wait()
            started, started_cpu = time.perf_counter(), time.process_time()
            made = work()
            spent_cpu = time.process_time() - started_cpu
            ranks.wait()
            seconds[f"{what}_s"] = time.perf_counter() - started
            seconds[f"{what}_cpu_s"] = sum(ranks.gathered(spent_cpu))
            return made

        train = timed("synthesis", lambda: dreams("timed", synthesis))
        for name, settings in (("warm-up", recovery.model_copy(update={"num_steps": 1})), ("distillation", recovery)):
            output = OutputSpec.one_label(NUM_CLASSES)
            pair, execution = Pair(student, teacher, masks, output=output), Execution(compute, ranks=ranks)
            timed(name, partial(distill, pair, train, settings, execution, seed=0))
    if ranks.is_first:
        known = {name: value for name, value in seconds.items() if not name.startswith("warm-up")}
        (asked.work / "seconds.json").write_text(json.dumps(known))


def table(timed: list[Timed], asked: argparse.Namespace) -> str:
    num_dreamt, num_learnt = asked.images * asked.steps, 64 * 2 * asked.steps
    lines = [
        f"ResNet-18, {asked.side}×{asked.side}, batch 64 in all, median of {asked.rounds} rounds "
        f"(lowest–highest), one machine of {os.cpu_count()} cores",
        "",
        "| processes × threads | synthesis, ms per image and step | efficiency | CPU ms "
        "| distillation, ms per image and step | efficiency | CPU ms |",
        "|---|---|---|---|---|---|---|",
    ]
    base: dict[str, float] = {}
    for processes, threads in LAYOUTS:
        cells = [f"{processes} × {threads}"]
        ones = [one for one in timed if (one.processes, one.threads) == (processes, threads)]
        for what, count in (("synthesis", num_dreamt), ("distillation", num_learnt)):
            values = sorted(1000 * getattr(one, f"{what}_s") / count for one in ones)
            middle = statistics.median(values)
            base.setdefault(what, middle)
            cells.append(f"{middle:.2f} ({values[0]:.2f}–{values[-1]:.2f})")
            cells.append(f"{100 * base[what] / (middle * processes * threads):.0f} %")
            cells.append(f"{statistics.median(1000 * getattr(one, f'{what}_cpu_s') / count for one in ones):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


# --- on paper ------------------------------------------------------------------------------------------------


def resnet50_costs(batch: int = 16, num_steps: int = 8) -> tuple[float, float]:
    """Seconds that an image takes in a synthesis step and in a distillation step, on one core."""
    import torch
    from torchvision.models import resnet50

    from edgerecover.artifacts import InputSpec
    from edgerecover.compute import choose_compute
    from edgerecover.config import load_profile
    from edgerecover.pruning import apply_masks, global_magnitude_masks
    from edgerecover.recovery.distill import distill
    from edgerecover.recovery.execution import Execution
    from edgerecover.recovery.pair import Pair
    from edgerecover.synthesis.sets import synthesize
    from edgerecover.synthesis.source import Source

    take_states_rarely()
    torch.set_num_threads(1)  # so that its CPU time is the time it takes, whatever else the machine does
    torch.manual_seed(0)
    compute = choose_compute("cpu")
    teacher, student = (compute.place(resnet50().eval()).requires_grad_(False) for _ in range(2))
    masks = global_magnitude_masks(student, 0.75)
    apply_masks(student, masks)
    profile = load_profile("balanced")
    images = {"num_train": batch, "batch_size": batch, "flip": False, "start": "noise"}
    input = InputSpec((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with tempfile.TemporaryDirectory(prefix="scaling-") as work:
        for steps in (1, 1 + num_steps):
            settings = profile.synthesis.model_copy(update={**images, "num_steps": steps})
            started = time.process_time()
            sets, _ = synthesize(
                Source(teacher, input, OutputSpec.one_label(1000), compute),
                settings, seed=0, folder=Path(work) / str(steps), splits=("train",),
            )  # fmt: skip
            dream_s = time.process_time() - started - (dream_s if steps > 1 else 0.0)  # noqa: F821
        for steps in (1, 1 + num_steps):
            learning = {"num_steps": steps, "batch_size": batch, "flip": False, "crop_border": "edge", "refresh": None}
            settings = profile.recovery.model_copy(update=learning)
            started = time.process_time()
            distill(
                Pair(student, teacher, masks, output=OutputSpec.one_label(1000)),
                sets.train,
                settings,
                Execution(compute),
                seed=0,
            )
            distil_s = time.process_time() - started - (distil_s if steps > 1 else 0.0)  # noqa: F821
    return dream_s / (batch * num_steps), distil_s / (batch * num_steps)


def paper(dream_s: float, distil_s: float) -> str:
    """The computation, with everything that it assumes."""
    v100_per_s = V100_IMAGES * V100_STEPS / (V100_HOURS * 3600)
    retimed_per_s = RETIMED_IMAGES * RETIMED_STEPS / (RETIMED_HOURS * 3600)
    ratio = distil_s / dream_s
    lines = [
        f"ResNet-50, 224×224, one core: {dream_s:.2f} s per image and synthesis step, {distil_s:.2f} s per image and "
        f"distillation step ({ratio:.2f} times that)",
        f"A V100 by the literature: {v100_per_s:.0f} image steps/s ({V100_HOURS:,} h for {V100_IMAGES:,} images of "
        f"{V100_STEPS:,} steps); re-timed {retimed_per_s:.0f}; {v100_per_s * dream_s:.0f} of these cores",
        "",
        f"| {IMAGES:,} images | 1 core here | 1 V100 | 8 V100 | 64 V100 |",
        "|---|---|---|---|---|",
    ]
    for steps in (80, 2_000, 20_000):
        core_h = IMAGES * steps * dream_s / 3600
        gpus = (f"{hours(synthesis_h(steps, v100_per_s, count))}" for count in (1, 8, 64))
        lines.append(f"| synthesis, {steps:,} steps | {hours(core_h)} | {' | '.join(gpus)} |")
    core_h = IMAGES * PASSES * distil_s / 3600
    gpus = (hours(distillation_h(ratio, v100_per_s, count)) for count in (1, 8, 64))
    lines.append(f"| distillation, {PASSES} passes | {hours(core_h)} | {' | '.join(gpus)} |")
    gpus = (hours(refresh_h(ratio, v100_per_s, count)) for count in (1, 8, 64))
    lines.append(f"| its refreshes, by one process | – | {' | '.join(gpus)} |")
    lines += [
        "",
        f"Literature: {V100_HOURS:,} V100-hours for {V100_IMAGES:,} images of {V100_STEPS:,} steps; {FAST_HOURS} h for "
        f"{FAST_IMAGES:,} images by a meta-learned generator.",
        f"Assumed: {LOCAL_BATCH} images of a distillation step per GPU; gradients of {GRADIENT_BYTES / 1e6:.0f} MB "
        f"summed in a ring at {LINK_BYTES_PER_S / 1e9:.0f} GB/s, not overlapped; a GPU's distillation step "
        f"costs {ratio:.2f} synthesis steps, as on this core.",
    ]
    return "\n".join(lines)


def synthesis_h(steps: int, per_s: float, gpus: int, batch: int = 64) -> float:
    """No process waits for another but at the end, for the last shard."""
    shards = math.ceil(IMAGES / batch)
    return math.ceil(shards / gpus) * batch * steps / per_s / 3600


def distillation_h(ratio: float, per_s: float, gpus: int) -> float:
    compute_s = LOCAL_BATCH * ratio / per_s
    exchange_s = 2 * (gpus - 1) / gpus * GRADIENT_BYTES / LINK_BYTES_PER_S
    return num_steps(gpus) * (compute_s + exchange_s) / 3600


def refresh_h(ratio: float, per_s: float, gpus: int) -> float:
    """A step of theirs goes forward through the student too; taken as a distillation step."""
    times = 0.75 * num_steps(gpus) / REFRESH_EVERY
    return times * REFRESH_IMAGES * REFRESH_STEPS * ratio / per_s / 3600


def num_steps(gpus: int) -> float:
    return PASSES * IMAGES / (LOCAL_BATCH * gpus)


def hours(value: float) -> str:
    return f"{value:,.0f} h" if value >= 10 else f"{value:.1f} h" if value >= 1 else f"{60 * value:.0f} min"


if __name__ == "__main__":
    main()
