"""A sweep from the command line, and by a scheduler's tasks: the same bundles, made once each."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgerecover.bundle.verify import verify_bundle
from edgerecover.cli import main
from edgerecover.cli.sweep import without
from edgerecover.demo import demo_files
from edgerecover.sweep.jobs import Jobs, slurm_script
from tests.slurm import cluster

PROFILE = """
name = "tiny"
description = "as little as there can be"
extends = "smoke"
[synthesis]
num_steps = 4
[recovery]
num_steps = 2
[latency]
num_warmup = 1
min_queries = 4
min_duration_s = 0.0
"""
NETWORK = ("--arch", "edgerecover.demo.network:digits_net", "--input-shape", "1,8,8", "--mean", "0.3052")
SWEEP = ("sweep", "dense.pt", "-t", "onnx-generic", "-p", "tiny.toml", "--precision", "fp32", *NETWORK)
RESULTS = {"plan.json", "sweep.json", "sweep.md", "sweep.html", "front.svg"}


def edgerecover(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    code = code if isinstance(code, int) else 0
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(load_file(demo_files().dense), tmp_path / "dense.pt")
    (tmp_path / "tiny.toml").write_text(PROFILE)
    return tmp_path


def files_in(sweep: Path) -> dict[str, bytes]:
    return {
        path.relative_to(sweep).as_posix(): path.read_bytes()
        for path in sorted(sweep.glob("*.bundle/**/*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_dreams_are_made_once_and_finished_points_are_kept(folder: Path) -> None:
    sweep = folder / "out"
    done = edgerecover(*SWEEP, "--sparsity", "0.5,0.9", "--out", sweep, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["measure"] == "agreement"
    assert [point["point"]["name"] for point in found["found"]] == ["unstructured-50", "unstructured-90"]
    assert any(point["on_front"] for point in found["found"])
    assert all(point["latency"]["samples_ms"] for point in found["found"])
    assert {path.name for path in sweep.iterdir() if path.is_file() and "outcome" not in path.name} == RESULTS
    assert done.stderr.count("  synthesize: ") == 1
    reused = [
        {stage["stage"]: stage["reused"] for stage in json.loads((bundle / "report.json").read_text())["stages"]}
        for bundle in sorted(sweep.glob("*.bundle"))
    ]
    assert [stages["synthesize"] for stages in reused] == [False, True]

    # Once more, with one bundle damaged: it alone is made again, and comes out the same.
    before = files_in(sweep)
    (sweep / "unstructured-90.bundle" / "model.onnx").write_bytes(b"")
    again = edgerecover(*SWEEP, "--sparsity", "0.5,0.9", "--out", sweep, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("finished earlier") == 1
    assert "  synthesize: " not in again.stderr
    after = files_in(sweep)
    for name in ("unstructured-50.bundle/report.json", "unstructured-90.bundle/model.onnx"):
        assert after[name] == before[name]
    assert verify_bundle(sweep / "unstructured-90.bundle").manifest
    for words in ("unstructured 90 %", "agreement", "front", "median"):
        assert words in again.stdout
    assert max(map(len, again.stdout.splitlines())) <= 80


def test_a_point_that_cannot_be_made_does_not_stop_the_others(folder: Path) -> None:
    """Where the first one's bundle would be, there is a file of the user's."""
    sweep = folder / "out"
    asked = (*SWEEP, "--pattern", "layerwise,unstructured", "--sparsity", "0.5", "--out", sweep)
    assert edgerecover(*asked, "--slurm", "points.sh", cwd=folder).returncode == 0  # the plan alone
    (sweep / "layerwise-50.bundle").write_text("my notes")
    done = edgerecover(*asked, "--json", cwd=folder)
    assert done.returncode == 2, done.stderr
    failed, made = json.loads(done.stdout)["found"]
    assert failed["error"]
    assert failed["bundle"] == ""
    assert made["bundle"] == "unstructured-50.bundle"
    assert (sweep / "layerwise-50.bundle").read_text() == "my notes"
    assert "failed" in edgerecover("sweep", "--collect", sweep, cwd=folder).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "MODEL is missing"),
        (("dense.pt",), "--target is missing"),
        (("dense.pt", "-t", "onnx-generic", "--sparsity", "0.5,much"), "not a list of numbers"),
        (("dense.pt", "-t", "onnx-generic", "--sparsity", "0.5,,0.6"), "between commas"),
        (("dense.pt", "-t", "onnx-generic", "--pattern", "3:4"), "unknown pattern"),
        (("dense.pt", "-t", "onnx-generic", "-p", "smok", "--sparsity", "0.5"), "smoke"),
        (("dense.pt", "-t", "onnx-generic", "--slurm", "a", "--step", "0"), "cannot be combined"),
        (("dense.pt", "-t", "onnx-generic", "--collect", "a"), "nothing else"),
        (("--collect", "nowhere"), "plan.json"),
        (("dense.pt", "-t", "onnx-generic", "--sparsity", "0.5", *NETWORK, "--step", "1"), "there are 1 points"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    before = sorted(folder.iterdir())
    done = edgerecover("sweep", *arguments, cwd=folder)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert sorted(folder.iterdir()) == before


def test_collecting_what_is_not_made_says_so(folder: Path) -> None:
    sweep = folder / "out"
    script = folder / "sweep.sh"
    done = edgerecover(*SWEEP, "--sparsity", "0.5", "--out", sweep, "--slurm", script, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sweep.iterdir()] == ["plan.json"]
    nothing = edgerecover("sweep", "--collect", sweep, cwd=folder)
    assert nothing.returncode == 2
    assert "not made yet" in nothing.stderr


# --- schedulers ----------------------------------------------------------------------------------------------


def jobs_of(environment: dict[str, str]) -> list[str]:
    """Numbers of the jobs that wait or run."""
    line = ["squeue", "--noheader", "--format=%A"]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
def test_the_slurm_script_makes_the_same_bundles(folder: Path, slurm: dict[str, str]) -> None:
    script, sweep = folder / "a sweep.sh", folder / "an out"
    asked = (*SWEEP, "--sparsity", "0.5,0.75,0.9", "--out", sweep)
    written = edgerecover(*asked, f"--slurm={script}", "--cpus", "1", "--gpus", "1", cwd=folder)
    assert written.returncode == 0, written.stderr

    subprocess.run(["bash", "-n", script], check=True)
    root = str(Path(__file__).parents[2])
    environment = {**slurm, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    handed = subprocess.run(
        ["bash", script, "--partition=all", "--time=10"],
        env=environment, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert handed.returncode == 0, handed.stderr
    last_job = handed.stdout.split()[-1]
    until = time.monotonic() + 600
    while last_job in jobs_of(environment):
        assert time.monotonic() < until, jobs_of(environment)
        time.sleep(0.3)
    logs = sorted(sweep.glob("slurm-*.log"))
    said = "\n".join(path.read_text() for path in logs)
    assert len(logs) == 4, said
    assert said.count("  synthesize: ") == 1
    assert "unstructured 75 %" in said
    found = json.loads((sweep / "sweep.json").read_text())["found"]
    assert all(point["bundle"] and point["latency"] for point in found)

    # The same sweep at a desk finds it all done.
    desk = edgerecover(*asked, cwd=folder)
    assert desk.returncode == 0, desk.stderr
    assert desk.stderr.count("finished earlier") == 3


def test_a_script_for_one_point_waits_for_nothing_else(tmp_path: Path) -> None:
    jobs = Jobs(("python", "a b"), ("python", "c"), 1, tmp_path, tmp_path)
    script = tmp_path / "s.sh"
    script.write_text(slurm_script(jobs, script))
    subprocess.run(["bash", "-n", script], check=True)
    assert "--array=1" not in script.read_text()
    assert "gpus" not in script.read_text()


def test_a_tasks_command_has_none_of_the_flags_that_hand_out_tasks() -> None:
    line = ["sweep", "m.pt", "--slurm", "f.sh", "--json", "-t", "x", "--cpus=4", "--gpus", "2", "--ray", "--seed", "1"]
    kept = without(line, {"--slurm": 1, "--ray": 0, "--json": 0, "--cpus": 1, "--gpus": 1})
    assert kept == ("sweep", "m.pt", "-t", "x", "--seed", "1")


@pytest.mark.slow
def test_points_are_made_on_a_ray_cluster(folder: Path) -> None:
    """In a process of its own: Ray leaves threads and open files behind."""
    pytest.importorskip("ray")
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        # On a busy machine its workers take longer to start than it waits for them, and it starts others in vain.
        "RAY_worker_register_timeout_seconds": "600",
    }
    line = [
        sys.executable,
        "-m",
        "edgerecover",
        *SWEEP,
        "--sparsity",
        "0.5,0.9",
        "--out",
        "out",
        "--ray",
        "--cpus",
        "1",
    ]
    done = subprocess.run(
        [*line, "--json"], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode == 3 and "no cluster answers" in done.stderr:
        pytest.skip("Ray did not start on this machine in its own time limit")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["found"]
    assert all(point["bundle"] and point["latency"] for point in found)


def test_ray_is_asked_for_where_it_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = edgerecover(*SWEEP, "--sparsity", "0.5", "--ray", cwd=folder)
    assert done.returncode == 3
    assert "pip install 'edgerecover[ray]'" in done.stderr
    assert not (folder / "dense.onnx-generic.sweep").exists()
