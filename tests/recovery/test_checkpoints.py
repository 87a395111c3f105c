import pytest
import torch

from edgerecover.progress import Silent
from edgerecover.recovery import checkpoints as module
from edgerecover.recovery.checkpoints import Checkpoint, Checkpoints, State, gather, part_of, restore


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, message, **numbers):
        self.lines.append(message)


def state(number):
    return State({"weight": torch.full((2, 3), float(number))}, {"step": number, "rng": {"state": 2**127 + number}})


def paths(folder):
    return sorted(folder.glob("*.safetensors"))


def test_the_newest_is_read_back_whole(tmp_path):
    written = Checkpoint(tmp_path, "loop")
    for number in range(4):
        written.write(state(number))
    assert len(paths(tmp_path)) == 2
    found = Checkpoint(tmp_path, "loop").read()
    assert found.facts == state(3).facts
    assert torch.equal(found.tensors["weight"], state(3).tensors["weight"])
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"] * 2


def test_tensors_come_back_in_the_layout_that_they_had(tmp_path):
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    scalar = torch.tensor(3.0)
    Checkpoint(tmp_path, "loop").write(State({"images": images, "scalar": scalar, "turned": torch.rand(3, 5).T}))
    found = Checkpoint(tmp_path, "loop").read().tensors
    assert found["images"].stride() == images.stride()
    assert found["turned"].stride() == (1, 5)
    assert torch.equal(found["images"], images)
    assert torch.equal(found["scalar"], scalar)


DAMAGE = {
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path, damage):
    written = Checkpoint(tmp_path, "loop")
    for number in (1, 2):
        written.write(state(number))
    newest = paths(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    notes = Notes()
    again = Checkpoint(tmp_path, "loop", progress=notes)
    assert again.read().facts["step"] == 1
    assert len(notes.lines) == 1
    assert str(newest) in notes.lines[0]
    assert not newest.exists()
    again.write(state(3))
    assert Checkpoint(tmp_path, "loop").read().facts["step"] == 3


def test_a_whole_one_of_another_format_or_that_does_not_fit_is_left_out(tmp_path, monkeypatch):
    written = Checkpoint(tmp_path, "loop")
    for number in (1, 2):
        written.write(state(number))
    assert Checkpoint(tmp_path, "loop").read(lambda found: found.facts["step"] == 1).facts["step"] == 1
    monkeypatch.setattr(module, "_FORMAT", module._FORMAT + 1)
    assert Checkpoint(tmp_path, "loop").read() is None
    assert paths(tmp_path) == []


def test_loops_have_their_own_and_none_without_a_folder(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.of("one").write(state(1))
    assert kept.of("two").read() is None
    assert kept.under("deeper").of("one").read() is None
    kept.of("one").discard()
    assert kept.of("one").read() is None
    nothing = Checkpoints().of("one")
    nothing.write(state(1))
    assert nothing.read() is None
    assert not nothing.is_due()
    kept.discard()
    assert not tmp_path.exists()


def test_time_decides_when_and_a_slow_disk_is_written_to_less(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    checkpoint = Checkpoint(tmp_path, "loop", every_s=60.0)
    assert not checkpoint.is_due()
    now[0] += 60
    assert checkpoint.is_due()

    def slowly(path, content):
        now[0] += 3.0
        path.write_bytes(content)

    monkeypatch.setattr(module, "replace_file", slowly)
    checkpoint.write(state(1))
    now[0] += 299
    assert not checkpoint.is_due()
    now[0] += 1
    assert checkpoint.is_due()


def test_the_seconds_before_an_interruption_count(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    first = Checkpoint(tmp_path, "loop")
    now[0] += 50.0
    first.write(state(1))
    now[0] += 1000.0
    second = Checkpoint(tmp_path, "loop")
    second.read()
    now[0] += 7.0
    assert second.seconds == 57.0


class Counter:
    def __init__(self, value):
        self.value = value

    def state(self):
        return State({"value": torch.tensor(self.value)}, {"odd": self.value % 2 == 1})

    def restore(self, state):
        self.value = int(state.tensors["value"])


def test_parts_are_gathered_and_put_back_by_name():
    parts = {"a": Counter(3), "b": Counter(4)}
    state = gather(parts)
    assert part_of(state, "a").facts == {"odd": True}
    parts["a"].value = parts["b"].value = 0
    restore(parts, state)
    assert (parts["a"].value, parts["b"].value) == (3, 4)


def test_ctrl_c_writes_what_was_done_since_the_last_one(tmp_path):
    checkpoint = Checkpoint(tmp_path, "loop")
    with pytest.raises(KeyboardInterrupt), checkpoint.write_on_interrupt(lambda: state(5)):
        raise KeyboardInterrupt
    assert Checkpoint(tmp_path, "loop").read().facts["step"] == 5
    with pytest.raises(ZeroDivisionError), checkpoint.write_on_interrupt(lambda: state(6)):
        raise ZeroDivisionError
    assert Checkpoint(tmp_path, "loop").read().facts["step"] == 5
