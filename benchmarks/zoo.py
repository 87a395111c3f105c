"""Every classifier of timm and torchvision, from two files to a judged ONNX file, each in a process of its own.

    python benchmarks/zoo.py --sample 60 --max-parameters 30 --out zoo.jsonl   # one of each family, smallest first
    python benchmarks/zoo.py --out zoo.jsonl                                   # all that is not in zoo.jsonl yet
    python benchmarks/zoo.py --out zoo.jsonl --again failed,wrong              # what went wrong, once more
    python benchmarks/zoo.py --out zoo.jsonl --table                           # docs/explanation/benchmarks.md

Weights are random, statistics those of noise, half of each matrix and kernel is zero: what is tested is that every
operator, shape and layer gets through, at the smallest input that the network takes. A few dreams, each rung of the
recovery, export, ONNX Runtime. One row of JSON for each network; kill it at any time and run the same line again.

Linux only: each network's process is forked from one that has imported everything and exported a toy, and computes on
one thread.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads would not live through a fork
sys.path.insert(0, str(Path(__file__).parent))

import psutil
import torch
from zoo_network import FAILED, OUTCOMES, OVER, THROUGH, Row, alone, run_network

_POLL_S = 0.2
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Candidate:
    """A network that could be tried."""

    name: str
    family: str
    """The module of the library that defines it."""
    num_parameters: int
    """As the library has it; 0: that could not be told without building it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what is asked, or print the table. Exit code 1 where a network failed."""
    options = _options(arguments)
    if options.table:
        print(table(read_rows(options.out)))
        return 0
    rows = {row.name: row for row in read_rows(options.out)}
    skipped = {name for name, row in rows.items() if row.outcome not in options.again}
    chosen = choose(
        candidates(options.out.with_suffix(".sizes.json"), options.patterns),
        max_parameters=options.max_parameters * 1e6,
        num_sample=options.sample,
        seed=options.seed,
    )
    wanted = [one for one in chosen if one.name not in skipped]
    if options.again:
        wanted = [one for one in wanted if one.name in rows]
    print(f"{len(wanted)} networks of {len(chosen)} to try", flush=True)
    bounds = Bounds(options.max_seconds, options.max_memory_gb * 1e9)
    warm_up()
    with options.out.open("a") as log:
        for row in try_all(wanted, bounds, options.jobs):
            log.write(json.dumps(asdict(row)) + "\n")
            log.flush()
            print(f"{row.outcome:8} {row.name} {row.seconds:.1f} s {row.peak_mb:.0f} MB {row.reason[:200]}", flush=True)
            rows[row.name] = row
    return 1 if any(row.outcome == FAILED for row in rows.values()) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--names", "--filter", dest="patterns", nargs="*", default=["*"], metavar="GLOB",
                        help="timm:NAME or torchvision:NAME, with * and ?")  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="so many, one of each family before a second of any")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--max-parameters", type=float, default=float("inf"), metavar="M", help="millions")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="for one network")
    parser.add_argument("--max-memory-gb", type=float, default=16.0, help="for one network")
    parser.add_argument("--jobs", type=int, default=1, help="networks at the same time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--again", type=lambda text: text.split(","), default=[], metavar="OUTCOME,…",
                        help=f"try those again that ended so: {', '.join(OUTCOMES)}")  # fmt: skip
    parser.add_argument("--table", action="store_true", help="only summarise --out")
    return parser.parse_args(arguments)


# --- which networks -------------------------------------------------------------------------------------------


def candidates(sizes: Path, patterns: Iterable[str]) -> list[Candidate]:
    """All classifiers of both libraries that a pattern matches, with their sizes, which are kept in a file."""
    known: dict[str, int] = json.loads(sizes.read_text()) if sizes.exists() else {}
    families = {name: family for name, family in named() if any(fnmatch.fnmatch(name, glob) for glob in patterns)}
    missing = [name for name in families if name not in known]
    if missing:
        print(f"counting the parameters of {len(missing)} networks", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            counted = Path(folder) / "sizes.json"
            process = _FORK.Process(target=_count_all, args=(missing, counted))
            process.start()
            process.join()
            known |= json.loads(counted.read_text())
        sizes.write_text(json.dumps(known))
    return [Candidate(name, family, known[name]) for name, family in families.items()]


def named() -> Iterator[tuple[str, str]]:
    """timm:NAME or torchvision:NAME, and the module that defines it."""
    import timm
    from torchvision import models

    for name in timm.list_models():
        yield f"timm:{name}", timm.model_entrypoint(name).__module__.rpartition(".")[2]
    for name in models.list_models(module=models):
        yield f"torchvision:{name}", f"torchvision {models.get_model_builder(name).__module__.rpartition('.')[2]}"


def _count_all(names: Sequence[str], out: Path) -> None:
    out.write_text(json.dumps({name: _num_parameters(name) for name in names}))


def _num_parameters(name: str) -> int:
    """On the meta device, where weights take no memory; 0 where the network cannot be built there."""
    import timm
    from torchvision import models

    library, _, bare = name.partition(":")
    try:
        with torch.device("meta"):
            network = timm.create_model(bare) if library == "timm" else models.get_model(bare, weights=None)
    except Exception:  # some compute with their weights while they are built; their size is told by trying them
        return 0
    return sum(parameter.numel() for parameter in network.parameters())


def choose(
    all_of_them: Iterable[Candidate], *, max_parameters: float, num_sample: int | None, seed: int
) -> list[Candidate]:
    """The smallest first; a sample takes one of each family, then a second of each, and so on."""
    by_family: dict[str, list[Candidate]] = defaultdict(list)
    for one in all_of_them:
        if one.num_parameters <= max_parameters:
            by_family[one.family].append(one)
    chosen = [one for family in by_family.values() for one in family]
    if num_sample is not None:
        shuffled = random.Random(seed)
        orders = [shuffled.sample(members, len(members)) for _, members in sorted(by_family.items())]
        shuffled.shuffle(orders)
        rounds = (
            order[turn] for turn in range(max(map(len, orders), default=0)) for order in orders if turn < len(order)
        )
        chosen = [one for _, one in zip(range(num_sample), rounds, strict=False)]
    return sorted(chosen, key=lambda one: (one.num_parameters, one.name))


# --- a process each -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """What one network may take."""

    seconds: float
    memory_bytes: float
    """Of its process and those it starts, resident."""


def warm_up() -> None:
    """Import and prepare all that every network needs: an export of a toy loads most of PyTorch."""
    from torch import nn

    from edgerecover.artifacts import InputSpec
    from edgerecover.export.onnx import export

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
        export(toy, InputSpec((3, 4, 4), (0.5,) * 3, (0.5,) * 3), Path(folder) / "toy.onnx", opset=18)


def try_all(
    wanted: Sequence[Candidate], bounds: Bounds, jobs: int, work: Callable[[str, str, Path], Row] = run_network
) -> Iterator[Row]:
    """One row for each, in the order in which they end."""
    waiting, running = list(reversed(wanted)), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Attempt(waiting.pop(), work))
            time.sleep(_POLL_S)
            for attempt in list(running):
                if (row := attempt.look(bounds)) is not None:
                    running.remove(attempt)
                    yield row
    finally:
        for attempt in running:
            attempt.end()


class _Attempt:
    """A network's process, its folder and its peak."""

    def __init__(self, candidate: Candidate, work: Callable[[str, str, Path], Row]) -> None:
        self._candidate = candidate
        self._folder = Path(tempfile.mkdtemp(prefix="zoo-"))
        self._peak_bytes = 0.0
        self._started_s = time.monotonic()
        self._process = _FORK.Process(target=self._run, args=(work,))
        self._process.start()

    def _run(self, work: Callable[[str, str, Path], Row]) -> None:
        def write() -> None:
            inner = self._folder / "network"
            inner.mkdir()
            row = work(self._candidate.name, self._candidate.family, inner)
            (self._folder / "row.json").write_text(json.dumps(asdict(row)))

        os.setsid()  # a group of its own, so that what it starts can be ended with it
        alone(write, self._folder / "log.txt")

    def look(self, bounds: Bounds) -> Row | None:
        """The row once it has ended, or was ended for taking too much."""
        seconds = time.monotonic() - self._started_s
        self._peak_bytes = max(self._peak_bytes, _resident_bytes(self._process.pid))
        if not self._process.is_alive():
            row = self._row_of_ended(seconds)
        elif seconds > bounds.seconds:
            row = self._row(OVER, f"more than {bounds.seconds:.0f} s", seconds)
        elif self._peak_bytes > bounds.memory_bytes:
            row = self._row(OVER, f"more than {bounds.memory_bytes / 1e9:.0f} GB of memory", seconds)
        else:
            return None
        self.end()
        return row

    def _row_of_ended(self, seconds: float) -> Row:
        written = self._folder / "row.json"
        if written.exists():
            return Row(**json.loads(written.read_text()))
        code = self._process.exitcode or 0
        lines = (self._folder / "log.txt").read_text(errors="replace").strip().splitlines()
        died = f"signal {-code}" if code < 0 else f"exit code {code}"
        reason = f"the process died with {died}: {lines[-1][:200] if lines else 'nothing was printed'}"
        return self._row(FAILED, reason, seconds, exit_code=code, trace="\n".join(lines[-14:]))

    def _row(self, outcome: str, reason: str, seconds: float, **more: Any) -> Row:
        one = self._candidate
        return Row(
            one.name, one.family, outcome, reason, num_parameters=one.num_parameters,
            seconds=round(seconds, 2), peak_mb=round(self._peak_bytes / 1e6, 1), **more,
        )  # fmt: skip

    def end(self) -> None:
        """Take the process, what it started, and its files away."""
        for process in _family_of(self._process.pid):
            process.kill()
        self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def _family_of(pid: int | None) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _resident_bytes(pid: int | None) -> float:
    total = 0.0
    for process in _family_of(pid):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


# --- what came of it ------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """The last row of each network."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = {}
    for line in lines:
        row = json.loads(line)
        rows[row["name"]] = Row(**{**row, "input": tuple(row["input"])})
    return list(rows.values())


def table(rows: Sequence[Row]) -> str:
    """By outcome and reason, as Markdown."""
    counts = Counter((row.outcome, "" if row.outcome == THROUGH else kind_of(row.reason)) for row in rows)
    lines = ["| outcome | reason | networks |", "|---|---|---|"]
    for (outcome, reason), count in sorted(counts.items(), key=lambda item: (OUTCOMES.index(item[0][0]), -item[1])):
        lines.append(f"| {outcome} | {reason} | {count:,} |")
    through = [row for row in rows if row.outcome == THROUGH]
    num_families = len({row.family for row in rows})
    lines += ["", f"{len(rows):,} networks of {num_families} families, {len(through) / max(1, len(rows)):.1%} through"]
    lines[-1] += (
        f"; {sum(row.seconds for row in rows):,.0f} s, of the processor {sum(row.cpu_seconds for row in rows):,.0f} s"
    )
    if through:
        seconds, peaks_mb = [row.seconds for row in through], [row.peak_mb for row in through]
        lines[-1] += (
            f"; of those through {median(seconds):.1f} s and {median(peaks_mb):,.0f} MB in the median, "
            f"{max(seconds):,.0f} s and {max(peaks_mb):,.0f} MB at most"
        )
    return "\n".join(lines)


def kind_of(reason: str) -> str:
    """A reason without what is one network's own: numbers, and keys of layers."""
    plain = re.sub(r"[\w.]*\.[\w.]*\d[\w.]*|(?<![\w.])\d[\d.,]*", "…", reason.split("|")[0])
    return plain.strip()[:120]


if __name__ == "__main__":
    sys.exit(main())
