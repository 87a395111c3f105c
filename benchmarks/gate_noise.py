"""How the gate behaves in noise: false alarms, and true regressions that it catches, over thousands of trials.

    python benchmarks/gate_noise.py simulate [--trials 1000] [--seconds 3] [--races 8]
    python benchmarks/gate_noise.py record FILE.onnx OUT.json [--races 20] [--golden INPUTS.npy]

`simulate` decides each trial by the code that `edgerecover gate` decides by (`gate.duel`, `gate.drift`,
`validate.regressions`); only the clock is not real. Times come from models of a machine's moods, and from races of one
file with itself that `record` took of a real machine. Prints Markdown.

A trial has the new model as fast as the old one, or slower by the given share. FAIL with no change is a false alarm;
a regression is caught by FAIL alone: what stays inconclusive is counted apart.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgerecover.artifacts import Decisions, GateStatus, Host, Latency, Proportion, Release
from edgerecover.gate.drift import against_runs
from edgerecover.gate.duel import MAX_RACES, MIN_QUERIES, SECONDS, Pair, compare, duel
from edgerecover.runtime.measure.race import NUM_ROUNDS, Entrant, race, turns
from edgerecover.runtime.measure.timing import Timing, block_size
from edgerecover.validation.limits import Limits
from edgerecover.validation.regressions import latency_gate, memory_gate, quality_gates

RECORDED = Path(__file__).with_name("gate-noise-recorded.json")
LIMITS = Limits("default", 0.6, 0.99, 0.01, 3.0, "any", "CPUExecutionProvider")
CHANGES = (1.0, 1.1)
"""How many times longer a query of the new model truly takes."""
BASE_MS = 8.0
PROCESS_SPREAD = 0.007
"""Of a process's speed, relative, as its memory happens to lie: two processes of one file differ by √2 of it."""
BETWEEN_TURNS_S = 0.01
BETWEEN_RACES_S = 2.0
"""Opening and warming up."""
_STEP_S = 0.005
LATENCY = Latency(
    "one call", "simulated", "CPUExecutionProvider", {}, 1, 1, Host("any", "simulated", 1, "any"), False,
    (), (1.0,), 0.0, 0, 10_000_000,
)  # fmt: skip


# --- moods of a machine -------------------------------------------------------------------------------------

Mood = Callable[[np.random.Generator, int], Any]
"""How many times longer than at best everything takes, at each step of `_STEP_S`."""


def quiet(random: np.random.Generator, steps: int) -> Any:
    return np.ones(steps)


def drift(random: np.random.Generator, steps: int) -> Any:
    """Slower by up to 30 % over the trial, as it gets warm; or faster."""
    slope = random.uniform(-0.3, 0.3)
    return 1 + np.linspace(0, slope, steps)


def wandering(random: np.random.Generator, steps: int) -> Any:
    """An Ornstein-Uhlenbeck process of the logarithm: 10 % around its mean, a memory of two seconds."""
    keep = math.exp(-_STEP_S / 2.0)
    noise = random.normal(0, 0.1 * math.sqrt(1 - keep**2), steps)
    level, out = random.normal(0, 0.1), np.empty(steps)
    for number, change in enumerate(noise):
        level = keep * level + change
        out[number] = level
    return np.exp(out)


def clock_steps(random: np.random.Generator, steps: int) -> Any:
    """A clock that jumps between three frequencies, and stays three seconds on average."""
    return _telegraph(random, steps, (1.0, 1.25, 1.6), (3.0, 3.0, 3.0))


def neighbour(random: np.random.Generator, steps: int) -> Any:
    """Another process takes half of the machine for two seconds of eight."""
    return _telegraph(random, steps, (1.0, 2.0), (6.0, 2.0))


def scheduler(random: np.random.Generator, steps: int) -> Any:
    """Half of the machine is taken for stretches as short as a turn, so that they hit one side and not the other."""
    return _telegraph(random, steps, (1.0, 2.0), (0.3, 0.1))


def everything(random: np.random.Generator, steps: int) -> Any:
    return drift(random, steps) * wandering(random, steps) * clock_steps(random, steps) * neighbour(random, steps)


def _telegraph(random: np.random.Generator, steps: int, levels: Sequence[float], dwell_s: Sequence[float]) -> Any:
    out, place = np.empty(steps), 0
    state = int(random.integers(len(levels)))
    while place < steps:
        length = max(1, int(random.exponential(dwell_s[state]) / _STEP_S))
        out[place : place + length] = levels[state]
        place += length
        state = int((state + 1 + random.integers(len(levels) - 1)) % len(levels))
    return out


@dataclass(frozen=True)
class Noise:
    """A machine."""

    name: str
    mood: Mood
    jitter: float
    """Standard deviation of a query's logarithm."""
    spikes: float
    """Share of the queries that meet a pause: a Pareto tail of index 1.5, without a variance."""


NOISES = (
    Noise("quiet", quiet, 0.01, 0.0),
    Noise("heavy tails", quiet, 0.05, 0.05),
    Noise("drift", drift, 0.02, 0.01),
    Noise("wandering", wandering, 0.02, 0.01),
    Noise("clock steps", clock_steps, 0.02, 0.01),
    Noise("noisy neighbour", neighbour, 0.05, 0.02),
    Noise("restless scheduler", scheduler, 0.05, 0.02),
    Noise("all at once", everything, 0.05, 0.05),
)


class Machine:
    """One trial's time, from its first race to its last."""

    def __init__(self, noise: Noise, random: np.random.Generator, seconds: float, races: int) -> None:
        self.noise, self.random, self.timing = noise, random, Timing(50, MIN_QUERIES, seconds)
        horizon_s = races * (BETWEEN_RACES_S + 2 * NUM_ROUNDS * BETWEEN_TURNS_S + 5 * 2 * max(seconds, 1.0))
        self.mood = noise.mood(random, int(horizon_s / _STEP_S))
        self.now_s = 0.0

    def races(self, slower: float, number: int) -> Iterator[Pair]:
        """Of the new model, so many times slower, with the old one."""
        for seed in range(number):
            self.now_s += BETWEEN_RACES_S
            speeds = [slower, 1.0] * np.exp(self.random.normal(0, PROCESS_SPREAD, 2))
            rounds: tuple[list[Any], list[Any]] = ([], [])
            for order in turns(2, NUM_ROUNDS, seed):
                for side in order:
                    rounds[side].append(self._turn(BASE_MS * speeds[side]))
                    self.now_s += BETWEEN_TURNS_S
            yield tuple(_latency(one) for one in rounds)

    def alone(self, slower: float) -> Latency:
        """A race of one."""
        speed = slower * math.exp(self.random.normal(0, PROCESS_SPREAD))
        self.now_s += BETWEEN_RACES_S
        return _latency([self._turn(BASE_MS * speed) for _ in range(NUM_ROUNDS)])

    def _turn(self, base_ms: float) -> Any:
        """One turn's queries, as `runtime.timing.time_block` would ask them."""
        size = block_size(self.timing, NUM_ROUNDS)
        start = min(int(self.now_s / _STEP_S), len(self.mood) - 1)
        here_ms = base_ms * self.mood[start]
        count = max(size.min_queries, math.ceil(1000 * size.min_duration_s / here_ms))
        when = np.minimum(start + (np.arange(count) * here_ms / 1000 / _STEP_S).astype(int), len(self.mood) - 1)
        times_ms = base_ms * self.mood[when] * np.exp(self.random.normal(0, self.noise.jitter, count))
        if self.noise.spikes:
            paused = self.random.random(count) < self.noise.spikes
            times_ms *= 1 + paused * self.random.pareto(1.5, count)
        self.now_s += float(times_ms.sum()) / 1000
        return times_ms


def _latency(rounds: Sequence[Any]) -> Latency:
    samples = tuple(float(value) for part in rounds for value in part)
    return replace(LATENCY, samples_ms=samples, round_sizes=tuple(map(len, rounds)))


# --- trials of the race -------------------------------------------------------------------------------------


@dataclass
class Count:
    """How the trials of one row came out."""

    statuses: Counter[GateStatus]
    races: int = 0
    queries: int = 0

    def share(self, status: GateStatus) -> str:
        return f"{100 * self.statuses[status] / self.statuses.total():.1f} %"


def raced(noise: Noise, slower: float, trials: int, seconds: float, races: int) -> Count:
    count = Count(Counter())
    for trial in range(trials):
        machine = Machine(noise, np.random.default_rng([trial, round(1000 * slower)]), seconds, races)
        _count(count, machine.races(slower, races))
    return count


def _count(count: Count, races: Iterator[Pair]) -> None:
    ended = duel(races, LIMITS)
    count.statuses[ended.latency.status] += 1
    count.races += ended.num_races
    count.queries += len(ended.comparison.latency.samples_ms)


@dataclass(frozen=True)
class Recorded:
    """Races of one file with itself: (side, round, query) in milliseconds, and what each process's memory grew by."""

    name: str
    machine: str
    races: tuple[tuple[Latency, Latency], ...]


def resampled(recorded: Recorded, slower: float, trials: int, races: int) -> Count:
    """Trials drawn from real races: a race at random, its rounds in runs of three, its sides changed or not."""
    count = Count(Counter())
    for trial in range(trials):
        random = np.random.default_rng([7, trial, round(1000 * slower)])
        _count(count, (_redrawn(recorded, slower, random) for _ in range(races)))
    return count


def _redrawn(recorded: Recorded, slower: float, random: np.random.Generator) -> Pair:
    sides = [_rounds(latency) for latency in recorded.races[int(random.integers(len(recorded.races)))]]
    if random.random() < 0.5:
        sides.reverse()
    number = len(sides[0])
    starts = random.integers(number, size=-(-number // 3))
    drawn = [(start + step) % number for start in starts for step in range(3)][:number]
    new, old = ([rounds[place] for place in drawn] for rounds in sides)
    return _latency([slower * part for part in new]), _latency(old)


def _rounds(latency: Latency) -> list[Any]:
    return np.split(np.asarray(latency.samples_ms), np.cumsum(latency.round_sizes)[:-1])


# --- trials against stored numbers ----------------------------------------------------------------------------


def stored(spread: float, num_runs: int, slower: float, trials: int) -> Counter[GateStatus]:
    """Runs whose level differs by `spread` from one time to the next, on an otherwise quiet machine."""
    counts: Counter[GateStatus] = Counter()
    for trial in range(trials):
        random = np.random.default_rng([11, trial, num_runs, round(1000 * slower)])
        machine = Machine(NOISES[1], random, 1.0, num_runs + 1)
        levels = np.exp(random.normal(0, spread, num_runs + 1))
        runs = [machine.alone(level) for level in levels[:-1]]
        counts[latency_gate(LIMITS, against_runs(machine.alone(slower * levels[-1]), runs)).status] += 1
    return counts


def stored_recorded(recorded: Recorded, num_runs: int, slower: float, trials: int) -> Counter[GateStatus]:
    """Runs are one side of real races, taken minutes apart."""
    counts: Counter[GateStatus] = Counter()
    for trial in range(trials):
        random = np.random.default_rng([13, trial, num_runs, round(1000 * slower)])
        places = random.choice(len(recorded.races), num_runs + 1, replace=False)
        runs = [recorded.races[place][int(random.integers(2))] for place in places]
        now = replace(runs[-1], samples_ms=tuple(slower * value for value in runs[-1].samples_ms))
        counts[latency_gate(LIMITS, against_runs(now, runs[:-1])).status] += 1
    return counts


# --- trials of decisions --------------------------------------------------------------------------------------


def decided(images: int, changed: float, lost: float, trials: int, *, paired: bool) -> Counter[GateStatus]:
    """A model that decides otherwise on `changed` of the images, and agrees with the teacher on `lost` fewer."""
    counts: Counter[GateStatus] = Counter()
    for trial in range(trials):
        random = np.random.default_rng([17, trial, images, round(1000 * changed), round(1000 * lost)])
        before = random.random(images) < 0.86
        if not paired:
            now = random.random(images) < 0.86 - lost
        else:
            draw = random.random(images)
            # Of those that agreed, and of those that did not, as many change as makes `changed` and `lost` true.
            falls, rises = (changed + lost) / 2 / 0.86, (changed - lost) / 2 / 0.14
            now = np.where(before, draw >= falls, draw < rises)
        sides = [_release(right, "same" if paired else str(side)) for side, right in enumerate((now, before))]
        counts[quality_gates(LIMITS, *sides)[0].status] += 1
    return counts


def _release(right: Any, images: str) -> Release:
    digits = "".join("1" if one else "0" for one in right)
    agreement = Proportion(int(right.sum()), len(right))
    return Release("", "", "", "", "any", "", "", "dreams", None, agreement, Decisions(images, digits), None, 1)


# --- recording ------------------------------------------------------------------------------------------------


def record(model: Path, golden: Path | None, races: int, queries: int, seconds: float) -> dict[str, Any]:
    """Races of a file with itself on this machine."""
    held = []
    for number in range(races):
        entrants = [Entrant("a", model), Entrant("b", model)]
        done = [one.latency_or_error() for one in race(entrants, golden, Timing(50, queries, seconds), seed=number)]
        held.append([
            {
                "rounds_ms": [[float(f"{value:.4g}") for value in part] for part in _rounds(latency)],
                "memory_bytes": latency.memory_model_bytes,
            }
            for latency in done
        ])  # fmt: skip
        print(f"race {number + 1} of {races}: ratio {done[0].slower_than(done[1]).value:.4f}", file=sys.stderr)
    host = done[0].host
    return {
        "name": f"{model.stem}, {queries} queries or {seconds:g} s",
        "machine": f"{host.cpu}, {host.num_cores} cores",
        "races": held,
    }


def read_recorded(path: Path) -> list[Recorded]:
    found = []
    for data in json.loads(path.read_text(encoding="utf-8")):
        races = tuple(
            tuple(
                replace(_latency(side["rounds_ms"]), memory_before_bytes=0, memory_peak_bytes=side["memory_bytes"])
                for side in pair
            )
            for pair in data["races"]
        )
        found.append(Recorded(data["name"], data["machine"], races))
    return found


# --- tables ---------------------------------------------------------------------------------------------------


def of_races(trials: int, seconds: float, races: int, recorded: Sequence[Recorded]) -> Iterator[str]:
    yield f"{trials:,} trials each; limit {100 * LIMITS.max_latency_regression:g} %; up to {races} races of "
    yield f"{NUM_ROUNDS} rounds in which each model takes {seconds:g} s and answers {MIN_QUERIES} queries.\n\n"
    yield _head("Machine", "Truly slower", "PASS", "INCONCLUSIVE", "FAIL", "Races", "Queries of each")
    for slower in CHANGES:
        for noise in NOISES:
            yield _raced_row(noise.name, slower, raced(noise, slower, trials, seconds, races), trials)
        for one in recorded:
            yield _raced_row(f"recorded: {one.name}", slower, resampled(one, slower, trials, races), trials)


def of_stored(trials: int, recorded: Sequence[Recorded]) -> Iterator[str]:
    yield _head("Against stored numbers", "Runs", "Truly slower", "PASS", "INCONCLUSIVE", "FAIL")
    for num_runs in (1, 5, 9):
        for slower in CHANGES:
            for spread in (0.01, 0.05):
                counts = stored(spread, num_runs, slower, trials)
                yield _status_row((f"runs differ by {100 * spread:g} %", str(num_runs), _percent(slower)), counts)
            for one in recorded:
                counts = stored_recorded(one, num_runs, slower, trials)
                yield _status_row((f"recorded: {one.name}", str(num_runs), _percent(slower)), counts)


def of_decisions(trials: int) -> Iterator[str]:
    yield _head("Agreement", "Images", "Decisions changed", "Truly lost", "PASS", "INCONCLUSIVE", "FAIL")
    for images in (256, 1024):
        for changed, lost in ((0.0, 0.0), (0.05, 0.0), (0.1, 0.0), (0.1, 0.05), (0.14, 0.1), (0.2, 0.15)):
            counts = decided(images, changed, lost, trials, paired=True)
            cells = ("the same images", f"{images:,}", f"{100 * changed:g} %", f"{100 * lost:g} points")
            yield _status_row(cells, counts)
        for lost in (0.0, 0.05, 0.1, 0.15):
            counts = decided(images, 0.0, lost, trials, paired=False)
            yield _status_row(("other images", f"{images:,}", "–", f"{100 * lost:g} points"), counts)


def of_memory(trials: int, recorded: Sequence[Recorded]) -> Iterator[str]:
    yield _head("Memory, recorded", "Range", "Processes of each", "Truly more", "PASS", "INCONCLUSIVE", "FAIL")
    for one in recorded:
        for processes in (1, 4):
            for more in (1.0, 1.2, 1.3):
                yield _memory_row(one, processes, more, trials)


def _head(*cells: str) -> str:
    return f"\n{_row(cells)}{_row(('---',) * len(cells))}"


def _raced_row(name: str, slower: float, count: Count, trials: int) -> str:
    return _status_row(
        (name, _percent(slower)), count.statuses, (f"{count.races / trials:.2f}", f"{count.queries / trials:,.0f}")
    )


def _status_row(cells: tuple[str, ...], counts: Counter[GateStatus], more: tuple[str, ...] = ()) -> str:
    order = (GateStatus.PASS, GateStatus.INCONCLUSIVE, GateStatus.FAIL)
    return _row((*cells, *(f"{100 * counts[status] / counts.total():.1f} %" for status in order), *more))


def _memory_row(recorded: Recorded, processes: int, more: float, trials: int) -> str:
    """Processes drawn from the real ones; the new model's take so many times as much."""
    known = [latency for pair in recorded.races for latency in pair]
    counts: Counter[GateStatus] = Counter()
    for trial in range(trials):
        random = np.random.default_rng([19, trial, processes])
        drawn = [known[place] for place in random.choice(len(known), 2 * processes, replace=False)]
        new = [replace(one, memory_peak_bytes=int(more * one.memory_peak_bytes)) for one in drawn[processes:]]
        counts[memory_gate(LIMITS, compare(new, drawn[:processes])).status] += 1
    sizes = [latency.memory_model_bytes / 1e6 for latency in known]
    cells = (recorded.name, f"{min(sizes):.1f}–{max(sizes):.1f} MB", str(processes), _percent(more))
    return _status_row(cells, counts)


def _percent(slower: float) -> str:
    return "no" if slower == 1 else f"{100 * (slower - 1):.0f} %"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    simulated = commands.add_parser("simulate")
    simulated.add_argument("--trials", type=int, default=1000)
    simulated.add_argument("--seconds", type=float, default=SECONDS)
    simulated.add_argument("--races", type=int, default=MAX_RACES)
    simulated.add_argument("--parts", nargs="+", choices=("races", "stored", "decisions", "memory"))
    simulated.add_argument("--recorded", type=Path, default=RECORDED)
    recording = commands.add_parser("record")
    recording.add_argument("model", type=Path)
    recording.add_argument("out", type=Path, help="JSON that one more recording is added to")
    recording.add_argument("--golden", type=Path)
    recording.add_argument("--races", type=int, default=20)
    recording.add_argument("--queries", type=int, default=MIN_QUERIES)
    recording.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(argv)
    started_s = time.perf_counter()
    if options.command == "record":
        known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else []
        known.append(record(options.model, options.golden, options.races, options.queries, options.seconds))
        options.out.write_text(json.dumps(known, separators=(",", ":")) + "\n", encoding="utf-8")
    else:
        recorded = read_recorded(options.recorded) if options.recorded.is_file() else []
        parts = {
            "races": of_races(options.trials, options.seconds, options.races, recorded),
            "stored": of_stored(options.trials, recorded),
            "decisions": of_decisions(options.trials),
            "memory": of_memory(options.trials, recorded),
        }
        for name in options.parts or parts:
            for piece in parts[name]:
                print(piece, end="", flush=True)
    print(f"{time.perf_counter() - started_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
