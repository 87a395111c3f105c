import dataclasses
import xml.etree.ElementTree as ElementTree
from datetime import datetime

import pytest

from edgerecover.artifacts import Gate, GateResult, GateStatus
from edgerecover.errors import BadInputError
from edgerecover.gate.annotations import annotation_of_error, annotations_of
from edgerecover.gate.junit import junit, junit_of_error
from edgerecover.gate.markdown import markdown, markdown_of_error
from edgerecover.gate.opening import release_of

ODD = 'a|b <script>alert(1)</script> & "q" \x1b[2J\x00\n100 %, x: y ` ]]> \udce4 \ufffe ::error::'


def gate(name, status, message, measured=1.0):
    return Gate(name, status, measured, 5.0, "at most", "%", "profile toy", message)


@pytest.fixture
def result(make_report):
    release = release_of(make_report(), "toy.bundle", "ab" * 32)
    gates = (
        gate("agreement_kept", GateStatus.PASS, "all is well"),
        gate("latency_regression", GateStatus.FAIL, "too slow"),
        gate("accuracy_kept", GateStatus.INCONCLUSIVE, "who knows"),
        gate("memory_regression", GateStatus.SKIP, "no baseline", None),
        gate("latency_p99", GateStatus.NEEDS_DEVICE, "elsewhere"),
    )
    return GateResult(
        "0.1.0",
        "2026-03-01T09:30:00+00:00",
        release,
        None,
        gates,
        None,
        None,
        None,
        ("baseline.json was written",),
        3.5,
    )


def with_odd_names(result):
    """As a hostile bundle names things."""
    gates = tuple(dataclasses.replace(gate, message=ODD, name=ODD) for gate in result.gates)
    return dataclasses.replace(
        result, gates=gates, release=dataclasses.replace(result.release, bundle=ODD, target=ODD), notes=(ODD,)
    )


# --- JUnit: what the schemas of Jenkins (junit-10.xsd) and of Apache Ant's readers ask alike ------------------

SUITE = {"name", "timestamp", "tests", "failures", "errors", "skipped", "time"}
CASE = {"name", "classname", "time"}
OUTCOMES = {"failure", "error", "skipped", "system-out"}


def check(content):
    """The document, if it has the shape that readers of JUnit XML expect; they differ in what they let pass."""
    root = ElementTree.fromstring(content)
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    assert suite.attrib.keys() == SUITE
    assert root.attrib.keys() == SUITE - {"timestamp"}
    datetime.strptime(suite.get("timestamp"), "%Y-%m-%dT%H:%M:%S")
    assert float(suite.get("time")) >= 0
    assert [child.tag for child in suite][:1] == ["properties"]
    assert {child.tag for child in suite[0]} <= {"property"}
    assert all(child.attrib.keys() == {"name", "value"} for child in suite[0])
    cases = suite[1:]
    assert {case.tag for case in cases} == {"testcase"}
    counted = dict.fromkeys(("failure", "error", "skipped"), 0)
    for case in cases:
        assert case.attrib.keys() == CASE
        assert len(case) == 1
        (outcome,) = case
        assert outcome.tag in OUTCOMES
        assert outcome.attrib.keys() == {"failure": {"message", "type"}, "error": {"message", "type"},
                                         "skipped": {"message"}, "system-out": set()}[outcome.tag]  # fmt: skip
        if outcome.tag in counted:
            counted[outcome.tag] += 1
    written = [int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")]
    assert written == [len(cases), counted["failure"], counted["error"], counted["skipped"]]
    return cases


def test_each_gate_is_a_test_case(result):
    cases = check(junit(result))
    assert [(case.get("name"), case[0].tag) for case in cases] == [
        ("agreement_kept", "system-out"), ("latency_regression", "failure"), ("accuracy_kept", "error"),
        ("memory_regression", "skipped"), ("latency_p99", "skipped"),
    ]  # fmt: skip
    assert cases[1][0].get("message") == cases[1][0].text == "too slow"
    assert {case.get("classname") for case in cases} == {"edgerecover.gate.toy"}


def test_names_that_xml_cannot_hold_are_written_without_what_it_cannot(result):
    cases = check(junit(with_odd_names(result)))
    message = cases[1][0].get("message")
    assert '<script>alert(1)</script> & "q" [2J' in message
    assert "\x1b" not in message


def test_an_error_is_a_test_case_that_could_not_be_run():
    content = junit_of_error("toy.bundle", BadInputError(ODD, hint="do that"), "2026-03-01T09:30:00+00:00")
    (case,) = check(content)
    assert (case[0].tag, case[0].get("type")) == ("error", "BadInputError")
    assert case[0].text.endswith("do that")


# --- Markdown -------------------------------------------------------------------------------------------------


def test_the_summary_has_the_verdict_and_a_row_for_each_gate(result):
    text = markdown(result)
    assert text.splitlines()[0] == "## ❌ FAIL: toy.bundle for toy"
    assert "| ❌ FAIL | latency\\_regression | 1 %, at most 5 % | too slow |" in text
    assert "| ⏭️ SKIP | memory\\_regression | –, at most 5 % | no baseline |" in text
    assert "> baseline.json was written" in text


def test_no_name_breaks_out_of_its_cell(result):
    text = markdown(with_odd_names(result))
    assert "<script>" not in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 5
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}


def test_an_error_is_a_heading(result):
    text = markdown_of_error("toy.bundle", BadInputError("a <b>", hint="do that"))
    assert text.splitlines() == ["## ❌ ERROR: toy.bundle", "", "a &lt;b&gt;", "", "Next: do that"]


# --- annotations ----------------------------------------------------------------------------------------------


def unescaped(line):
    """As actions/runner reads a command: src/Runner.Common/ActionCommand.cs, as its tests describe it."""
    assert line.startswith("::")
    head, _, data = line[2:].partition("::")
    command, _, properties = head.partition(" ")

    def plain(text, pairs):
        for code, character in pairs:
            text = text.replace(code, character)
        return text

    of_data = [("%0D", "\r"), ("%0A", "\n"), ("%25", "%")]
    of_property = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")]
    given = dict(pair.split("=", 1) for pair in properties.split(","))
    return command, {key: plain(value, of_property) for key, value in given.items()}, plain(data, of_data)


def test_each_gate_that_did_not_pass_is_an_annotation(result):
    assert [unescaped(line) for line in annotations_of(result)] == [
        ("error", {"title": "edgerecover gate: latency_regression fail"}, "too slow"),
        ("warning", {"title": "edgerecover gate: accuracy_kept inconclusive"}, "who knows"),
        ("notice", {"title": "edgerecover gate: memory_regression skip"}, "no baseline"),
        ("notice", {"title": "edgerecover gate: latency_p99 needs the device"}, "elsewhere"),
    ]


def test_no_name_becomes_a_command_of_its_own(result):
    lines = list(annotations_of(with_odd_names(result)))
    assert len(lines) == 4
    for line in lines:
        assert line.isprintable()
        command, properties, message = unescaped(line)
        assert command in ("error", "warning", "notice")
        assert properties.keys() == {"title"}
        assert "100 %, x: y" in properties["title"]
        assert "\n100 %, x: y" in message


def test_an_error_is_one_line():
    line = annotation_of_error(BadInputError("a\nb: 50 %", hint="do that"))
    assert unescaped(line) == ("error", {"title": "edgerecover gate"}, "a\nb: 50 %\ndo that")
