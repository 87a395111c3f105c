r"""Recovery of a pruned CIFAR-10 network on the command line's own path: dense, pruned, each profile, seeds apart.

    python benchmarks/recovery.py DATA --network resnet20 --sparsity 0.75 \
        --profiles balanced paper-2511.20702 --seeds 0 1 2

DATA is a folder with `models.py`, `weights/` and `cifar10_png_test_dev500.npz` (see docs/explanation/benchmarks.md).
Every run is `edgerecover run --json` in a process of its own on the same pruned file, so masks and images are the same.
Finished runs are kept in --results and not made again. The images of DATA are judged on, never learnt from.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

NETWORKS = {
    "resnet20": ("akamaster_resnet20-12fca82f.th", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], [0.0, 1.0]),
    "resnet56": ("akamaster_resnet56-4bfd9763.th", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], [0.0, 1.0]),
    "resnet8": ("mlperftiny_resnet8_state_dict.pt", [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 255.0]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument("--sparsity", type=float, default=0.75)
    parser.add_argument("--profiles", nargs="+", default=["balanced", "paper-2511.20702"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmark-results"))
    asked = parser.parse_args()
    folder = prepare(asked.data, asked.network, asked.sparsity, asked.results)
    runs = {profile: [run(folder, profile, seed, asked.data) for seed in asked.seeds] for profile in asked.profiles}
    print(table(asked.network, asked.sparsity, runs))


def prepare(data: Path, network: str, sparsity: float, results: Path) -> Path:
    """A user's folder: dense.pt, model.safetensors pruned from it, models.py and model.toml."""
    folder = results / f"{network}-{sparsity:g}"
    folder.mkdir(parents=True, exist_ok=True)
    weights, mean_C, std_C, pixel_range = NETWORKS[network]
    shutil.copyfile(data / "weights" / weights, folder / "dense.pt")
    shutil.copyfile(data / "models.py", folder / "models.py")
    (folder / "model.toml").write_text(
        f'architecture = "models.py:{network}"\nteacher = "dense.pt"\n\n[input]\nshape = [3, 32, 32]\n'
        f"mean = {mean_C}\nstd = {std_C}\nrange = {pixel_range}\n"
    )
    model = folder / "model.safetensors"
    if not model.exists():
        edgerecover("prune", folder / "dense.pt", "--sparsity", sparsity, "--out", model, "--trust-code")
    return folder


def run(folder: Path, profile: str, seed: int, data: Path) -> dict:
    kept = folder / f"{profile}-seed{seed}.json"
    if not kept.exists():
        started = time.perf_counter()
        report = json.loads(
            edgerecover(
                "run", folder / "model.safetensors", "--target", "jetson-orin", "--profile", profile, "--seed", seed,
                "--eval-data", data / "cifar10_png_test_dev500.npz", "--out", folder / f"{profile}-seed{seed}.bundle",
                "--trust-code", "--json",
            )
        )  # fmt: skip
        report["wall_s"] = time.perf_counter() - started
        report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        kept.write_text(json.dumps(report))
    return json.loads(kept.read_text())


def edgerecover(*arguments: object) -> str:
    command = [sys.executable, "-m", "edgerecover", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1, 5):  # a gate that failed or is unsure is a result too
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def table(network: str, sparsity: float, runs: dict[str, list[dict]]) -> str:
    first = next(iter(runs.values()))[0]["accuracy"]
    n = first["num_images"]
    lines = [
        f"{network}, {sparsity:.0%} sparse (global magnitude), {n} real images, seeds apart",
        "",
        "| model | accuracy, mean ± sd (each seed) | agreement on held-back dreams "
        "| seconds: synthesize + recover + rest (quickest seed) | peak memory |",
        "|---|---|---|---|---|",
        *(f"| {name} | {100 * first[name]['hits'] / n:.1f} | | | |" for name in ("teacher", "pruned")),
    ]
    for profile, reports in runs.items():
        accuracies = [100 * r["accuracy"]["exported"]["hits"] / n for r in reports]
        spread = f" ± {stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
        agreement = mean(r["fidelity"]["exported"]["hits"] / r["fidelity"]["exported"]["total"] for r in reports)
        quickest = min(reports, key=lambda r: r["wall_s"])  # neighbours on the machine only ever add seconds
        seconds = {s["stage"]: s["seconds"] for s in quickest["stages"] if s["stage"] in ("synthesize", "recover")}
        rest = quickest["wall_s"] - sum(seconds.values())
        memory = max(r["peak_memory_bytes"] for r in reports)
        lines.append(
            f"| {profile} | {mean(accuracies):.1f}{spread} ({', '.join(f'{a:.1f}' for a in accuracies)}) "
            f"| {100 * agreement:.1f} % | {seconds['synthesize']:.0f} + {seconds['recover']:.0f} + {rest:.0f} "
            f"| {memory / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
