r"""Networks without batch norm and without an activation record, recovered by whole `edgerecover run`s.

    python benchmarks/no_batch_norm.py DATA                       # the table of docs/explanation/benchmarks.md
    python benchmarks/no_batch_norm.py DATA --networks lenet --patterns 95 --seeds 0

DATA is described in docs/explanation/benchmarks.md. Each run is a process of its own, with nothing kept from another,
so that its seconds and its peak memory are those of one command. Kill it at any time and run it again: results are
kept in --results, one JSON each; after a change of the code, delete that folder.
"""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import plain_networks
import torch
import torch.nn.functional as F
from networks import prune as prune_to
from networks import pruned_file, read_jpegs

from edgerecover.compute import choose_compute
from edgerecover.config import load_profile
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_models
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.machine.host import this_host
from edgerecover.synthesis.image_set import ImageSet, PixelScale, SyntheticSets, write_shard
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source
from edgerecover.validation.evaluation import read_eval_data

HERE = Path(__file__).parent
_NUM_REAL_CALIBRATION = 500
_SHARD = 500


@dataclass(frozen=True)
class Network:
    """Where a network and its images come from."""

    images: str
    """Of DATA: mnist_test, fashion_mnist or cifar10_jpeg."""
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patterns: tuple[str, ...]
    mirrored: bool = False
    """Whether its training mirrors images."""
    num_steps: int = 0
    """Of its training; 0: DATA has the checkpoint, and the pruned ones."""
    lr: float = 1e-3


_GREY = {"shape": (1, 28, 28), "mean": (0.286,), "std": (0.353,)}
NETWORKS = {
    "lenet": Network("mnist_test", (1, 28, 28), (0.1307,), (0.3081,), ("90", "95")),
    "tanh_lenet": Network("fashion_mnist", **_GREY, patterns=("70", "80", "90"), num_steps=2500),
    "plain_vgg": Network("fashion_mnist", **_GREY, patterns=("70", "80", "90"), num_steps=2000, lr=1.5e-3),
    "tiny_squeezenet": Network(
        "cifar10_jpeg", (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), ("50", "70", "80"),
        mirrored=True, num_steps=2000, lr=2e-3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One table row: `method` is a profile, or `real`, which learns from real images what the profile does not."""

    network: str
    pattern: str
    method: str
    seed: int

    @property
    def file_name(self) -> str:
        return f"{self.network}-{self.pattern}-{self.method}-{self.seed}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--patterns", nargs="+", help="percent of all weights, as 90; each network has its own")
    parser.add_argument("--profiles", nargs="+", default=["balanced"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no-ceiling", action="store_true", help="nothing is learnt from real images")
    parser.add_argument("--results", type=Path, default=Path("no-batch-norm-results"))
    asked = parser.parse_args()
    records = []
    for name in asked.networks:
        folder = asked.results / name
        prepare(name, asked.data, folder)
        for pattern in asked.patterns or NETWORKS[name].patterns:
            prune_to(folder, pattern)
            cells = [Cell(name, pattern, *pair) for pair in product(asked.profiles, asked.seeds)]
            if not asked.no_ceiling:
                cells.append(Cell(name, pattern, "real", asked.seeds[0]))
            records += [measured(cell, folder) for cell in cells]
    print(table(records))


def measured(cell: Cell, folder: Path) -> dict[str, Any]:
    """The cell's record, made when it is not there yet."""
    path = folder / cell.file_name
    if not path.exists():
        record = on_real_images(cell, folder) if cell.method == "real" else whole_run(cell, folder)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{path.name}: {100 * record['after']:.2f} %, {record['seconds']:.0f} s", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# --- preparing ----------------------------------------------------------------------------------------------


def prepare(name: str, data: Path, folder: Path) -> None:
    """Fill `folder` with what a user has, and images to judge on; a teacher is trained where DATA has none."""
    network = NETWORKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(
        f'architecture = "models.py:{name}"\nteacher = "dense.pt"\n\n[input]\nshape = {list(network.shape)}\n'
        f"mean = {list(network.mean)}\nstd = {list(network.std)}\n"
    )
    shutil.copyfile(data / "models.py" if not network.num_steps else HERE / "plain_networks.py", folder / "models.py")
    if not (folder / "test.npz").exists():
        for split, (images_NHWC, labels_N) in real_images(network.images, data).items():
            np.savez(folder / f"{split}.npz", images=images_NHWC, labels=labels_N)
    if (folder / "dense.pt").exists():
        return
    if network.num_steps:
        train(name, folder)
    else:
        weights = data / "weights"
        shutil.copyfile(weights / f"{name}_mnist.pth", folder / "dense.pt")
        for pattern in network.patterns:
            shutil.copyfile(weights / f"{name}_mnist_pruned_0.{pattern.rstrip('0')}.pth", pruned_file(folder, pattern))


def real_images(source: str, data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, H, W, C) and labels (N,): `test` judges, `train` trains teachers and makes ceilings."""
    if source == "cifar10_jpeg":
        return {split: read_jpegs(data / "cifar10_jpeg.npz", split) for split in ("train", "test")}
    if source == "fashion_mnist":
        return {split: _npz(data / f"fashion_mnist_{split}.npz") for split in ("train", "test")}
    # MNIST's train images are not in DATA: the ceiling learns from the half that it is not judged on.
    images_NHWC, labels_N = _npz(data / "mnist_test.npz")
    half = len(labels_N) // 2
    return {
        "test": (images_NHWC, labels_N),
        "train": (images_NHWC[half:], labels_N[half:]),
        "first_half": (images_NHWC[:half], labels_N[:half]),
    }


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def train(name: str, folder: Path) -> None:
    """Adam with a cosine on the labels; images are shifted by up to 2 pixels, and mirrored where that is asked for."""
    settings = NETWORKS[name]
    torch.manual_seed(0)
    network = getattr(plain_networks, name)()
    images_NHWC, labels_N = _npz(folder / "train.npz")
    images_NCHW = torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (settings.mean, settings.std))
    targets_N = torch.from_numpy(labels_N).long()
    optimizer = torch.optim.Adam(network.parameters(), settings.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=settings.num_steps)
    for step in range(settings.num_steps):
        chosen = torch.randint(len(images_NCHW), (128,))
        batch = (images_NCHW[chosen].float() / 255 - mean) / std
        batch = torch.roll(batch, torch.randint(-2, 3, (2,)).tolist(), dims=(2, 3))
        if settings.mirrored and torch.rand(()) < 0.5:
            batch = batch.flip(3)
        loss = F.cross_entropy(network(batch), targets_N[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"{name}: step {step} of {settings.num_steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    torch.save(network.state_dict(), folder / "dense.pt")


# --- measuring ----------------------------------------------------------------------------------------------


def whole_run(cell: Cell, folder: Path) -> dict[str, Any]:
    """`edgerecover run` as a user types it, judged on real images that it only reports on."""
    scratch = folder / f"{Path(cell.file_name).stem}-run"
    shutil.rmtree(scratch, ignore_errors=True)
    command = [
        sys.executable, "-m", "edgerecover", "run", str(pruned_file(folder, cell.pattern)), "--target", "onnx-generic",
        "--profile", cell.method, "--seed", str(cell.seed), "--eval-data", str(folder / "test.npz"), "--trust-code",
        "--out", str(scratch / "bundle"), "--work", str(scratch / "work"), "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        report = json.loads(printed)
    except json.JSONDecodeError as error:
        raise SystemExit(f"{cell.file_name}: exit code {process.returncode}, no report") from error
    accuracy = {name: p["hits"] / p["total"] for name, p in report["accuracy"].items() if isinstance(p, dict)}
    return {
        **vars(cell),
        "num_images": report["accuracy"]["num_images"],
        "teacher": accuracy["teacher"],
        "before": accuracy["pruned"],
        "after": accuracy["exported"],
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "mirrored": report["synthetic"]["mirrored"],
        "mirror_correlation": report["synthetic"]["mirror_correlation"],
        "rungs": report["rungs"],
        "stages": report["stages"],
        "profile": load_profile(cell.method).model_dump(mode="json"),
        "num_threads": int(os.environ.get("OMP_NUM_THREADS", this_host().num_cores)),
        "cpu": this_host().cpu,
        "torch": torch.__version__,
    }


def on_real_images(cell: Cell, folder: Path) -> dict[str, Any]:
    """The recovery of `balanced` with real train images in the place of dreams: what data would have bought."""
    compute = choose_compute("cpu")
    models = open_models(pruned_file(folder, cell.pattern), ModelFlags(trust_code=True), will_prune=False)
    recipe = settle(load_profile("balanced"), Source(models.teacher, models.input, models.output, compute)).profile
    halved = folder / "first_half.npz"
    test = read_eval_data(
        halved if halved.exists() else folder / "test.npz", models.input, models.output, models.classes
    )
    pixels_NCHW = np.ascontiguousarray(_npz(folder / "train.npz")[0].transpose(0, 3, 1, 2))
    num_train = min(len(pixels_NCHW) - _NUM_REAL_CALIBRATION, 5000)
    scale = PixelScale(*models.input.bounds())
    real = folder / "real"
    real.mkdir(exist_ok=True)
    calibration = _on_disk(real, "calibration", pixels_NCHW[num_train:][:_NUM_REAL_CALIBRATION], scale)
    sets = SyntheticSets(_on_disk(real, "train", pixels_NCHW[:num_train], scale), calibration, calibration)
    started = time.perf_counter()
    recovered = recover(
        Pair.of(models), sets, recipe.recovery, Execution(compute), seed=cell.seed,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    shutil.rmtree(real)
    hits = {"teacher": 0, "before": 0, "after": 0}
    judged = {"teacher": models.teacher.cpu(), "before": models.student, "after": recovered.student}
    for images_NCHW, labels_N in test.batches(500):
        for key, network in judged.items():
            with torch.no_grad():
                hits[key] += int((network(torch.from_numpy(images_NCHW)).argmax(1).numpy() == labels_N).sum())
    shares = {key: count / len(test) for key, count in hits.items()}
    return {**vars(cell), "num_images": len(test), **shares, "seconds": seconds, "num_real_train": num_train}


def _on_disk(folder: Path, name: str, pixels_NCHW: np.ndarray, scale: PixelScale) -> ImageSet:
    starts = range(0, len(pixels_NCHW), _SHARD)
    shards = (
        write_shard(folder, f"{name}-{start:05d}", pixels_NCHW[start : start + _SHARD], (), 0, 0.0) for start in starts
    )
    return ImageSet(folder, scale, tuple(shards))


# --- the table ----------------------------------------------------------------------------------------------


def table(records: Iterable[dict[str, Any]]) -> str:
    """Markdown; accuracy in %."""
    lines = [
        "| network | zeros | learnt from | seed | dense | before | after | test images | mirrored | s | CPU s | GB |",
        "|" + " --- |" * 12,
    ]
    for record in records:
        on_dreams = record["method"] != "real"
        cells = [
            record["network"],
            record["pattern"],
            f"dreams, `{record['method']}`" if on_dreams else f"{record['num_real_train']:,} real images",
            record["seed"],
            *(f"{100 * record[key]:.2f}" for key in ("teacher", "before", "after")),
            f"{record['num_images']:,}",
            ("yes" if record["mirrored"] else "no") if on_dreams else "",
            f"{record['seconds']:.0f}",
            f"{record['cpu_seconds']:.0f}" if on_dreams else "",
            f"{record['peak_memory_bytes'] / 1e9:.2f}" if on_dreams else "",
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
