"""Thousands of damaged and hostile files of every format, each opened as `edgerecover inspect` opens it.

    python benchmarks/fuzz_loaders.py                 # the table of docs/reference/formats.md; exit code 1 on a fault
    python benchmarks/fuzz_loaders.py --only pickle --count 50

A file passes when it is refused with exit code 2, or loads; within `CPU_SECONDS`; with no more memory than
`PER_BYTE` times its size plus `FREE_MIB`; and with nothing run: a worker's audit hook reports every import, exec,
compile, process, socket and file opened for writing, and payloads try to touch a file. The same seed makes the
same files. Linux only: the peak of a worker's memory is read from /proc and reset for each file.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

CPU_SECONDS = 10.0
SECONDS = 120.0
"""By the clock, on however busy a machine, before a file counts as one that hangs."""
PER_BYTE = 64
FREE_MIB = 128
ADDRESS_SPACE_MIB = 3072
"""A worker may map this much more than it has after importing torch."""

MIB = 1 << 20


# --- the worker: opens one file per line of stdin -------------------------------------------------------

_WATCHED = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "os.startfile", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.putenv", "shutil.", "subprocess.", "socket.", "urllib.", "ctypes.",
    "exec", "compile", "import", "pickle.find_class", "marshal.", "code.__new__",
)  # fmt: skip


class _Watch:
    """An audit hook that notes, while it is on, whatever only code that a file brought would do."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[object, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")
        if writes or event.startswith(_WATCHED):
            self.events.append(f"{event} {str(args)[:100]}")


def work() -> None:
    """Open each file that stdin names, and answer with a line of JSON."""
    import encodings.cp437  # noqa: F401  # zipfile decodes names with it
    import warnings

    from edgerecover.errors import BadInputError
    from edgerecover.models.name.flags import NO_FLAGS
    from edgerecover.models.pair.networks import inspect

    warnings.simplefilter("ignore")

    def opened(path: Path) -> str:
        try:
            inspect(path, NO_FLAGS)
        except BadInputError as error:
            return "refused" if error.message and _is_printable(error.message + error.hint) else "control characters"
        except BaseException as error:  # whatever else comes out is a fault
            return f"{type(error).__name__}: {str(error)[:200]}"
        return "loaded"

    for line in sys.stdin:
        if line.startswith("warm"):
            paths = [Path(path) for path in line.split()[1:]]
            beside = paths[0].with_name("model.toml")
            beside.write_text('architecture = "missing.py:none"')
            opened(paths[0])  # imports what is imported when it is first needed
            beside.unlink()
            for path in paths:
                opened(path)
            watch = _Watch()
            limit = _status_kib("VmSize") * 1024 + ADDRESS_SPACE_MIB * MIB
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            continue
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before_kib, started = _status_kib("VmRSS"), time.process_time()
        watch.events.clear()
        watch.on = True
        outcome = opened(Path(line.strip()))
        watch.on = False
        answer = {
            "outcome": outcome,
            "seconds": time.process_time() - started,
            "peak_mib": (_status_kib("VmHWM") - before_kib) / 1024,
            "events": watch.events[:3],
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _is_printable(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise LookupError(name)


# --- the parent -----------------------------------------------------------------------------------------


class Worker:
    """A process that opens files; it is replaced when it hangs or dies."""

    def __init__(self, warm: list[Path]) -> None:
        command = [sys.executable, __file__, "--worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self._ask("warm " + " ".join(map(str, warm)), 180.0) != "ready\n":
            raise RuntimeError("the worker did not start")

    def open(self, path: Path) -> dict[str, object]:
        line = self._ask(str(path), SECONDS)
        if not line:
            self.stop()
            return {"outcome": "hangs or dies", "seconds": SECONDS, "peak_mib": 0.0, "events": []}
        answer: dict[str, object] = json.loads(line)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _ask(self, line: str, seconds: float) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else ""


@dataclass
class Row:
    """What came of the files of one kind."""

    files: int = 0
    loaded: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0
    faults: list[str] = field(default_factory=list)


def judge(row: Row, name: str, size_bytes: int, answer: dict[str, object], canary: Path) -> None:
    """Count one file, and say what is wrong with how it was opened."""
    outcome, peak_mib, seconds = str(answer["outcome"]), float(answer["peak_mib"]), float(answer["seconds"])  # type: ignore[arg-type]
    row.files += 1
    row.loaded += outcome == "loaded"
    row.refused += outcome == "refused"
    row.seconds, row.peak_mib = max(row.seconds, seconds), max(row.peak_mib, peak_mib)
    if outcome not in ("loaded", "refused"):
        row.faults.append(f"{name}: {outcome}")
    if answer["events"]:
        row.faults.append(f"{name}: did {answer['events']}")
    if canary.exists():
        row.faults.append(f"{name}: RAN CODE")
        canary.unlink()
    if seconds > CPU_SECONDS:
        row.faults.append(f"{name}: took {seconds:.1f} s")
    if peak_mib > FREE_MIB + PER_BYTE * size_bytes / MIB:
        row.faults.append(f"{name}: took {peak_mib:.0f} MiB for {size_bytes:,} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="random mutations of each file in each way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--keep", type=Path, help="folder for the files that show a fault")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return 0
    from fuzz_files import hostile_files, mutants, seed_files

    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder, canary = Path(scratch), Path(scratch) / "it-ran"
        seeds = seed_files(folder)
        warm = [folder / f"warm-{index}" for index in range(len(seeds))]
        for path, seed in zip(warm, seeds.values(), strict=True):
            path.write_bytes(seed)
        worker = Worker(warm)

        def files() -> Iterator[tuple[str, str, bytes]]:
            yield from hostile_files(canary, seeds)
            yield from mutants(seeds, arguments.count, arguments.seed)

        for kind, name, content in files():
            if arguments.only not in kind:
                continue
            case = folder / "case"
            case.mkdir(exist_ok=True)
            path = case / "model.pt"
            toml = case / "model.toml"
            toml.unlink(missing_ok=True)
            path.write_bytes(seeds["state_dict"] if kind == "model.toml" else content)
            if kind == "model.toml":
                toml.write_bytes(content)
            worker = worker if worker.is_alive else Worker(warm)
            row = rows.setdefault(kind, Row())
            known = len(row.faults)
            judge(row, f"{kind}: {name}", len(content), worker.open(path), canary)
            for fault in row.faults[known:]:
                print(fault, file=sys.stderr)
                if arguments.keep:
                    arguments.keep.mkdir(exist_ok=True)
                    (arguments.keep / f"{kind}-{row.files}.bin".replace(" ", "-")).write_bytes(content)
        worker.stop()
    print_table(rows)
    return 1 if any(row.faults for row in rows.values()) else 0


def print_table(rows: dict[str, Row]) -> None:
    print("| kind | files | loaded | refused | worst CPU seconds | worst MiB | faults |")
    print("|---|---|---|---|---|---|---|")
    total = Row()
    for kind, row in sorted(rows.items()):
        print_row(kind, row)
        total.files, total.loaded, total.refused = (
            total.files + row.files, total.loaded + row.loaded, total.refused + row.refused
        )  # fmt: skip
        total.seconds, total.peak_mib = max(total.seconds, row.seconds), max(total.peak_mib, row.peak_mib)
        total.faults += row.faults
    print_row("all", total)


def print_row(kind: str, row: Row) -> None:
    counts = f"{row.files:,} | {row.loaded:,} | {row.refused:,}"
    print(f"| {kind} | {counts} | {row.seconds:.2f} | {row.peak_mib:.0f} | {len(row.faults)} |")


if __name__ == "__main__":
    sys.exit(main())
