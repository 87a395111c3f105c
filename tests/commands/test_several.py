"""`torchrun -m edgerecover run`: one bundle, one voice, and an end that says why, with everything kept."""

import json
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from edgerecover.bundle.verify import verify_bundle
from edgerecover.demo import demo_files
from edgerecover.distributed import ALONE, check_same
from tests.processes import environment, free_port, torchrun

PROFILE = """
name = "small"
description = "as little as several processes can share"
extends = "smoke"
[synthesis]
num_train = 48
num_calibration = 16
num_held_back = 16
batch_size = 8
num_steps = {num_steps}
[recovery]
num_steps = 4
batch_size = 16
[latency]
num_warmup = 1
min_queries = 4
min_duration_s = 0.0
"""
RUN = (
    *("--teacher", "dense.pt", "-t", "onnx-generic", "-p", "small.toml", "--precision", "fp32", "--device", "cpu"),
    *(
        "--arch",
        "edgerecover.demo.network:digits_net",
        "--input-shape",
        "1,8,8",
        "--mean",
        "0",
        "--std",
        "1",
        "--out",
        "out",
        "--json",
    ),
)

MADE = ({0}, {5})
"""Exit codes of a bundle: whether four steps helped, 16 images may leave open, and that is not what is asked here."""

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("accelerate")
    files = demo_files()
    torch.save(load_file(files.pruned), tmp_path / "model.pt")
    torch.save(load_file(files.dense), tmp_path / "dense.pt")
    (tmp_path / "small.toml").write_text(PROFILE.format(num_steps=3))
    return tmp_path


def started(folder, command):
    """Standard output and error go to files: a killed process must not leave a pipe open."""
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(list(map(str, command)), cwd=folder, env=environment(), stdout=stdout, stderr=stderr)


def ended(process, folder):
    code = process.wait(timeout=300)
    return code, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def agent(port):
    """What is started on each of two nodes."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    return [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nnodes", "2", *rendezvous]


def said(stderr):
    """Ours, without what torchrun says; folded lines joined."""
    return " ".join(stderr.split())


def shell(script):
    """Each process with its own RANK."""
    return ["bash", "-c", script]


def test_processes_of_two_nodes_make_one_bundle_and_speak_with_one_voice(folder):
    """Two of torchrun's agents that find each other over the network, as on two machines."""
    port = free_port()
    nodes = [
        subprocess.Popen(
            [*agent(port), sys.executable, "-m", "edgerecover", "run", "model.pt", *RUN],
            cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said_by = [node.communicate(timeout=300) for node in nodes]
    stdout, stderr = ("".join(parts) for parts in zip(*said_by, strict=True))
    assert {node.returncode for node in nodes} in MADE, stderr
    report = json.loads(stdout)
    assert "2 processes" in report["device"]
    assert report["synthetic"]["num_train"] == 48
    assert verify_bundle(folder / "out").manifest
    assert stderr.count("synthesize:") == 1
    assert not list((folder / ".edgerecover").glob("rank-*"))

    # Recovered once: one process goes on from it.
    again = subprocess.run(
        [sys.executable, "-m", "edgerecover", "run", "model.pt", *RUN],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert {again.returncode} in MADE, again.stderr
    reused = {stage["stage"]: stage["reused"] for stage in json.loads(again.stdout)["stages"]}
    assert reused["synthesize"]
    assert reused["recover"]


def test_a_killed_process_ends_the_run_with_a_message_and_what_it_had(folder):
    (folder / "small.toml").write_text(PROFILE.format(num_steps=400))
    command = [*torchrun(2), sys.executable, "-m", "edgerecover", "run", "model.pt", *RUN]
    process = started(folder, command)
    until = time.monotonic() + 240
    while len(list(folder.glob(".edgerecover/dreams-*/*.json"))) < 2:
        assert process.poll() is None, (folder / "stderr").read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    second = next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.environ().get("RANK") == "1" and "edgerecover" in child.cmdline()
    )
    second.kill()
    code, stdout, stderr = ended(process, folder)
    assert code != 0
    assert stdout == ""
    assert "one of them was killed, ran out of memory or lost its node" in said(stderr)
    assert "finished work is kept in" in said(stderr)
    assert "edgerecover/commands.run.py" not in stderr  # torchrun shows a trace of its own, and of nothing of ours
    assert not (folder / "out").exists()

    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob(".edgerecover/dreams-*/*.npy")}
    assert len(kept) >= 2
    again = subprocess.run(
        [sys.executable, "-m", "edgerecover", "run", "model.pt", *RUN],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert {again.returncode} in MADE, again.stderr
    assert "reusing" in said(again.stderr)
    now = {path.name: path.stat().st_mtime_ns for path in folder.glob(".edgerecover/dreams-*/*.npy")}
    assert {name: now[name] for name in kept} == kept
    assert verify_bundle(folder / "out").manifest


def test_what_goes_wrong_in_another_process_is_said_by_the_first(folder):
    """The second may write files of a kilobyte alone: its first shard does not fit."""
    line = f"{sys.executable} -m edgerecover run model.pt {' '.join(RUN)}"
    script = f'if [ "$RANK" = 1 ]; then ulimit -f 1; fi; exec {line}'
    (folder / "small.toml").write_text(PROFILE.format(num_steps=3).replace("batch_size = 8", "batch_size = 40"))
    code, stdout, stderr = ended(started(folder, [*torchrun(2), *shell(script)]), folder)
    assert code != 0
    assert stdout == ""
    assert "process 1 of 2, on" in said(stderr), stderr
    assert "File too large" in said(stderr)
    assert stderr.count("error:") - stderr.count("_error") <= 2  # ours once; torchrun has a line of its own


def test_processes_with_different_files_are_refused(folder):
    torch.save(load_file(demo_files().dense), folder / "model1.pt")
    torch.save(load_file(demo_files().pruned), folder / "model0.pt")
    script = f"exec {sys.executable} -m edgerecover run model$RANK.pt {' '.join(RUN)}"
    code, stdout, stderr = ended(started(folder, [*torchrun(2), *shell(script)]), folder)
    assert code != 0
    assert stdout == ""
    assert "the student differs between the processes of this run: process 0 has another than 1" in said(stderr)


def test_what_is_wrong_with_the_line_is_said_once(folder):
    command = [*torchrun(2), sys.executable, "-m", "edgerecover", "run", "nowhere.pt", *RUN]
    code, _, stderr = ended(started(folder, command), folder)
    assert code != 0
    assert stderr.count("nowhere.pt does not exist") == 1


def test_what_is_for_one_process_is_refused_in_several(folder):
    alone = [sys.executable, "-m", "edgerecover", "targets", "list"]
    several = {**environment(), "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    done = subprocess.run(alone, env=several, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "`targets` cannot run in 2 processes" in said(done.stderr)


def test_one_process_is_the_same_as_itself():
    check_same(ALONE, "the teacher", "a digest")


STUCK = """
import os, signal, sys, threading, time
from pathlib import Path
from edgerecover.distributed import joined
with joined("cpu", Path("."), lambda error: print(error.message, error.hint, flush=True)) as ranks:
    if ranks.is_first:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        ranks.wait()
    else:
        time.sleep(600)
"""


def test_a_process_that_is_stuck_in_a_library_is_heard_all_the_same(tmp_path):
    """As in NCCL, which may wait for a dead process for ever: the handler of a signal does not run there."""
    pytest.importorskip("accelerate")
    (tmp_path / "stuck.py").write_text(STUCK)
    code, stdout, stderr = ended(started(tmp_path, [*torchrun(2), sys.executable, "stuck.py"]), tmp_path)
    assert code != 0
    assert stdout.startswith("this run of 2 processes was cut off"), stderr
    assert "finished work is kept in ." in stdout
