"""A wrong file is reported with file, line and key."""

import pytest

from edgerecover.config import load_target, read_toml
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
    assert "docs/reference/targets.md" in error.value.hint


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
