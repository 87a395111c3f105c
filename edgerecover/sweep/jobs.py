"""A sweep's points as jobs of an existing scheduler: a Slurm script, or Ray. Stdlib only.

A task is the user's own command line with `--step NUMBER`: nothing from a script or a scheduler is parsed here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgerecover import __version__
from edgerecover.errors import (
    BadInputError,
    MissingError,
    pip_line,
    unwritable_hint,
)
from edgerecover.files import replace_file
from edgerecover.progress import SILENT, Progress

_STARTED = (
    "#!/bin/bash",
    "# {num_points} points, written by edgerecover {version}. Start it where `sbatch` is:",
    "#     bash THIS-FILE [options of sbatch, such as --partition=gpu --time=4:00:00]",
    "# A task makes a point. The first makes the images too, which the others share; the last job compares all.",
    "# Started again, it makes what is not finished. The folders below must be there on every node.",
    "#SBATCH --job-name=edgerecover-sweep",
    "#SBATCH --ntasks=1",
    "#SBATCH --cpus-per-task={cpus}",
)
_BODY = """set -euo pipefail
cd {cwd}
sweep=({command})
case "${{1-}}" in
point) exec "${{sweep[@]}}" --step "$SLURM_ARRAY_TASK_ID" ;;
collect) exec {collect} ;;
esac
script={script}
submit() {{ sbatch --parsable --output={logs} "$@"; }}
first=$(submit "$@" --array=0 "$script" point)
waits_for=${{first%%;*}}
{rest}submit "$@" --dependency=afterany:"$waits_for" "$script" collect
"""
_REST = """rest=$(submit "$@" --dependency=afterany:"$waits_for" --array=1-{last} "$script" point)
waits_for=${rest%%;*}
"""


@dataclass(frozen=True)
class Jobs:
    """What a scheduler has to start."""

    command: tuple[str, ...]
    """The sweep's command as the user typed it; with `--step NUMBER` appended, it makes one point."""
    collect: tuple[str, ...]
    """The command that compares the finished points."""
    num_points: int
    folder: Path
    """The sweep's folder, where logs go."""
    cwd: Path
    cpus: int = 1
    gpus: int = 0
    """CPU cores of each task."""


def slurm_script(jobs: Jobs, script: Path) -> str:
    """A bash script that submits the points to `sbatch` as an array, and that the tasks run.

    Args:
        jobs: the points.
        script: path under which it will be written.
    """
    words = {
        "version": __version__,
        "num_points": jobs.num_points,
        "cpus": jobs.cpus,
        "script": shlex.quote(str(script.absolute())),
        "cwd": shlex.quote(str(jobs.cwd)),
        "logs": shlex.quote(f"{jobs.folder.absolute()}/slurm-%A_%a.log"),
        "command": shlex.join(jobs.command),
        "collect": shlex.join(jobs.collect),
        "rest": _REST.replace("{last}", str(jobs.num_points - 1)) if jobs.num_points > 1 else "",
    }
    lines = [*_STARTED, *(["#SBATCH --gpus-per-task={gpus}"] if jobs.gpus else [])]
    head = "\n".join(line.format(gpus=jobs.gpus, **words) for line in lines)
    return f"{head}\n{_BODY.format(**words)}"


def write_slurm_script(jobs: Jobs, script: Path) -> None:
    """Write the script.

    Raises:
        BadInputError: it cannot be written.
    """
    try:
        replace_file(script, slurm_script(jobs, script).encode())
    except OSError as error:
        raise BadInputError(
            f"--slurm {script}: {error.strerror or error}",
            hint=unwritable_hint(error, "name a file in a folder that is there"),
        ) from error


def require_ray() -> None:
    """Check that Ray is installed, before anything is done.

    Raises:
        MissingError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise MissingError("--ray: Ray is not installed", hint=pip_line("install 'edgerecover[ray]'"))


def make_with_ray(jobs: Jobs, progress: Progress = SILENT) -> None:
    """Make all points as Ray tasks, on the cluster that RAY_ADDRESS names, or else on this machine.

    The first point is made first, because the others use its images. Results are in the sweep's folder, which every
    node must see.

    Raises:
        MissingError: Ray is not installed, or no cluster answers.
    """
    require_ray()
    import ray

    with progress.task("sweep", jobs.num_points, "points") as task:
        try:
            ray.init(log_to_driver=False, include_dashboard=False)
        except Exception as error:  # Ray raises a bare Exception where a node does not start in time
            raise MissingError(
                f"--ray: no cluster answers: {error}", hint="see `ray status`, and RAY_ADDRESS"
            ) from error
        try:
            remote = ray.remote(num_cpus=jobs.cpus, num_gpus=jobs.gpus, max_retries=0)(_run_step)
            there = ray.cluster_resources()
            if there.get("CPU", 0) < jobs.cpus or there.get("GPU", 0) < jobs.gpus:
                progress.note(f"Ray has not {jobs.cpus} cores and {jobs.gpus} GPUs yet: waiting for a node that has")
            waves = [range(1), range(1, jobs.num_points)]
            for numbers in waves:
                waiting = [remote.remote(jobs.command, str(jobs.cwd), number) for number in numbers]
                while waiting:
                    done, waiting = ray.wait(waiting)
                    for number, code, said in ray.get(done):
                        task.advance()
                        if code:
                            progress.note(f"point {number} ended with exit code {code}: {said}")
        finally:
            ray.shutdown()


def _run_step(command: Sequence[str], cwd: str, number: int) -> tuple[int, int, str]:
    """Make one point in its own process on a node; returns its number, exit code and last line of output."""
    done = subprocess.run(
        [*command, "--step", str(number)],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    words = [line for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in words if line.startswith(("error:", "next:"))] or words[-2:]
    return number, done.returncode, " ".join(said)[:500]
