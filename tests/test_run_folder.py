import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from edgerecover.errors import EXIT_BAD_INPUT, BadInputError
from edgerecover.progress import Silent
from edgerecover.run_folder import discard, held

HOLD = """
import sys, time
from pathlib import Path
from edgerecover.run_folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, message, **numbers):
        self.lines.append(message)


@contextmanager
def another_process(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_process_says_who_holds_it_and_leaves(tmp_path):
    with another_process(tmp_path) as process:
        with pytest.raises(BadInputError) as raised, held(tmp_path):
            pass
        assert raised.value.exit_code == EXIT_BAD_INPUT
        assert f"process {process.pid} on " in raised.value.message
        assert "UTC: -c" in raised.value.message
        assert "--work" in raised.value.hint
        second = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert second.returncode != 0
        assert f"process {process.pid} on " in second.stderr
    with held(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_folder_of_a_process_that_was_killed_is_taken_over(tmp_path):
    with another_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        notes = Notes()
        with held(tmp_path, progress=notes):
            assert json.loads((tmp_path / "holder.json").read_text())["pid"] == os.getpid()
        (line,) = notes.lines
        assert f"process {process.pid} on " in line
        assert "the last run was interrupted" in line
    with held(tmp_path, progress=notes):
        assert len(notes.lines) == 1, "one that ends leaves no note"


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        raise ZeroDivisionError
    with held(tmp_path / "made" / "when-missing"), held(tmp_path):
        pass


def test_a_folder_that_nothing_was_put_into_is_not_left_behind(tmp_path):
    with held(tmp_path / "refused"):
        pass
    assert not (tmp_path / "refused").exists()
    with held(tmp_path / "used"):
        (tmp_path / "used" / "dreams-1").mkdir()
    with held(tmp_path / "used"):
        pass
    assert sorted(path.name for path in (tmp_path / "used").iterdir()) == ["dreams-1", "lock"]


@pytest.mark.parametrize("note", ["", "[]", '{"pid": "x"}', "\0\0"])
def test_a_note_that_cannot_be_read_costs_the_name_alone(tmp_path, note):
    with another_process(tmp_path):
        (tmp_path / "holder.json").write_text(note)
        with pytest.raises(BadInputError, match="in use by another process"), held(tmp_path):
            pass


def test_a_hostile_note_cannot_steer_the_terminal(tmp_path):
    with another_process(tmp_path):
        note = {"pid": 7, "host": "h\x1b[2J", "since_utc": "now\x1b]0;x\x07", "command": "\x1b[31mrun\u202e"}
        (tmp_path / "holder.json").write_text(json.dumps(note))
        with pytest.raises(BadInputError) as raised, held(tmp_path):
            pass
    assert raised.value.message.isprintable()


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path):
    work, out = tmp_path / "work", tmp_path / "net.bundle"
    (work / "dreams-1").mkdir(parents=True)
    (work / "export-x1").mkdir()
    (work / "export-x1" / "fp32.onnx").write_bytes(b"half")
    leftovers = [work / "dreams-1" / ".train-00000.npy.123.tmp", work / ".holder.json.9.tmp"]
    kept = [work / "dreams-1" / "train-00000.npy", tmp_path / ".other.bundle.ab.partial", tmp_path / "net.tmp"]
    for path in (*leftovers, *kept):
        path.write_bytes(b"half")
    for end in ("partial", "old"):
        (tmp_path / f".net.bundle.0a1b.{end}").mkdir()
    with held(work, out):
        pass
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.bundle.ab.partial", "net.tmp", "work"]
    assert sorted(path.name for path in work.iterdir()) == ["dreams-1", "lock"]


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInputError, match="cannot be written") as raised, held(tmp_path / "file" / "work"):
        pass
    assert "--work" in raised.value.hint


def test_steps_are_discarded(tmp_path):
    step = tmp_path / "dreams-1"
    step.mkdir()
    (step / "file").write_bytes(b"")
    discard(step)
    discard(step)
    assert not step.exists()
