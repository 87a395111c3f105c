"""The gates as Markdown, for a job's summary or a pull request. Stdlib only."""

from __future__ import annotations

import html
import re

from edgerecover.artifacts import Gate, GateResult, GateStatus
from edgerecover.errors import EdgeRecoverError
from edgerecover.runner.text import printable

_SIGN = {
    GateStatus.PASS: "✅",
    GateStatus.FAIL: "❌",
    GateStatus.INCONCLUSIVE: "❔",
    GateStatus.NEEDS_DEVICE: "📟",
    GateStatus.SKIP: "⏭️",
}
_MARKS = re.compile(r"([\\`*_\[\]|#~])")


def markdown(result: GateResult) -> str:
    """A heading with the verdict, a row for each gate, and what it was compared with."""
    release = result.release
    beside = f", beside {_plain(result.baseline.bundle)}" if result.baseline else ""
    rows = [f"| {_SIGN[gate.status]} {gate.status.word} | {_plain(gate.name)} | {_numbers(gate)} | "
            f"{_plain(gate.message)} |" for gate in result.gates]  # fmt: skip
    return "\n".join(
        [
            f"## {_SIGN[result.verdict]} {result.verdict.word}: {_plain(release.bundle)} for {_plain(release.target)}"
            f"{beside}",
            "",
            "| Gate | | Measured, limit | |",
            "|---|---|---|---|",
            *rows,
            "",
            *(f"> {_plain(note)}\n" for note in result.notes),
            f"<sub>edgerecover {_plain(result.edgerecover_version)}, {_plain(result.created_utc)}, manifest "
            f"{_plain(release.manifest_sha256[:16])}, {result.seconds:.0f} s</sub>",
            "",
        ]
    )


def markdown_of_error(bundle: str, error: EdgeRecoverError) -> str:
    """A heading and the message."""
    lines = [f"## ❌ ERROR: {_plain(bundle)}", "", _plain(error.message)]
    return "\n".join([*lines, *(["", f"Next: {_plain(error.hint)}"] if error.hint else []), ""])


def _numbers(gate: Gate) -> str:
    unit = f" {gate.unit}" if gate.unit else ""
    measured = "–" if gate.measured is None else f"{gate.measured:.4g}{unit}"
    return f"{measured}, {gate.direction} {gate.limit:g}{unit}"


def _plain(text: str) -> str:
    """Names come from bundles, and so from anyone: no markup, no HTML, one line."""
    return _MARKS.sub(r"\\\1", html.escape(printable(" ".join(text.split())), quote=False))
