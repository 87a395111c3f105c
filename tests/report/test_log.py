import logging
import re
import warnings

import pytest

from edgerecover.errors import BadInputError, StageError
from edgerecover.report.log import KEPT_LOGS, RunLog, libraries_logged

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR|DEBUG) +(\S+) +(.+)")


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    return RunLog(tmp_path / "work" / "logs", "run-1", clock)


def entries(log):
    """Level, stage and message of each entry; a trace's lines are set in."""
    lines = log.path.read_text(encoding="utf-8").splitlines()
    return [LINE.fullmatch(line).groups() for line in lines if not line.startswith("    ")]


def loaded(log):
    log.run_started(["run", "model.pt"])
    log.began("load")
    log.ended("load", 0.3, False)


def test_every_line_has_time_level_and_stage(log, clock):
    loaded(log)
    log.began("synthesize")
    with log.task("synthesize", 100, "dreams") as task:
        for _ in range(8):
            clock.now_s += 10
            task.advance(10, loss=0.5)
    log.note("twenty are missing")
    log.ended("synthesize", 80.0, True)
    log.run_ended(0)
    assert [(level, stage) for level, stage, _ in entries(log)[:4]] == [
        ("INFO", "-"), ("INFO", "-"), ("INFO", "load"), ("INFO", "load"),
    ]  # fmt: skip
    messages = [message for _, _, message in entries(log)]
    assert messages[0].endswith("run model.pt")
    assert messages[4:] == [
        "began",
        "synthesize: 0 of 100 dreams",
        "synthesize: 30 of 100 dreams, about 70 s left, 1.0/s, loss 0.5",
        "synthesize: 60 of 100 dreams, about 40 s left, 1.0/s, loss 0.5",
        "synthesize: 80 of 100 dreams, done after 80 s, 1.0/s, loss 0.5",
        "twenty are missing",
        "ended after 80 s, from an earlier run",
        "ended with exit code 0",
    ]


def test_bad_input_leaves_nothing_behind(log, tmp_path):
    log.run_started(["run", "nothere.pt"])
    log.began("load")
    log.failed(BadInputError("no such file", hint="correct it"))
    log.run_ended(2)
    assert not log.is_kept
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_kept_with_its_trace(log):
    log.began("load")
    try:
        raise StageError("stage load failed: a surprise", hint="report it")
    except StageError as error:
        log.failed(error)
    text = log.path.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "raise StageError" in text
    assert [message for _, _, message in entries(log)][:3] == [
        "began",
        "stage load failed: a surprise",
        "next: report it",
    ]


def test_what_libraries_warn_of_is_in_the_log(log):
    loaded(log)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with libraries_logged(log):
            logging.getLogger("some.library").warning("slow path taken")
            logging.getLogger("some.library").info("not worth a line")
            warnings.warn("old call", DeprecationWarning, stacklevel=1)
        shown = logging.root.handlers[:]
    found = [(level, message) for level, _, message in entries(log)]
    assert ("WARNING", "some.library: slow path taken") in found
    assert any("DeprecationWarning: old call" in message for _, message in found)
    assert not any("not worth" in message for _, message in found)
    assert not any(type(handler).__module__.startswith("edgerecover") for handler in shown)


def test_only_the_latest_logs_are_kept(tmp_path, clock):
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in range(KEPT_LOGS + 5):
        (folder / f"20200101-0000{number:02}-run-1.log").write_text("old")
    (folder / "notes.txt").write_text("the user's own")
    log = RunLog(folder, "run-2", clock)
    loaded(log)
    logs = sorted(path.name for path in folder.glob("*.log"))
    assert len(logs) == KEPT_LOGS
    assert logs[0] == "20200101-000006-run-1.log"
    assert logs[-1] == log.path.name
    assert (folder / "notes.txt").exists()


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, clock):
    (tmp_path / "work").write_text("a file where the folder should be")
    log = RunLog(tmp_path / "work" / "logs", "run-1", clock)
    loaded(log)
    log.note("more")
    assert not log.is_kept
    assert log.error is not None
