"""How long a new user waits for the first report: `python benchmarks/first_report.py [SOURCE]`.

A fresh virtual environment, `pip install` of this checkout (or of SOURCE: a wheel, a name), `edgerecover demo` in an
empty folder. Each part is timed, and the demo is split by what it says itself (`--events`). The environment and its
cache of packages are thrown away, unless --cache says that pip may keep what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Part:
    """One part of the wait."""

    name: str
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default=str(ROOT), help="what pip installs [this checkout]")
    parser.add_argument("--cache", action="store_true", help="pip may use its cache, as on a machine that has torch")
    parser.add_argument("--again", action="store_true", help="run the demo a second time, with everything found again")
    parser.add_argument("--json", action="store_true", help="write the parts as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-report-") as folder:
        parts = measured(Path(folder), asked.source, use_cache=asked.cache, again=asked.again)
    if asked.json:
        print(
            json.dumps({"machine": machine(), "parts": {part.name: round(part.seconds, 1) for part in parts}}, indent=1)
        )
        return
    print(f"{machine()}\n")
    for part in parts:
        print(f"| {part.name} | {part.seconds:.1f} s |")


def measured(folder: Path, source: str, *, use_cache: bool, again: bool) -> list[Part]:
    """All parts in order; `to the first report` is the sum of those before it."""
    environment = folder / "venv"
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    cache = [] if use_cache else ["--no-cache-dir"]
    installed = [
        timed("make an environment", [sys.executable, "-m", "venv", str(environment)], folder),
        timed("pip install", [str(python), "-m", "pip", "install", "--quiet", *cache, source], folder),
    ]
    demo = demonstrated(python, folder)
    first = [*installed, *demo]
    parts = [*first, Part("**to the first report**", sum(part.seconds for part in installed) + demo[0].seconds)]
    size_bytes = sum(path.lstat().st_size for path in environment.rglob("*"))
    print(f"the environment takes {size_bytes / 1e9:.1f} GB", file=sys.stderr)
    if again:
        parts.append(Part("`edgerecover demo` again", demonstrated(python, folder)[0].seconds))
    return parts


def demonstrated(python: Path, folder: Path) -> list[Part]:
    """`edgerecover demo` as a whole, then its stages and what is left: starting Python, importing, the report."""
    events = folder / "events.jsonl"
    whole = timed("`edgerecover demo`", [str(python), "-m", "edgerecover", "demo", "--events", str(events)], folder)
    told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    stages = [Part(f"… {e['stage']}", e["seconds"]) for e in told if e["event"] == "stage_ended"]
    rest = whole.seconds - sum(stage.seconds for stage in stages)
    return [whole, *stages, Part("… starting, importing, showing", rest)]


def timed(name: str, command: list[str], folder: Path) -> Part:
    """Its wall time; a command that fails ends the measurement."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    print(f"{name}: {seconds:.1f} s", file=sys.stderr)
    return Part(name, seconds)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
