"""The gates as JUnit XML, as GitHub, GitLab, Jenkins and others read it. Stdlib only.

A gate that fails is a `failure`, one that could not be settled an `error`, one that was skipped or waits for the device
is `skipped`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree  # written, never parsed
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from edgerecover.artifacts import Gate, GateResult, GateStatus
from edgerecover.errors import EdgeRecoverError

_OUTCOME = {
    GateStatus.FAIL: "failure",
    GateStatus.INCONCLUSIVE: "error",
    GateStatus.NEEDS_DEVICE: "skipped",
    GateStatus.SKIP: "skipped",
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(result: GateResult) -> bytes:
    """One test suite with a test case for each gate."""
    release = result.release
    cases = [_case(gate, release.target) for gate in result.gates]
    properties = {
        "bundle": release.bundle,
        "manifest_sha256": release.manifest_sha256,
        "baseline": result.baseline.bundle if result.baseline else "",
        "edgerecover": result.edgerecover_version,
    }
    return _document(cases, properties, result.created_utc, result.seconds)


def junit_of_error(bundle: str, error: EdgeRecoverError, created_utc: str) -> bytes:
    """One test case that could not be run."""
    case = _name("gate", "")
    _outcome(case, "error", type(error).__name__, error.message, error.hint)
    return _document([case], {"bundle": bundle}, created_utc, 0.0)


def _case(gate: Gate, target: str) -> Element:
    case = _name(gate.name, target)
    if outcome := _OUTCOME.get(gate.status):
        _outcome(case, outcome, gate.status.value, gate.message, "")
    else:
        SubElement(case, "system-out").text = _xml(gate.message)
    return case


def _name(name: str, target: str) -> Element:
    classname = f"edgerecover.gate.{target}" if target else "edgerecover.gate"
    return Element("testcase", {"name": _xml(name), "classname": _xml(classname), "time": "0.000"})


def _outcome(case: Element, outcome: str, kind: str, message: str, hint: str) -> None:
    # Of `skipped`, the strictest schemas allow a message alone.
    attributes = {"message": _xml(message)} if outcome == "skipped" else {"message": _xml(message), "type": kind}
    element = SubElement(case, outcome, attributes)
    if outcome != "skipped":
        element.text = _xml("\n".join(part for part in (message, hint) if part))


def _document(cases: Sequence[Element], properties: dict[str, str], created_utc: str, seconds: float) -> bytes:
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    numbers = {name: str(count) for name, count in counts.items()} | {"time": f"{seconds:.3f}"}
    root = Element("testsuites", {"name": "edgerecover gate", **numbers})
    # Without the zone: the schema that most tools follow takes ISO 8601 without one.
    timestamp = _xml(created_utc)[:19]
    suite = SubElement(root, "testsuite", {"name": "edgerecover gate", "timestamp": timestamp, **numbers})
    listed = SubElement(suite, "properties")
    for name, value in properties.items():
        SubElement(listed, "property", {"name": name, "value": _xml(value)})
    suite.extend(cases)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _xml(text: str) -> str:
    """Names come from bundles, and so from anyone: what XML cannot hold is left out."""
    return _NOT_XML.sub("", text)
