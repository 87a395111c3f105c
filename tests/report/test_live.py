import io
import re

import pytest
from rich.console import Console

from edgerecover.report.live import Bars, Lines, live_progress


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def plain(width=80, **environment):
    return Console(file=io.StringIO(), force_terminal=bool(environment), _environ=environment, width=width)


def terminal(width=80, **environment):
    return Console(
        file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm", **environment}, width=width, height=25
    )


def worked(console, clock):
    progress = live_progress(console, clock)
    with progress.task("synthesize", 2000, "dreams") as task:
        for _ in range(3):
            clock.now_s += 20
            task.advance(500, loss=3.14159)
        clock.now_s += 20
        task.advance(500, loss=0.25, agreement=0.9)
    progress.note("dreams [reused] from an earlier run")
    progress.close()
    return console.file.getvalue()


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}], ids=["no terminal", "dumb terminal"])
def test_elsewhere_than_on_a_terminal_lines_are_plain(environment, clock):
    lines = worked(plain(40, **environment), clock).splitlines()
    assert lines == [
        "  synthesize: 50%, 25/s, about 40 s left, loss 3.14",
        "  synthesize: 2,000 dreams in 80 s (25/s), loss 0.25 agreement 0.9",
        "  dreams [reused] from an earlier run",
    ]


def test_on_a_terminal_a_bar_moves_and_is_replaced_by_one_line(clock):
    text = worked(terminal(), clock)
    assert "75%" in text
    assert "25/s" in text
    assert "loss 3.14" in text
    assert "left 0:20" in text
    assert "\x1b[2K" in text  # the bar is erased again
    assert "synthesize: 2,000 dreams in 80 s (25/s)" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_no_colour_where_none_is_wanted(clock):
    text = worked(terminal(NO_COLOR="1"), clock)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;m]", text)  # colours; bold, dim and the cursor may stay


def test_bars_keep_to_80_columns(clock):
    console = terminal()
    progress = live_progress(console, clock)
    with progress.task("quantisation of all", 1e6, "steps") as task:
        for number in range(1, 4):
            clock.now_s += 4000
            task.advance(1234, loss=1234.5678, agreement=0.123456, points_lost=12.3456 * number)
    progress.close()
    drawn = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue()))
    bars = [line.rstrip() for line in drawn if "%" in line and "left" in line]
    assert bars
    assert max(map(len, bars)) <= 80
    assert all(len(re.findall(r"\d:\d\d:\d\d", bar)) == 2 for bar in bars)  # none is cut off


def test_tasks_inside_each_other_and_stages_without_any(clock):
    console = terminal()
    progress = live_progress(console, clock)
    assert isinstance(progress, Bars)
    progress.began("export")
    clock.now_s += 5
    progress.tick()
    progress.ended("export", 5.0, False)
    progress.began("recover")
    with progress.task("distill", 10, "steps") as outer:
        outer.advance(5)
        with progress.task("refresh", 4, "dreams") as inner:
            clock.now_s += 3
            inner.advance(4)
        outer.advance(5)
    progress.ended("recover", 3.0, False)
    progress.close()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    said = [line.strip() for line in text.splitlines() if " in " in line or "export: " in line]
    assert said[0].endswith("export: 5.0 s")
    assert [re.sub(r"^.*(refresh|distill):", r"\1:", line) for line in said[1:]] == [
        "refresh: 4 dreams in 3.0 s (1.3/s)",
        "distill: 10 steps in 3.0 s (3.3/s)",
    ]


@pytest.mark.parametrize("console", [plain, terminal])
def test_an_interrupted_task_claims_nothing(console, clock):
    console = console()
    progress = live_progress(console, clock)

    def interrupted():
        with progress.task("distill", 10, "steps") as task:
            task.advance(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    progress.close()
    assert "steps in" not in console.file.getvalue()


def test_silence_is_broken_now_and_then(clock):
    """An engine that builds for an hour advances once, at its end; a stage without a task never does."""
    console = plain()
    progress = live_progress(console, clock)
    assert isinstance(progress, Lines)
    progress.began("export")
    for _ in range(70):
        clock.now_s += 1
        progress.tick()
    progress.ended("export", 70.0, False)
    progress.began("engine")
    with progress.task("build engine", 1, "engine") as task:
        for _ in range(70):
            clock.now_s += 1
            progress.tick()
        task.advance()
    assert [line.strip() for line in console.file.getvalue().splitlines()] == [
        "export: 30 s so far",
        "export: 60 s so far",
        "build engine: 0%, 30 s so far",
        "build engine: 0%, 60 s so far",
        "build engine: 1 engine in 70 s",
    ]


def test_a_stage_that_took_long_and_said_nothing_gets_a_line(clock):
    console = plain()
    progress = live_progress(console, clock)
    for name, seconds in (("load", 0.2), ("export", 4.6)):
        progress.began(name)
        progress.ended(name, seconds, False)
    progress.began("synthesize")
    progress.note("reused")
    progress.ended("synthesize", 3.0, True)
    assert console.file.getvalue().split("\n") == ["  export: 4.6 s", "  reused", ""]


def test_what_a_stage_did_at_once_and_without_a_finding_gets_no_line(clock):
    console = plain()
    progress = live_progress(console, clock)
    progress.began("recover")
    for title, numbers in (("statistics", {}), ("agreement", {"agreement": 0.957})):
        with progress.task(title, 10, "images") as task:
            clock.now_s += 0.1
            task.advance(10, **numbers)
    assert console.file.getvalue() == "  agreement: 10 images in 0.1 s (100/s), agreement 0.957\n"
