"""Pickles become trees of plain values and inert records; nothing in them is imported or called."""

import argparse
import collections
import io
import os
import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerecover.models.read import pickles
from edgerecover.models.read.pickles import parse
from edgerecover.models.read.records import Made, Name, Outside, PickleError, printable

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(value=_PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_back_from_every_protocol(value, protocol):
    found = parse(pickle.dumps(value, protocol)).root
    if protocol > 2:  # before, bytes are a call of _codecs.encode
        assert found == value


def test_calls_become_records():
    parsed = parse(pickle.dumps(argparse.Namespace(lr=0.1), 4))
    assert isinstance(parsed.root, Made)
    assert parsed.root.maker == "argparse.Namespace"
    assert parsed.root.state == {"lr": 0.1}
    assert "argparse.Namespace" in parsed.names


def test_dictionaries_of_other_classes_are_dictionaries():
    assert parse(pickle.dumps(collections.OrderedDict(a=1), 2)).root == {"a": 1}
    assert parse(pickle.dumps(collections.defaultdict(list, a=1), 4)).root == {"a": 1}
    counter = parse(pickle.dumps(collections.Counter("aab"), 4)).root
    assert counter.args == ({"a": 2, "b": 1},)


class _Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_run(tmp_path, protocol):
    parsed = parse(pickle.dumps([_Command(f"touch {tmp_path / 'it-ran'}")], protocol))
    assert parsed.root[0].maker == f"{os.name if os.name == 'nt' else 'posix'}.system"
    assert not list(tmp_path.iterdir())


def test_what_holds_itself_is_read():
    inner = []
    inner.append(inner)
    found = parse(pickle.dumps(inner, 2)).root
    assert found[0] is found


def test_several_pickles_follow_each_other():
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert [parse(stream).root, parse(stream).root] == [1, "two"]
    assert stream.read() == b"rest"


def test_references_outside_are_kept_in_order():
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", int(value)) if isinstance(value, float) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump([1.0, 2.0])
    parsed = parse(buffer.getvalue())
    assert [outside.id for outside in parsed.stored] == [("storage", 1), ("storage", 2)]
    assert all(isinstance(item, Outside) for item in parsed.root)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02]",
        b"\x80\x02000.",
        b"\x80\x02]r\xff\xff\xff\xff.",
        b"\x80\x02h\x07.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x02K\x01(K\x01K\x02u.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}K\x01a.",
        b"\x80\x04K\x01K\x02\x93.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02(o.",
        b"\x80\x02t.",
    ],
)
def test_unsound_programs_are_refused(content):
    with pytest.raises(PickleError):
        parse(content)


def test_only_so_many_instructions_are_read(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 100)
    with pytest.raises(PickleError, match="100 instructions"):
        parse(b"\x80\x02(" + b"N" * 200 + b"l.")


def test_keys_that_could_collide_are_left_out():
    found = parse(pickle.dumps({1: "small", (1 << 61) * 7: "large", ("a",): "tuple", 1.5: "float"}, 2)).root
    assert found == {1: "small"}


def test_names_are_made_fit_for_a_terminal():
    assert printable("\x1b[2Jname\x07") == "?[2Jname?"
    assert printable(Name("a", "b" * 200)) == "a." + "b" * 78
    assert printable(10**10_000) == "int"
