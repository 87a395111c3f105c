import io
import json
import os
import re
from datetime import datetime
from pathlib import Path

import pytest

from edgerecover import __version__
from edgerecover.errors import MissingError
from edgerecover.report.events import SCHEMA_VERSION, Events

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "events.md"


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def told(stream, clock):
    """One of each event."""
    events = Events(stream.write, clock)
    events.run_started("run", ["run", "model.pt"])
    events.began("load")
    clock.now_s += 31
    events.tick()
    events.ended("load", 31.0, False)
    events.began("recover")
    with events.task("distill", 1000, "steps") as task:
        for _ in range(200):
            clock.now_s += 0.1
            task.advance(1, loss=0.123456789)
    events.note("distillation: agrees on 98 %", agreement=0.98)
    events.failed(MissingError("no GPU", hint="buy one"))
    events.run_ended(3)


@pytest.fixture
def lines():
    stream = io.StringIO()
    told(stream, Clock())
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def of(lines, name):
    return [line for line in lines if line["event"] == name]


def test_the_first_and_the_last_event_frame_the_rest(lines):
    assert lines[0] == {
        "event": "run_started",
        "time": lines[0]["time"],
        "schema": SCHEMA_VERSION,
        "edgerecover": __version__,
        "command": "run",
        "arguments": ["run", "model.pt"],
        "pid": os.getpid(),
    }
    assert (lines[-1]["event"], lines[-1]["exit_code"], lines[-1]["seconds"]) == ("run_ended", 3, 51.0)
    for line in lines:
        assert datetime.fromisoformat(line["time"].replace("Z", "+00:00")).tzinfo is not None


def test_a_task_is_told_once_a_second_with_rate_and_what_is_left(lines):
    progress = of(lines, "task_progress")
    assert 18 <= len(progress) <= 21  # of 200 steps in 20 s
    last = progress[-1]
    assert (last["stage"], last["task"], last["title"], last["unit"], last["total"]) == (
        "recover", 1, "distill", "steps", 1000,
    )  # fmt: skip
    assert last["rate_per_s"] == pytest.approx(10, rel=0.01)
    assert last["left_s"] == pytest.approx((1000 - last["done"]) / last["rate_per_s"], rel=0.01)
    assert last["numbers"] == {"loss": 0.123457}
    assert progress[0]["left_s"] is None  # too early to tell
    (ended,) = of(lines, "task_ended")
    assert (ended["done"], ended["finished"]) == (200, True)


def test_stages_notes_and_errors(lines):
    assert [line["stage"] for line in of(lines, "stage_started")] == ["load", "recover"]
    assert of(lines, "stage_progress")[0]["elapsed_s"] == 31
    assert of(lines, "stage_ended")[0]["reused"] is False
    (note,) = of(lines, "note")
    assert (note["stage"], note["numbers"]) == ("recover", {"agreement": 0.98})
    (error,) = of(lines, "error")
    del error["time"]
    assert error == {
        "event": "error", "stage": "recover", "kind": "MissingError", "message": "no GPU", "hint": "buy one",
        "exit_code": 3,
    }  # fmt: skip


def test_an_interrupted_task_ends_unfinished_and_what_is_no_number_is_null():
    stream, clock = io.StringIO(), Clock()
    events = Events(stream.write, clock)

    def interrupted():
        with events.task("distill", 10, "steps") as task:
            clock.now_s += 5
            task.advance(3, loss=float("nan"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    progress, ended = [json.loads(line) for line in stream.getvalue().splitlines()][1:]
    assert progress["numbers"] == ended["numbers"] == {"loss": None}
    assert ended["finished"] is False


def test_a_reader_that_goes_away_ends_nothing():
    heard = []

    def write(line):
        if heard:
            raise BrokenPipeError(32, "Broken pipe")
        heard.append(line)

    events = Events(write, Clock())
    for message in ("one", "two", "three"):
        events.note(message)
    assert len(heard) == 1
    assert isinstance(events.error, BrokenPipeError)


def test_the_reference_names_every_event_and_field(lines):
    page = REFERENCE.read_text(encoding="utf-8")
    documented = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert documented.keys() == {line["event"] for line in lines}
    for line in lines:
        fields = set(re.findall(r"^\| `(\w+)` \|", documented[line["event"]], re.MULTILINE))
        assert fields == line.keys() - {"event", "time"}, line["event"]
    assert f"`schema` is {SCHEMA_VERSION}" in page
