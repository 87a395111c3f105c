"""The gates as GitHub workflow commands, which a job's log shows as annotations. Stdlib only.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Iterator

from edgerecover.artifacts import Gate, GateResult, GateStatus
from edgerecover.errors import EdgeRecoverError
from edgerecover.runner.text import printable

_COMMAND = {
    GateStatus.FAIL: "error",
    GateStatus.INCONCLUSIVE: "warning",
    GateStatus.NEEDS_DEVICE: "notice",
    GateStatus.SKIP: "notice",
}


def annotations_of(result: GateResult) -> Iterator[str]:
    """A line for each gate that did not pass."""
    for gate in result.gates:
        if command := _COMMAND.get(gate.status):
            yield _line(command, _title(gate), gate.message)


def annotation_of_error(error: EdgeRecoverError) -> str:
    """One line."""
    return _line("error", "edgerecover gate", f"{error.message}\n{error.hint}".strip())


def _title(gate: Gate) -> str:
    return f"edgerecover gate: {gate.name} {gate.status.value}"


def _line(command: str, title: str, message: str) -> str:
    return f"::{command} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    """Escaped as the runner unescapes it; the percent sign first. What else is not printable is spelled out."""
    lines = (printable(line) for line in text.replace("\r\n", "\n").split("\n"))
    return "%0A".join(line.replace("%", "%25") for line in lines)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
