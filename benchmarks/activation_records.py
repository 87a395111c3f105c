"""Activation records on MNIST, by the command line: the comparison of Lopes, Fenu and Starner 2017; pruned LeNets.

    python benchmarks/activation_records.py DATA [--results DIR] [--seeds 0 1 2] [--profile balanced]

DATA holds mnist_test.npz, models.py and weights/lenet_mnist*.pth. Its even images make the records, its odd images
judge. Per kind of record and seed: a half-width LeNet with random weights learns from the dense LeNet's
reconstructions; then the two pruned LeNets, with the `joint` record and without one. Each cell is one `edgerecover run`
in a process of its own; what is finished is not run again. At the end: a table, and a picture of the reconstructions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from half_lenet import half_lenet
from PIL import Image

KINDS = ("top-layer", "all-layers", "all-layers-spectral", "layer-pairs-spectral", "joint")
PAPER = {"top-layer": 77.30, "all-layers": 85.61, "all-layers-spectral": 90.28, "layer-pairs-spectral": 92.47}
"""Lopes et al. 2017, table for LeNet-5-half on MNIST, of a teacher with 98.91 %."""
PRUNED = ("0.9", "0.95")
INPUT = ("--input-shape", "1,28,28", "--mean", "0.1307", "--std", "0.3081")


def main() -> None:
    options = _options()
    folder = options.results.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    _prepare(options.data, folder, options.seeds)
    records = {kind: _record(folder, kind) for kind in KINDS}
    cells = []
    for seed in options.seeds:
        if "half" in options.students:
            cells += [_run(folder, f"half-{seed}.pt", kind, seed, options.profile) for kind in (*KINDS, None)]
        for pruned in PRUNED if "pruned" in options.students else ():
            cells += [_run(folder, f"lenet-{pruned}.pt", kind, seed, options.profile) for kind in ("joint", None)]
    if "half" in options.students:
        _picture(folder, options.seeds[0])
    print(_table(cells, records))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("record-results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--students", choices=("half", "pruned"), nargs="+", default=["half", "pruned"])
    parser.add_argument("--profile", default="balanced")
    return parser.parse_args()


def _prepare(data: Path, folder: Path, seeds: list[int]) -> None:
    shutil.copy(data / "models.py", folder)
    shutil.copy(Path(__file__).with_name("half_lenet.py"), folder)
    shutil.copy(data / "weights" / "lenet_mnist.pth", folder / "dense.pt")
    for pruned in PRUNED:
        shutil.copy(data / "weights" / f"lenet_mnist_pruned_{pruned}.pth", folder / f"lenet-{pruned}.pt")
    with np.load(data / "mnist_test.npz") as arrays:
        for name, part in (("even", slice(0, None, 2)), ("odd", slice(1, None, 2))):
            np.savez(folder / f"{name}.npz", images=arrays["images"][part], labels=arrays["labels"][part])
    for seed in seeds:
        torch.manual_seed(seed)
        torch.save(half_lenet().state_dict(), folder / f"half-{seed}.pt")


def _record(folder: Path, kind: str) -> dict[str, Any]:
    return _cached(
        folder / f"{kind}.record.json",
        ["record", "dense.pt", "--data", "even.npz", "--kind", kind, "-o", f"{kind}.safetensors"],
        folder,
    )


def _run(folder: Path, student: str, kind: str | None, seed: int, profile: str) -> dict[str, Any]:
    name = f"{Path(student).stem}.{kind or 'none'}.{seed}"
    half = student.startswith("half")
    arguments = [
        "run", student, "--teacher", "dense.pt", "--target", "onnx-generic", "--profile", profile,
        "--seed", str(seed), "--eval-data", "odd.npz", "--out", f"{name}.bundle", "--work", f"{name}.work",
        *(("--teacher-arch", "models.py:lenet") if half else ()),
        *(("--record", f"{kind}.safetensors") if kind else ()),
    ]  # fmt: skip
    cell = _cached(
        folder / f"{name}.json", arguments, folder, "half_lenet.py:half_lenet" if half else "models.py:lenet"
    )
    shutil.rmtree(folder / f"{name}.work", ignore_errors=True)
    return {**cell, "student": "half-width" if half else f"pruned {student[6:-3]}", "kind": kind}


def _cached(result: Path, arguments: list[str], folder: Path, arch: str = "models.py:lenet") -> dict[str, Any]:
    """What `edgerecover ARGUMENTS --json` says, with its seconds and peak memory."""
    if result.exists():
        return json.loads(result.read_text())
    command = [sys.executable, "-m", "edgerecover", *arguments, "--arch", arch, *INPUT, "--json"]
    print(f"{result.stem} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate()
    if process.returncode not in (0, 1, 5):
        sys.exit(f"{' '.join(command)} exited {process.returncode}\n{errors}")
    found = {**json.loads(output), "wall_s": time.perf_counter() - started, "cores": os.cpu_count()}
    result.write_text(json.dumps(found))
    return found


def _picture(folder: Path, seed: int) -> None:
    """A row of ten per kind of record, one of each class, out of the bundles' own contact sheets."""
    rows = [
        _first_column(Image.open(folder / f"half-{seed}.{kind or 'none'}.{seed}.bundle" / "dreams.png"))
        for kind in (*KINDS, None)
    ]
    height = max(row.height for row in rows)
    sheet = Image.new("RGB", (max(row.width for row in rows), height * len(rows)), "white")
    for number, row in enumerate(rows):
        sheet.paste(row, (0, number * height))
    sheet.save(folder / "reconstructions.png", optimize=True)


def _first_column(sheet: Image.Image) -> Image.Image:
    """The contact sheet has a row per class; its first column becomes a row."""
    gap, tile = 2, (sheet.height - 2) // 10
    row = Image.new("RGB", (gap + 10 * tile, tile), "white")
    for number in range(10):
        row.paste(sheet.crop((gap, gap + number * tile, tile, (number + 1) * tile)), (gap + number * tile, gap))
    return row


def _table(cells: list[dict[str, Any]], records: dict[str, dict[str, Any]]) -> str:
    teacher = cells[0]["accuracy"]["teacher"]
    lines = [
        f"Teacher {_percent(teacher):.2f} % on {teacher['total']:,} images.",
        "",
        "| student | record | kB | published | before | after | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for student, kind in dict.fromkeys((cell["student"], cell["kind"]) for cell in cells):
        own = [cell for cell in cells if (cell["student"], cell["kind"]) == (student, kind)]
        size = f"{records[kind]['size_bytes'] / 1000:.0f}" if kind else "–"
        paper = f"{PAPER[kind]:.2f}" if student == "half-width" and kind in PAPER else "–"
        before, after = ([_percent(cell["accuracy"][name]) for cell in own] for name in ("pruned", "exported"))
        seconds = mean(cell["wall_s"] for cell in own)
        row = [student, kind or "none", size, paper, _spread(before), _spread(after), f"{seconds:.0f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _percent(proportion: dict[str, int]) -> float:
    return 100 * proportion["hits"] / proportion["total"]


def _spread(values: list[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
