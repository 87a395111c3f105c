import pytest

from edgerecover.artifacts.strict_json import MAX_JSON_BYTES, parse_json, parse_object


def test_json_is_read_as_it_stands():
    assert parse_object('{"a": [1, 2.5, "ä", null, true]}'.encode()) == {"a": [1, 2.5, "ä", None, True]}
    assert parse_json(b"[1]") == [1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "decode"),
        (b'{"a": 1, "a": 1}', "the key 'a' appears twice"),
        (b'{"b": [{"a": 1, "a": 2}]}', "the key 'a' appears twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "the number 1e999 is too large"),
        (b" " * (MAX_JSON_BYTES + 1), "larger than 64 MiB"),
    ],
    ids=["empty", "not UTF-8", "twice", "twice within", "NaN", "infinite", "too large", "too long"],
)
def test_what_two_readers_could_understand_differently_is_refused(content, problem):
    with pytest.raises(ValueError, match=problem):
        parse_json(content)


def test_an_object_is_an_object():
    with pytest.raises(ValueError, match="an object was expected, found list"):
        parse_object(b"[]")
