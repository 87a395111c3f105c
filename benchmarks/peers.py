r"""Peers in one run: whose images are made faster, and which student comes back better on them.

    python benchmarks/peers.py DATA                                        # ResNet-20 at 75 and 90 %
    python benchmarks/peers.py DATA --networks lite0 --patterns 50 --lite0-images IMAGES

Images: Sony's Model Compression Toolkit makes them from the batch norm statistics, as edgerecover does. Students: NNCF
re-estimates batch norm, where edgerecover repairs it. Every combination of both is judged on the same real images.
DATA is that of recovery.py, IMAGES that of imagenet.py. Whoever runs this installs the peers beside edgerecover:

    pip install model-compression-toolkit==2.6.1 nncf==3.4.0

Kill it at any time and run it again: image sets and students are kept in --results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imagenet
from networks import HERE, prepare, prune
from peers_cell import RECOVERIES, SOURCES, Task
from recovery import Options, add_common_flags, changed_profile

_DEFAULT_PATTERNS = {"resnet20": ["75", "90"], "lite0": ["50"]}


def main() -> None:
    asked = _parser().parse_args()
    options = Options(asked.results, 1, asked.device, dict(asked.set))
    rows, failures = [], []
    for network in asked.networks:
        folder = asked.results / network
        if network == "lite0":
            imagenet.prepare(asked.lite0_images, folder)
        else:
            prepare(network, asked.data, folder, teacher_steps=0, device=options.device)
        patterns = asked.patterns or _DEFAULT_PATTERNS[network]
        for pattern in patterns:
            prune(folder, pattern)
        for seed in asked.seeds:
            for source in asked.sources:
                out = folder / f"{source}-{asked.num_images}-seed{seed}.json"
                task = Task(
                    network=network,
                    folder=str(folder),
                    source=source,
                    num_images=asked.num_images,
                    seed=seed,
                    patterns=tuple(patterns),
                    recoveries=tuple(asked.recoveries),
                    profile=changed_profile("fast", options.changes),
                    out=str(out),
                    num_threads=options.num_threads,
                )
                failures += _run(task)
                if out.is_file():
                    rows.append(json.loads(out.read_text()))
    print(table(rows) if rows else "nothing was measured")
    if failures:
        raise SystemExit("\n".join(failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=_DEFAULT_PATTERNS, default=["resnet20"])
    parser.add_argument("--lite0-images", type=Path)
    parser.add_argument("--patterns", nargs="+")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--recoveries", nargs="+", choices=RECOVERIES, default=list(RECOVERIES))
    parser.add_argument("--num-images", type=int, default=256, help="to learn from; a quarter as many to choose by")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    add_common_flags(parser)
    parser.set_defaults(results=Path("peers-results"))
    return parser


def _run(task: Task) -> list[str]:
    """A process for each set of images, so that its peak memory is that of whoever made them."""
    path = Path(task.out)
    wanted = json.loads(json.dumps(asdict(task)))
    if path.is_file() and json.loads(path.read_text())["task"] == wanted:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    print(path, file=sys.stderr, flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(task.num_threads)}
    command = [sys.executable, str(HERE / "peers_cell.py"), json.dumps(asdict(task))]
    code = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
    return [f"{path.name}: exit code {code}"] if code else []


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one row for each set of images, the students' real accuracy in the columns."""
    students = list(dict.fromkeys((s["pattern"], s["recovery"]) for row in rows for s in row["students"]))
    names = [f"{pattern} %, {recovery}" for pattern, recovery in students]
    header = ["network", "images", "seed", "number", "images per CPU s", "GB", *names]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in rows:
        found = {(s["pattern"], s["recovery"]): _percent(s["accuracy"]) for s in row["students"]}
        task = row["task"]
        values = [
            task["network"],
            SOURCES[task["source"]],
            str(task["seed"]),
            str(row["num_made"]),
            f"{row['num_made'] / row['made_cpu_s']:.2f}",
            f"{row['made_peak_bytes'] / 1e9:.2f}",
            *(found.get(student, "") for student in students),
        ]
        lines.append(f"| {' | '.join(values)} |")
    notes = {f"{row['task']['network']}: dense {_percent(row['teacher'])} %" for row in rows}
    versions = sorted({f"{name} {version}" for row in rows for name, version in row["peers"].items()})
    return "\n".join([*lines, "", f"{'; '.join(sorted(notes))}. {', '.join(versions)}."])


def _percent(proportion: dict[str, int]) -> str:
    return f"{100 * proportion['hits'] / proportion['total']:.1f}"


if __name__ == "__main__":
    main()
