import json

import first_report
import pytest


@pytest.fixture
def commands(monkeypatch):
    """What would be run, each in ten seconds."""
    run = []

    def timed(name, command, folder):
        run.append(command)
        if "--events" in command:
            lines = [{"event": "stage_ended", "stage": stage, "seconds": 3.0} for stage in ("load", "recover")]
            events = [{"event": "run_started"}, *lines, {"event": "run_ended", "exit_code": 0}]
            (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
        return first_report.Part(name, 10.0)

    monkeypatch.setattr(first_report, "timed", timed)
    return run


def test_the_demo_is_counted_once_and_split_by_its_stages(commands, tmp_path):
    parts = {
        part.name: part.seconds for part in first_report.measured(tmp_path, "edgerecover", use_cache=False, again=True)
    }
    assert parts == {
        "make an environment": 10.0,
        "pip install": 10.0,
        "`edgerecover demo`": 10.0,
        "… load": 3.0,
        "… recover": 3.0,
        "… starting, importing, showing": 4.0,
        "**to the first report**": 30.0,
        "`edgerecover demo` again": 10.0,
    }
    assert "--no-cache-dir" in commands[1]


def test_a_command_that_fails_ends_the_measurement(tmp_path):
    with pytest.raises(SystemExit, match="ended with 3"):
        first_report.timed("it", [first_report.sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
