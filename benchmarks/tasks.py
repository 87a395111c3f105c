r"""Tasks beyond one of K classes: how much of what pruning took away is won back without data, and with it.

    python benchmarks/tasks.py DATA                                  # the table of docs/explanation/benchmarks.md
    python benchmarks/tasks.py DATA --tasks binary --patterns 75 --seeds 0 --profile balanced

DATA is described in docs/explanation/benchmarks.md. Each task's network is trained here and pruned by `edgerecover
prune`; `edgerecover run` recovers it, and its exported file is judged on images that nothing has learnt from. The
ceiling is the same recovery on as many real training images. Kill it at any time and run it again: results are kept in
--results, one JSON each; after a change of the code, delete that folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from networks import prune, pruned_file
from task_data import Examples, read_npz
from task_training import TASKS, judge, prepare, run_module
from task_truth import TRUTHS, won_back

from edgerecover.compute import choose_compute
from edgerecover.config import Profile, load_profile
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import Models, open_models
from edgerecover.recovery.execution import Execution
from edgerecover.recovery.ladder import recover
from edgerecover.recovery.pair import Pair
from edgerecover.runtime.machine.host import this_host
from edgerecover.synthesis.image_set import ImageSet, PixelScale, SyntheticSets, write_shard
from edgerecover.synthesis.settle import settle
from edgerecover.synthesis.source import Source

PATTERNS = ("75", "channel50")
METHODS = ("dreams", "real")
_SHARD = 500
_VERDICT_CODES = (0, 1, 5)
"""Of a run that ended with a report, whatever its gates say."""


@dataclass(frozen=True)
class Cell:
    """One recovery: from `dreams`, by the whole command, or from `real` images."""

    task: str
    pattern: str
    profile: str
    method: str
    seed: int

    @property
    def file_name(self) -> str:
        return f"{self.pattern}-{Path(self.profile).stem}-{self.method}-{self.seed}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--patterns", nargs="+", default=PATTERNS, help="75, 2:4, channel50 (percent of the MACs)")
    parser.add_argument("--profile", default="fast", help="a name, or a .toml file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no-ceiling", action="store_true", help="nothing is learnt from real images")
    parser.add_argument("--results", type=Path, default=Path("task-results"))
    asked = parser.parse_args()
    methods = METHODS[:1] if asked.no_ceiling else METHODS
    records, failures = [], []
    for name in asked.tasks:
        folder = asked.results / name
        prepare(name, asked.data, folder)
        for pattern in asked.patterns:
            prune(folder, pattern)
        for seed, pattern, method in product(asked.seeds, asked.patterns, methods):
            try:
                records.append(measured(Cell(name, pattern, asked.profile, method, seed), folder))
            except RunError as error:
                failures.append(str(error))
    print(table(records))
    if failures:
        raise SystemExit("\n".join(failures))


class RunError(Exception):
    """A run that ended without a report."""


def measured(cell: Cell, folder: Path) -> dict[str, Any]:
    """The cell's record, made when it is not there yet."""
    before = _kept(folder / f"{cell.pattern}.json", lambda: as_it_is(cell, folder))
    own = _kept(folder / cell.file_name, lambda: _MAKE[cell.method](cell, folder))
    return {**vars(cell), **before, **own}


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        record = make()
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        said = {key: record[key] for key in ("dense", "pruned", "recovered", "cpu_seconds") if key in record}
        print(f"{path.parent.name} {path.stem}: {said}", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# --- measuring ----------------------------------------------------------------------------------------------


def as_it_is(cell: Cell, folder: Path) -> dict[str, Any]:
    """Truth of the dense and of the pruned network."""
    models, test = _models(cell, folder), _examples(folder, "test")
    return {
        "dense": judge(cell.task, lambda inputs: run_module(models.teacher, inputs), test),
        "pruned": judge(cell.task, lambda inputs: run_module(models.student, inputs), test),
        "num_test": len(test),
    }


def on_dreams(cell: Cell, folder: Path) -> dict[str, Any]:
    """`edgerecover run` as a user types it, from scratch, in a process of its own; its file is judged."""
    scratch = folder / f"{Path(cell.file_name).stem}-run"
    shutil.rmtree(scratch, ignore_errors=True)
    command = [
        sys.executable, "-m", "edgerecover", "run", str(pruned_file(folder, cell.pattern)), "--target", "onnx-generic",
        "--profile", cell.profile, "--seed", str(cell.seed), "--trust-code",
        "--out", str(scratch / "bundle"), "--work", str(scratch / "work"), "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in _VERDICT_CODES:
        raise RunError(f"{cell.task} {Path(cell.file_name).stem}: exit code {process.returncode}, no report")
    report = json.loads(printed)
    recovered = judge(cell.task, _opened(scratch / "bundle" / "model.onnx"), _examples(folder, "test"))
    shutil.rmtree(scratch)
    return {
        "recovered": recovered,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        **{key: report[key] for key in ("fidelity", "rungs", "stages", "gates", "warnings")},
        **_machine(),
    }


def _opened(path: Path) -> Any:
    """The exported file as a function of inputs (N, C, H, W); N is 1 where the file says so."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    batch = given.shape[0] if isinstance(given.shape[0], int) else 100

    def run(inputs_NCHW: np.ndarray) -> np.ndarray:
        parts = (inputs_NCHW[start : start + batch] for start in range(0, len(inputs_NCHW), batch))
        return np.concatenate([session.run(None, {given.name: part})[0] for part in parts])

    return run


def on_real_images(cell: Cell, folder: Path) -> dict[str, Any]:
    """The profile's recovery with as many real training images in the place of dreams."""
    models, compute, profile = _models(cell, folder), choose_compute("cpu"), load_profile(cell.profile)
    recipe = settle(profile, Source(models.teacher, models.input, models.output, compute)).profile
    real = folder / "real"
    shutil.rmtree(real, ignore_errors=True)
    real.mkdir()
    sets = _real_sets(_examples(folder, "train"), recipe, PixelScale(*models.input.bounds()), real)
    started = time.process_time()
    recovered = recover(Pair.of(models), sets, recipe.recovery, Execution(compute), seed=cell.seed)
    seconds = time.process_time() - started
    shutil.rmtree(real)
    student = recovered.student
    return {
        "recovered": judge(cell.task, lambda inputs: run_module(student, inputs), _examples(folder, "test")),
        "cpu_seconds": seconds,
        "num_real_train": len(sets.train),
        "rungs": [{"name": rung.name, "chosen": rung.chosen} for rung in recovered.rungs],
        **_machine(),
    }


def _real_sets(examples: Examples, recipe: Profile, scale: PixelScale, folder: Path) -> SyntheticSets:
    pixels_NCHW = np.ascontiguousarray(examples.images.transpose(0, 3, 1, 2))
    num_train, num_calibration = recipe.synthesis.num_train, recipe.synthesis.num_calibration
    train = _on_disk(folder, "train", pixels_NCHW[:num_train], scale)
    calibration = _on_disk(folder, "calibration", pixels_NCHW[num_train:][:num_calibration], scale)
    return SyntheticSets(train, calibration, calibration)


def _on_disk(folder: Path, name: str, pixels_NCHW: np.ndarray, scale: PixelScale) -> ImageSet:
    starts = range(0, len(pixels_NCHW), _SHARD)
    shards = (
        write_shard(folder, f"{name}-{start:05d}", pixels_NCHW[start : start + _SHARD], (), 0, 0.0) for start in starts
    )
    return ImageSet(folder, scale, tuple(shards))


def _models(cell: Cell, folder: Path) -> Models:
    return open_models(pruned_file(folder, cell.pattern), ModelFlags(trust_code=True), will_prune=False)


def _examples(folder: Path, split: str) -> Examples:
    return Examples(*read_npz(folder / f"{split}.npz"))


def _machine() -> dict[str, Any]:
    threads = int(os.environ.get("OMP_NUM_THREADS", this_host().num_cores))
    return {"num_threads": threads, "cpu": this_host().cpu, "torch": torch.__version__}


_MAKE = dict(zip(METHODS, (on_dreams, on_real_images), strict=True))


# --- the table ----------------------------------------------------------------------------------------------


def table(records: Iterable[dict[str, Any]]) -> str:
    """Markdown: a row per task, pattern and measure, in %; mean ± standard deviation over seeds."""
    lines = [
        "| task | truth | pruned to | dense | pruned | without data | on real images | won back without data "
        "| on real images | CPU s without data |",
        "|" + " --- |" * 10,
    ]
    of_row = lambda record: (list(TASKS).index(record["task"]), record["pattern"])  # noqa: E731
    for _, group in groupby(sorted(records, key=of_row), key=of_row):
        cells = list(group)
        lines += [_row(cells, truth.name) for truth in TRUTHS[cells[0]["task"]]]
    return "\n".join(lines)


def _row(cells: list[dict[str, Any]], truth: str) -> str:
    first, by_method = cells[0], {method: [c for c in cells if c["method"] == method] for method in METHODS}
    recovered = [_spread([cell["recovered"][truth] for cell in by_method[method]]) for method in METHODS]
    shares = [_spread([_share(cell, truth) for cell in by_method[method]]) for method in METHODS]
    seconds = [cell["cpu_seconds"] for cell in by_method["dreams"]]
    row = [
        first["task"], truth, first["pattern"], _spread([first["dense"][truth]]), _spread([first["pruned"][truth]]),
        *recovered, *shares, f"{mean(seconds):.0f}" if seconds else "",
    ]  # fmt: skip
    return f"| {' | '.join(row)} |"


def _share(cell: dict[str, Any], truth: str) -> float | None:
    return won_back(cell["dense"][truth], cell["pruned"][truth], cell["recovered"][truth])


def _spread(shares: list[float | None]) -> str:
    known = [100 * share for share in shares if share is not None]
    if not known:
        return ""
    return f"{mean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


if __name__ == "__main__":
    main()
