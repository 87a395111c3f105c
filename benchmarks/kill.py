"""Kill a run at random moments, start it again until it is done, and compare what it ends with.

    python benchmarks/kill.py [--kills 50] [--seed 0] [--out kill.json]

A short run of the embedded example (dreams, statistics, least squares, distillation with a refresh, export, race,
bundle) is first made undisturbed. Then, in a folder of its own each time, it is killed with SIGKILL at a moment drawn
uniformly from its length, and started again; a table says where each kill fell and whether the digests of dreams,
recovered weights, exported file and manifest are those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from edgerecover.demo import ARCHITECTURE, demo_files

PROFILE = """
extends = "demo"
name = "short"
description = "A short run with every kind of step"
[synthesis]
num_train = 192
num_calibration = 48
num_held_back = 48
batch_size = 24
num_steps = 40
[recovery]
num_steps = {num_steps}
batch_size = 32
[recovery.refresh]
every_steps = 40
num_images = 48
num_steps = 10
lr = 0.05
weight = 10.0
[latency]
num_warmup = 1
min_queries = 5
min_duration_s = 0.0
"""
_FINISHED = 0, 1, 5
"""Exit codes of runs that came to their end, whatever their gates say."""


@dataclass(frozen=True)
class Kill:
    """One kill, and what came of it."""

    after_s: float
    fell_in: str
    """What the run said last before it was killed."""
    kept: int
    """Files in the run folder at that moment."""
    leftovers: tuple[str, ...]
    """Half-written files that are still there at the end."""
    same: dict[str, bool]
    """By what is compared."""


def main() -> None:
    """Print a row per kill, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240, help="of distillation")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    kills = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = prepared(Path(scratch) / "whole", arguments.steps)
        started = time.perf_counter()
        finish(whole)
        length_s = time.perf_counter() - started
        expected = digests(whole)
        print(f"undisturbed: {length_s:.1f} s, {len(expected)} digests", flush=True)
        draw = random.Random(arguments.seed)
        for number in range(arguments.kills):
            folder = prepared(Path(scratch) / f"killed-{number}", arguments.steps)
            kills.append(killed(folder, draw.uniform(0.0, length_s), expected))
            print(row(number, kills[-1]), flush=True)
            shutil.rmtree(folder)
    print_counts(kills)
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(kill) for kill in kills], indent=1) + "\n")
    sys.exit(0 if all(all(kill.same.values()) and not kill.leftovers for kill in kills) else 1)


def prepared(folder: Path, num_steps: int) -> Path:
    """A user's folder: both networks and the profile."""
    folder.mkdir(parents=True)
    files = demo_files()
    for source, name in ((files.pruned, "model.safetensors"), (files.dense, "dense.safetensors")):
        shutil.copyfile(source, folder / name)
    shutil.copyfile(files.model_file, folder / "model.toml")
    (folder / "short.toml").write_text(PROFILE.format(num_steps=num_steps))
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The same command every time."""
    command = [
        sys.executable, "-m", "edgerecover", "run", "--target", "onnx-generic", "model.safetensors",
        "--teacher", "dense.safetensors", "--arch", ARCHITECTURE, "--profile", "short.toml", "--precision", "fp32",
        "--device", "cpu", "--checkpoint-every", "0.05",
    ]  # fmt: skip
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def finish(folder: Path) -> None:
    """Start it again until it is done."""
    code = start(folder).wait()
    if code not in _FINISHED:
        raise RuntimeError(f"the run ended with {code}:\n{(folder / 'said.txt').read_text()}")


def killed(folder: Path, after_s: float, expected: dict[str, str]) -> Kill:
    """Kill it once and start it again."""
    process = start(folder)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = [path for path in (folder / ".edgerecover").rglob("*") if path.is_file()]
    fell_in = where(folder)
    finish(folder)
    found = digests(folder)
    named = sorted({name.partition(" ")[0] for name in expected})
    same = {
        name: {k: v for k, v in found.items() if k.startswith(name)}
        == {k: v for k, v in expected.items() if k.startswith(name)}
        for name in named
    }
    return Kill(after_s, fell_in, len(kept), leftovers(folder), same)


def where(folder: Path) -> str:
    """The furthest step whose trace is on disk: what a run prints is for people, and changes."""
    work = folder / ".edgerecover"
    traces = {
        "bundle": (folder, "*.bundle/manifest.json"),
        "export or race": (work, "recovered-*/recovery.json"),
        "distillation": (work, "recovered-*/steps/distillation.*"),
        "after blocks": (work, "recovered-*/steps/block-wise*"),
        "blocks": (work, "recovered-*/steps/reconstructed-blocks.*"),
        "after least squares": (work, "recovered-*/steps/layer-wise*"),
        "least squares": (work, "recovered-*/steps/fitted-layers.*"),
        "statistics": (work, "recovered-*/steps/statistics-*"),
        "dreams": (work, "dreams-*/*.json"),
    }
    return next((name for name, (root, trace) in traces.items() if any(root.glob(trace))), "start")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all that a run is to end with."""
    work, (bundle,) = folder / ".edgerecover", folder.glob("*.bundle")
    named = {
        **{f"dreams {path.name}": path for path in work.glob("dreams-*/*.npy")},
        "recovered": next(work.glob("recovered-*/recovered.safetensors")),
        "onnx": bundle / "model.onnx",
        "manifest": bundle / "manifest.json",
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in named.items()}


def leftovers(folder: Path) -> tuple[str, ...]:
    """What only a killed process leaves."""
    found = [*folder.rglob(".*.tmp"), *folder.glob(".*.partial"), *folder.glob(".*.old"), *folder.rglob("export-*"),
             *folder.rglob("*.checkpoint"), *folder.rglob("steps")]  # fmt: skip
    return tuple(str(path.relative_to(folder)) for path in found)


def row(number: int, kill: Kill) -> str:
    """One line of the table."""
    same = " ".join(f"{name} {'same' if equal else 'DIFFERS'}" for name, equal in kill.same.items())
    left = f"LEFT {', '.join(kill.leftovers)}" if kill.leftovers else "nothing left behind"
    return f"{number + 1:3} killed after {kill.after_s:5.1f} s, {kill.fell_in:20} {kill.kept:4} files: {same}; {left}"


def print_counts(kills: list[Kill]) -> None:
    """How many kills fell where, and how many ended as undisturbed."""
    fell, same = Counter(kill.fell_in for kill in kills), Counter(k.fell_in for k in kills if all(k.same.values()))
    print("\n| last trace before the kill | kills | ended with the same digests |\n|---|---|---|")
    for name, count in fell.most_common():
        print(f"| {name} | {count} | {same[name]} |")
    print(f"| all | {len(kills)} | {sum(same.values())} |")


if __name__ == "__main__":
    main()
