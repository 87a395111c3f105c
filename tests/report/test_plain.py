import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from edgerecover.report.plain import make_plain, plain


def test_what_steers_a_terminal_or_turns_text_round_is_written_out():
    assert plain("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert plain("cat\u202egnp.exe") == "cat\\u202egnp.exe"
    assert plain("a\u2066b\u200bc\ufeff") == "a\\u2066b\\u200bc\\ufeff"
    assert plain("\x9b2J") == "\\x9b2J"
    assert plain("\U000e0041") == "\\U000e0041"


def test_ordinary_text_of_any_language_stays():
    for text in ("Löwe, 猫, кот, قط", "two\nlines", "≥ 99 % × 2 – ok", ""):
        assert plain(text) == text


@given(st.text())
def test_it_is_settled_after_once(text):
    assert plain(plain(text)) == plain(text)


def test_every_text_of_a_report_is_reached_and_numbers_are_left(report):
    name = "\x1b[2Jcat"
    hostile = dataclasses.replace(
        report,
        classes=(name,),
        warnings=(name,),
        tool_versions={name: name},
        student=dataclasses.replace(report.student, path=name),
    )
    safe = make_plain(hostile)
    assert "\x1b" not in repr(safe)
    assert safe.classes == safe.warnings == ("\\x1b[2Jcat",)
    assert safe.student.path == "\\x1b[2Jcat"
    assert safe.latency is hostile.latency
    assert make_plain(report) == report
