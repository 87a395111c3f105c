r"""What a run was estimated to take, and what it took: minutes of CPU time and peak memory, stage by stage.

    OMP_NUM_THREADS=1 python benchmarks/estimates.py demo
    OMP_NUM_THREADS=1 python benchmarks/estimates.py FOLDER/75.safetensors --profile fast --results estimates

MODEL lies in a folder with a model.toml that names architecture and teacher, as recovery.py and imagenet.py leave them.
CPU time is that of this process and of those that it starts: on a machine that does other work too it says what an idle
one would take on one core. One JSON for each run in --results.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from recovery import changed_profile, settings_change
from worker import json_bytes, machine

from edgerecover.artifacts import InputSpec, to_json
from edgerecover.commands.run import dry_run, run
from edgerecover.compute import choose_compute
from edgerecover.config import Profile, load_target
from edgerecover.demo.example import demo_request
from edgerecover.files import replace_file
from edgerecover.models.name.flags import ModelFlags
from edgerecover.models.pair.networks import open_models
from edgerecover.runtime.machine.memory import peak_bytes
from edgerecover.stages.estimate import Stopwatch
from edgerecover.stages.request import Request

_OF_RECOVERY = {
    "statistics": "statistics repair",
    "least squares": "least squares",
    "block by block": "block by block",
}
_PARTS = {"mirrored?": "mirrored?", **_OF_RECOVERY}
"""Tasks that are a line of the estimate of their own."""


def main() -> None:
    asked = _parser().parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(_request(asked, Path(scratch)))
    asked.results.mkdir(parents=True, exist_ok=True)
    replace_file(asked.results / f"{record['model']}-{record['profile']}.json", json_bytes(record))
    print(table([json.loads(path.read_text()) for path in sorted(asked.results.glob("*.json"))]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a pruned checkpoint, or demo")
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--set", nargs="+", type=settings_change, default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=Path("estimate-results"))
    return parser


def _request(asked: argparse.Namespace, folder: Path) -> Request:
    if asked.model == "demo":
        return demo_request(folder, 0)
    profile = Profile.model_validate(changed_profile(asked.profile, dict(asked.set)))
    return Request(
        flags=ModelFlags(trust_code=True),
        model_path=Path(asked.model),
        target=load_target("onnx-generic"),
        profile=profile,
        out=folder / "bundle",
        work=folder / "work",
    )


def cpu_s() -> float:
    """Of this process and all that it has waited for."""
    return sum(os.times()[:4])


def measure(request: Request) -> dict[str, Any]:
    """Estimate first, in the same process, then run."""
    told = dry_run(request, clock=cpu_s)
    watch = _Stages()
    started_s = cpu_s()
    report = run(request, watch)
    spent = {name: watch.stages_s.get(name, 0.0) for name in ("load", "synthesize", "recover")}
    parts = {line: watch.seconds(task) for task, line in _PARTS.items()}
    # Of the recovery, what is no task of its own is distillation: steps, and looks at how it does.
    parts["distill"] = spent["recover"] - sum(parts[line] for line in _OF_RECOVERY.values())
    parts["synthesize"] = spent["synthesize"] - parts["mirrored?"] - watch.estimated_s
    parts["export and race"] = sum(watch.stages_s.values()) - sum(spent.values())
    settings, input = request.profile, _input_of(request)
    return {
        "model": request.model_path.stem,
        "folder": request.model_path.parent.name,
        "input": list(input.shape),
        "profile": settings.name,
        "num_images": told.num_images,
        "num_steps": told.num_steps,
        "estimated": to_json(told),
        "estimated_s": told.seconds,
        "spent": parts,
        "spent_s": cpu_s() - started_s,
        "wall_s": sum(time.seconds for time in report.stages),
        "peak_memory_bytes": peak_bytes(),
        "settings": settings.model_dump(mode="json"),
        **machine(int(os.environ.get("OMP_NUM_THREADS", "0")), choose_compute("cpu")),
    }


def _input_of(request: Request) -> InputSpec:
    return open_models(
        request.model_path, replace(request.flags, trust_code=True), teacher=request.teacher, will_prune=False
    ).input


class _Stages(Stopwatch):
    """CPU seconds of stages as well as of tasks."""

    def __init__(self) -> None:
        super().__init__(cpu_s)
        self.stages_s: dict[str, float] = {}
        self.estimated_s = 0.0
        self._began_s = 0.0

    def began(self, stage: str) -> None:
        self._began_s = cpu_s()

    def ended(self, stage: str, seconds: float, reused: bool) -> None:
        self.stages_s[stage] = cpu_s() - self._began_s

    def note(self, message: str, **numbers: float) -> None:
        self.estimated_s += numbers.get("measured_s", 0.0)


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: CPU minutes and GB, estimated and true."""
    names = ["mirrored?", "synthesize", *_OF_RECOVERY.values(), "distill", "export and race"]
    header = ["network", "input", "profile", "dreams", "steps", *names, "CPU minutes in all", "factor", "GB"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for record in records:
        told = {stage["name"]: stage["seconds"] for stage in record["estimated"]["stages"]}
        pairs = [(told.get(name, 0.0), record["spent"].get(name, 0.0)) for name in names]
        in_all = record["estimated_s"], record["spent_s"]
        values = [
            record["model"],
            "×".join(map(str, record["input"])),
            record["profile"],
            f"{record['num_images']:,}",
            f"{record['num_steps']:,}",
            *(f"{a / 60:.1f} / {b / 60:.1f}" for a, b in (*pairs, in_all)),
            f"{in_all[0] / in_all[1]:.2f}",
            f"{record['estimated']['memory_bytes'] / 1e9:.1f} / {record['peak_memory_bytes'] / 1e9:.1f}",
        ]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join([*lines, "", "Estimated / true."])


if __name__ == "__main__":
    main()
