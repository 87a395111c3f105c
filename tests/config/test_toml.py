"""A wrong file is reported with file, line and key."""

import math

import pytest

from edgerecover.config import load_profile, load_target, read_toml, shipped_names
from edgerecover.config.toml import to_toml
from edgerecover.errors import BadInputError


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


def test_an_unknown_key_is_named_with_file_line_and_nearest_key(target_toml):
    line = replace(target_toml, "[max_p99_ms]", "[max_p99_msec]")
    with pytest.raises(BadInputError) as error:
        load_target(str(target_toml))
    assert error.value.message == (f"{target_toml}:{line}: unknown key 'max_p99_msec'; did you mean 'max_p99_ms'?")
    assert "edgerecover help targets" in error.value.hint


def test_an_unknown_key_inside_a_fact_is_found_too(target_toml):
    line = replace(target_toml, "value = 33.3", "value = 33.3\nsauce = 'a cook'") + 1
    with pytest.raises(BadInputError, match=rf":{line}: unknown key 'max_p99_ms.sauce'; did you mean 'source'"):
        load_target(str(target_toml))


def test_a_wrong_value_is_shown_with_its_line(target_toml):
    line = replace(target_toml, "value = 18", "value = 7")
    with pytest.raises(BadInputError, match=rf"mine\.toml:{line}: opset.value: .*13.*\(found 7\)"):
        load_target(str(target_toml))


def test_a_fact_without_a_source_is_refused(target_toml):
    target_toml.write_text(target_toml.read_text(encoding="utf-8") + "\n[memory_gib]\nvalue = 8\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r":\d+: key 'memory_gib.source' is missing"):
        load_target(str(target_toml))


def test_every_fault_gets_a_line_of_its_own(target_toml):
    replace(target_toml, "value = 18", "value = 7")
    replace(target_toml, "value = 33.3", "value = -1")
    with pytest.raises(BadInputError) as error:
        load_target(str(target_toml))
    assert len(error.value.message.splitlines()) == 2


def test_broken_toml_names_file_and_line(target_toml):
    target_toml.write_text('name = "x"\ndescription = \n', encoding="utf-8")
    with pytest.raises(BadInputError, match=r"mine\.toml: is not valid TOML: .*line 2"):
        load_target(str(target_toml))


def test_bytes_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(BadInputError, match="is not UTF-8 text"):
        load_target(str(path))


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read"):
        read_toml(tmp_path)


LOAD = {"targets": load_target, "profiles": load_profile}


@pytest.mark.parametrize(
    "data",
    [
        {"a": 1, "b": 1.5e-7, "c": True, "d": "x", "e": [1, 2], "f": ["p", "q"], "g": []},
        {"t": {"u": {"v": 1}, "w": 2}, "after": 3},
        {"list": [{"a": 1}, {"a": 2, "b": {"c": 3}}]},
        {"text": 'quote " and \\ and\nline\x7f\x01 – ü'},
        {"odd key": 1, "dotted.key": {"é": 2}},
        {"large": math.inf},
    ],
)
def test_what_is_written_reads_as_the_same(data, tmp_path):
    path = tmp_path / "written.toml"
    path.write_text(to_toml(data), encoding="utf-8")
    assert read_toml(path) == data


def test_what_is_none_is_left_out():
    assert to_toml({"a": None, "b": 1}) == "b = 1\n"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in LOAD for name in shipped_names(kind)])
def test_a_shipped_file_written_again_is_the_same(kind, name, tmp_path):
    settings = LOAD[kind](name)
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(settings.model_dump(mode="json")), encoding="utf-8")
    assert LOAD[kind](str(path)) == settings
