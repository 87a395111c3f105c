import io
import re

import pytest
from rich.console import Console

from edgerecover.report.live import LiveProgress


def worked(console):
    progress = LiveProgress(console)
    with progress.task("synthesize", 2000, "image steps") as task:
        task.advance(1500, loss=3.14159)
        task.advance(500, loss=0.25, agreement=0.9)
    progress.note("dreams [reused] from an earlier run")
    return console.file.getvalue()


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}], ids=["no terminal", "dumb terminal"])
def test_elsewhere_than_on_a_terminal_lines_are_plain(environment):
    console = Console(file=io.StringIO(), force_terminal=bool(environment), _environ=environment, width=40)
    first, second = worked(console).splitlines()
    assert re.fullmatch(r"  synthesize: 2,000 image steps in \d\.\d s, loss 0\.25 agreement 0\.9", first)
    assert second == "  dreams [reused] from an earlier run"


def test_on_a_terminal_a_bar_moves_and_is_replaced_by_one_line():
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"}, width=120)
    text = worked(console)
    assert "100 %" in text
    assert "loss 0.25" in text
    assert "\x1b[2K" in text  # the bar is erased again
    assert re.search(r"synthesize: 2,000 image steps in \d\.\d s", text.splitlines()[-2])


def test_an_interrupted_task_claims_nothing():
    console = Console(file=io.StringIO(), _environ={})

    def interrupted():
        with LiveProgress(console).task("distill", 10, "steps") as task:
            task.advance(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert console.file.getvalue() == ""


def test_a_long_task_reports_where_nobody_watches(monkeypatch):
    seconds = iter(range(0, 1000, 20))
    monkeypatch.setattr("edgerecover.report.live.time.perf_counter", lambda: next(seconds))
    out = io.StringIO()
    with LiveProgress(Console(file=out, width=80)).task("synthesize", 4, "images") as task:
        for _ in range(4):
            task.advance(1, loss=0.5)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[0] == "synthesize: 50%, about 40 s left, loss 0.5"
    assert lines[-1].startswith("synthesize: 4 images in")
