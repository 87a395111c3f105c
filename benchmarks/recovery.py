r"""The benchmark: networks x patterns x methods x seeds, same masks, same images, judged on the exported ONNX file.

    python benchmarks/recovery.py DATA                                        # the table of README and docs
    python benchmarks/recovery.py DATA --networks resnet8 --patterns 90 2:4 --methods balanced ceiling --seeds 0 1

DATA is described in docs/explanation/benchmarks.md. Kill it at any time and run it again: finished students are kept
in --results, one JSON and one .npz of logits each, and made again only when their settings have changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from grid import METHODS, Cell, chosen_cells, pattern_flags
from networks import HERE, NETWORKS, prepare, prune
from table import markdown

from edgerecover.config import load_profile
from edgerecover.runtime.machine.host import this_host

SETTINGS_HELP = "for every profile, as synthesis.num_train=64; for trying the script out"


@dataclass(frozen=True)
class Options:
    """What holds for the whole run."""

    results: Path
    jobs: int
    device: str
    changes: dict[str, Any]

    @property
    def num_threads(self) -> int:
        """Of one process; OMP_NUM_THREADS, where it is set, is the user's word."""
        return int(os.environ.get("OMP_NUM_THREADS", max(1, this_host().num_cores // self.jobs)))


def main() -> None:
    asked = _parser().parse_args()
    options = Options(asked.results, asked.jobs, asked.device, dict(asked.set))
    cells = chosen_cells(asked.networks, asked.methods, asked.patterns, asked.seeds)
    failures = run_grid(cells, asked.data, options, teacher_steps=asked.teacher_steps)
    print(report(cells, options))
    if failures:
        raise SystemExit("\n".join(failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--patterns", nargs="+", help="75, layerwise75, 2:4, channel50 (percent of the MACs)")
    parser.add_argument("--seeds", nargs="+", type=int)
    add_common_flags(parser)
    return parser


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=1, help="networks and seeds side by side, cores shared out evenly")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--teacher-steps", type=int, default=6000, help="where DATA has no checkpoint")
    parser.add_argument("--set", nargs="+", type=settings_change, default=[], metavar="KEY=VALUE", help=SETTINGS_HELP)
    parser.add_argument("--results", type=Path, default=Path("benchmark-results"))


def settings_change(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


# --- running ------------------------------------------------------------------------------------------------


def run_grid(cells: list[Cell], data: Path, options: Options, *, teacher_steps: int) -> list[str]:
    """Run what is missing; what went wrong comes back as sentences, and does not stop the rest."""
    for pattern in dict.fromkeys(cell.pattern for cell in cells):
        pattern_flags(pattern)
    failures = []
    for network in dict.fromkeys(cell.network for cell in cells):
        folder = options.results / network
        prepare(network, data, folder, teacher_steps=teacher_steps, device=options.device)
        for pattern in dict.fromkeys(cell.pattern for cell in cells if cell.network == network):
            try:
                prune(folder, pattern)
            except subprocess.CalledProcessError as error:
                failures.append(f"{network} could not be pruned to {pattern}: exit code {error.returncode}")
                cells = [cell for cell in cells if (cell.network, cell.pattern) != (network, pattern)]
    # Methods of one network and seed share dreams, so they run one after the other.
    chains = [list(chain) for _, chain in groupby(cells, key=lambda cell: (cell.network, cell.seed))]
    with ThreadPoolExecutor(options.jobs) as pool:
        return failures + [
            line for lines in pool.map(lambda chain: _run_chain(chain, options), chains) for line in lines
        ]


def _run_chain(cells: list[Cell], options: Options) -> list[str]:
    failures = []
    by_method = {method: list(group) for method, group in groupby(cells, key=lambda cell: cell.method)}
    for method in sorted(by_method, key=_borrows_dreams):
        missing = [cell for cell in by_method[method] if read_cell(cell, options) is None]
        if not missing:
            continue
        network, seed = missing[0].network, missing[0].seed
        started = time.perf_counter()
        code = _run_process(missing, options)
        said = f"{network}, seed {seed}, {method}: {' '.join(cell.pattern for cell in missing)}"
        print(f"{said}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        if code:
            failures.append(f"{said}: exit code {code}")
    return failures


def _borrows_dreams(method: str) -> bool:
    """Methods that live on another's dreams run after it, so that memory and seconds are booked where they belong."""
    return METHODS[method].kind != "recover" or bool(METHODS[method].changes)


def _run_process(cells: list[Cell], options: Options) -> int:
    first = cells[0]
    images, recovery = settings_of(first.method, options)
    task = {
        "network": first.network,
        "folder": str(options.results / first.network),
        "method": first.method,
        "seed": first.seed,
        "patterns": [cell.pattern for cell in cells],
        "results": str(_folder(first, options)),
        "images": images,
        "recovery": recovery,
        "num_threads": options.num_threads,
        "device": options.device,
    }
    environment = os.environ | {"OMP_NUM_THREADS": str(options.num_threads)}
    command = [sys.executable, str(HERE / "worker.py"), json.dumps(task)]
    return subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode


def settings_of(method: str, options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Profile of the images and settings of the recovery, resolved, with the method's and --set's changes."""
    chosen = METHODS[method]
    images, recipe = (
        changed_profile(name, options.changes | chosen.changes) for name in (chosen.images, chosen.recovery)
    )
    return images, recipe["recovery"]


def changed_profile(profile: str, changes: dict[str, Any]) -> dict[str, Any]:
    settings = load_profile(profile).model_dump(mode="json")
    for key, value in changes.items():
        table, _, name = key.partition(".")
        settings[table][name] = value
    return settings


# --- results ------------------------------------------------------------------------------------------------


def _folder(cell: Cell, options: Options) -> Path:
    return options.results / cell.network / f"seed{cell.seed}" / cell.method


def read_cell(cell: Cell, options: Options) -> dict[str, Any] | None:
    """The finished student's record; None when there is none, or its settings are no longer those asked for."""
    record = _read(_folder(cell, options) / f"{cell.pattern.replace(':', '-')}.json")
    images, recovery = settings_of(cell.method, options)
    if record is None or (record["images"], record["recovery"]) != (images, recovery):
        return None
    return record


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def read_processes(cells: Iterable[Cell], options: Options) -> list[dict[str, Any]]:
    """What is known of the processes that made these cells: synthesis, peak memory, machine."""
    folders = dict.fromkeys(_folder(cell, options) for cell in cells)
    return [record for folder in folders if (record := _read(folder / "process.json"))]


def report(cells: list[Cell], options: Options) -> str:
    found = [record for cell in cells if (record := read_cell(cell, options))]
    return markdown(found, read_processes(cells, options)) if found else "nothing was measured"


if __name__ == "__main__":
    main()
