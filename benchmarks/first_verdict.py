"""How long it takes from the first command to the first verdict: `python benchmarks/first_verdict.py [--profile fast]`.

A mobilenet_v2 of torchvision with ten classes, for images of 64 × 64, without trained weights: the weights are random
and the statistics of batch norm those of noise that resembles photographs, which takes as long as trained ones do.
The commands are a new user's: `inspect`, `prune` (to the same share in every layer: random weights of the classifier
are so small that all would go), `run`. Each is timed, on the wall and in processor seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE, MEAN, STD = (3, 64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUT = ("--input-shape", "3,64,64", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
CODES_OF_A_VERDICT = (0, 1, 5)
"""Passed, failed, inconclusive."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--target", default="onnx-generic")
    parser.add_argument("--sparsity", default="0.5")
    asked = parser.parse_args()
    commands = {
        "inspect": ("inspect", "dense.pt"),
        "prune": ("prune", "dense.pt", "-o", "pruned.pt", "--sparsity", asked.sparsity, "--pattern", "layerwise"),
        "run": ("run", "pruned.pt", "--teacher", "dense.pt", "-t", asked.target, "-p", asked.profile, *INPUT),
    }
    with tempfile.TemporaryDirectory(prefix="first-verdict-") as folder:
        write_network(Path(folder) / "dense.pt")
        print("| command | wall | processor |\n|---|---|---|")
        total_s = total_cpu_s = 0.0
        for name, arguments in commands.items():
            wall_s, cpu_s = timed(arguments, Path(folder))
            total_s, total_cpu_s = total_s + wall_s, total_cpu_s + cpu_s
            print(f"| {name} | {wall_s:.0f} s | {cpu_s:.0f} s |", flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(
        f"| **first command to first verdict** | **{total_s:.0f} s** | **{total_cpu_s:.0f} s** |\n\n{threads} threads"
    )


def write_network(path: Path) -> None:
    """Weights as torchvision makes them; batch norm has seen one batch."""
    import torch
    from torchvision.models import mobilenet_v2

    from edgerecover.artifacts import InputSpec
    from edgerecover.models.network.input_scale import photograph_like

    torch.manual_seed(0)
    network = mobilenet_v2(num_classes=10).train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(photograph_like(InputSpec(SHAPE, MEAN, STD), 32))
    torch.save(network.state_dict(), path)


def timed(arguments: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """Seconds on the wall and of all processors that one command takes.

    Raises:
        SystemExit: it ended without a verdict.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edgerecover", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in CODES_OF_A_VERDICT:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
