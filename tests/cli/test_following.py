"""Commands as they are followed: on stderr, in the log of the work folder, and as events."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgerecover.cli import main
from edgerecover.cli.following import following
from edgerecover.demo import demo_files

ROOT = Path(__file__).resolve().parents[2]
SAID = (
    "--teacher", "dense.pt", "--arch", "edgerecover.demo.network:digits_net", "--input-shape", "1,8,8",
    "--mean", "0.3052", "--std", "0.3757", "-p", "smoke",
)  # fmt: skip


@pytest.fixture
def digits(tmp_path, monkeypatch):
    files = demo_files()
    torch.save(load_file(files.pruned), tmp_path / "model.pt")
    torch.save(load_file(files.dense), tmp_path / "dense.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edgerecover(*arguments):
    """Exit code, stdout and stderr of the command line in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["edgerecover", *map(str, arguments)])
        patch.setenv("NO_COLOR", "1")
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0, stdout.getvalue(), stderr.getvalue()


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_shows_no_progress_and_keeps_the_log_and_errors(quiet, digits, capsys):
    with (
        following("record", work=digits / "work", quiet=quiet) as progress,
        progress.task("images", 1, "images") as task,
    ):
        task.advance()
        progress.note("a note")
    assert ("a note" in capsys.readouterr().err) is not quiet
    (log,) = (digits / "work" / "logs").glob("*.log")
    assert "a note" in log.read_text(encoding="utf-8")
    code, stdout, stderr = edgerecover("doctor", "-t", "zzz", *["--quiet"] * quiet)
    assert (code, stdout) == (2, "")
    assert "unknown target 'zzz'" in stderr


def events_of(text):
    return [json.loads(line) for line in text.splitlines()]


def logs(folder):
    return sorted(folder.glob(".edgerecover/logs/*.log"))


def test_a_run_tells_people_the_log_and_machines(digits):
    line = ("run", "-t", "onnx-generic", "model.pt", *SAID, "--json", "--events", "progress.jsonl")
    code, stdout, stderr = edgerecover(*line)
    assert code == 0, stderr
    report = json.loads(stdout)  # nothing but the result

    events = events_of((digits / "progress.jsonl").read_text(encoding="utf-8"))
    assert (events[0]["event"], events[0]["command"], events[0]["arguments"]) == ("run_started", "run", list(line))
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("run_ended", 0)
    for name in ("stage_started", "stage_ended"):
        told = [e["stage"] for e in events if e["event"] == name]
        assert told == [*(s["stage"] for s in report["stages"]), "bundle"]  # which the report is a part of
    tasks = {e["title"]: e for e in events if e["event"] == "task_ended"}
    assert tasks.keys() >= {"synthesize", "statistics", "least squares", "distill", "agreement", "latency", "judge"}
    for task in tasks.values():
        assert task["finished"]
        assert task["done"] == pytest.approx(task["total"], rel=1e-4), task["title"]
    assert tasks["synthesize"]["total"] == sum(
        report["synthetic"][f"num_{s}"] for s in ("train", "calibration", "held_back")
    )
    assert "loss" in tasks["distill"]["numbers"]
    rungs = [e["numbers"]["agreement"] for e in events if e["event"] == "note" and "agreement" in e["numbers"]]
    assert rungs == pytest.approx([rung["agreement"] for rung in report["rungs"]], abs=1e-5)

    (log,) = logs(digits)
    written = log.read_text(encoding="utf-8")
    for words in ("model.pt", "synthesize", "distill: ", "ended with exit code 0"):
        assert words in written
    for words in ("synthesize: ", "distill: ", "loss"):
        assert words in stderr
    assert max(map(len, stderr.splitlines())) <= 100
    assert "\x1b" not in stderr


def test_an_error_says_where_the_log_is(digits):
    """What goes wrong after the first stage; the trace is in the log alone."""
    (digits / "bad.toml").write_text(
        'extends = "smoke"\nname = "bad"\ndescription = "diverges"\n[synthesis]\nlr = 1e30\nclamp = 1e30\n'
    )
    code, stdout, stderr = edgerecover(
        "run", "-t", "onnx-generic", "model.pt", *SAID, "-p", "bad.toml", "--events", "e"
    )
    assert code == 70, stderr
    assert stdout == ""
    (log,) = logs(digits)
    assert "log:" in stderr
    assert log.name in stderr
    assert "Traceback" not in stderr
    assert "Traceback" in log.read_text(encoding="utf-8")
    *_, error, ended = events_of((digits / "e").read_text(encoding="utf-8"))
    assert (error["event"], error["stage"], error["exit_code"]) == ("error", "synthesize", 70)
    assert (ended["event"], ended["exit_code"]) == ("run_ended", 70)


def test_bad_input_is_told_and_leaves_no_log(digits):
    code, _, stderr = edgerecover("run", "-t", "onnx-generic", "model.pt", *SAID[2:], "--events", "e")
    assert code == 2
    assert "log:" not in stderr
    assert not (digits / ".edgerecover").exists()
    events = events_of((digits / "e").read_text(encoding="utf-8"))
    assert [e["event"] for e in events] == ["run_started", "stage_started", "error", "run_ended"]
    assert (events[2]["kind"], events[2]["stage"]) == ("BadInputError", "load")
    assert "teacher" in events[2]["message"]


def test_events_on_stderr_are_alone_there(digits):
    code, stdout, stderr = edgerecover("synthesize", "dense.pt", "-o", "images", *SAID[2:], "--events", "-", "--json")
    assert code == 0
    events = events_of(stderr)
    assert (events[0]["command"], events[-1]["event"]) == ("synthesize", "run_ended")
    assert json.loads(stdout)["files"]
    assert logs(digits)


def test_events_that_cannot_be_written_are_refused_first(digits):
    before = {path.name for path in digits.iterdir()}
    code, stdout, stderr = edgerecover("run", "-t", "onnx-generic", "model.pt", *SAID, "--events", "no/such/folder")
    assert (code, stdout) == (2, "")
    assert "--events no/such/folder" in stderr
    assert {path.name for path in digits.iterdir()} == before


@pytest.mark.slow
def test_a_failed_gate_is_the_last_word(digits):
    (digits / "strict.toml").write_text(
        'extends = "smoke"\nname = "strict"\ndescription = "asks too much"\n[gates]\nmin_agreement = 1.0\n'
    )
    code, _, stderr = edgerecover("run", "-t", "onnx-generic", "model.pt", *SAID, "-p", "strict.toml", "--events", "e")
    assert code == 1, stderr
    events = events_of((digits / "e").read_text(encoding="utf-8"))
    assert events[-1]["exit_code"] == 1
    assert not [e for e in events if e["event"] == "error"]


@pytest.mark.slow
def test_ctrl_c_leaves_log_and_events_whole(digits):
    (digits / "slow.toml").write_text(
        'extends = "smoke"\nname = "slow"\ndescription = "many shards"\n'
        "[synthesis]\nnum_train = 20000\nbatch_size = 16\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "edgerecover", "run", "-t", "onnx-generic", "model.pt", *SAID, "-p", "slow.toml",
         "--events", "e"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background job ignores SIGINT, and so would the child of a test run started as one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while "task_progress" not in ((digits / "e").read_text() if (digits / "e").exists() else ""):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    events = events_of((digits / "e").read_text(encoding="utf-8"))
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("run_ended", 130)
    assert [e["finished"] for e in events if e["event"] == "task_ended"] == [False]
    (log,) = logs(digits)
    assert log.read_text(encoding="utf-8").endswith("ended with exit code 130\n")
    assert "stopped" in log.read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_whoever_reads_the_events_may_go_away(digits):
    os.mkfifo(digits / "pipe")
    reader = subprocess.Popen(["head", "-n", "3", "pipe"], stdout=subprocess.PIPE, text=True)
    code, stdout, stderr = edgerecover(
        "synthesize", "dense.pt", "-o", "images", *SAID[2:], "--events", "pipe", "--json"
    )
    heard, _ = reader.communicate(timeout=60)
    assert code == 0, stderr
    assert json.loads(stdout)["files"]
    assert len(events_of(heard)) == 3
    assert "events could not be written: Broken pipe" in stderr


def test_the_reference_names_every_command_that_is_followed():
    calls = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edgerecover" / "cli").glob("*.py"))
    followed = {*re.findall(r'following\("([^"]+)"', calls), *re.findall(r'run_and_show\("([^"]+)"', calls)}
    page = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `command` \| (.*) \|$", page, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", row)) == followed
