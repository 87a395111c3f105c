"""What a page ends with: what to do next, with this bundle's names, and the words it uses."""

from __future__ import annotations

import re
import shlex

from edgerecover.artifacts import GateStatus, Report
from edgerecover.report.glossary import WORDS
from edgerecover.report.html.blocks import Section, Step, Steps, Text, Word, Words

_ARCHIVE = ".tar"


def words(*names: str) -> tuple[Word, ...]:
    """Words of the glossary by their names; all of them if none is named."""
    return tuple(Word(name, re.sub(r"`(.+?)`", r"“\1”", WORDS[name])) for name in names or WORDS)


def words_section() -> Section:
    """Every word of the report that is not everyday English."""
    return Section("words", "Words", (Words(words()),))


def next_section(report: Report, bundle: str) -> Section:
    """Check the bundle, run it on the device, gate it in CI; `bundle` is the name of its folder or archive."""
    folder = shlex.quote(bundle.removesuffix(_ARCHIVE))
    steps = (
        *(
            (Step("Unpack it.", f"edgerecover bundle unpack {shlex.quote(bundle)}"),)
            if bundle.endswith(_ARCHIVE)
            else ()
        ),
        Step("Check that nothing was changed on the way.", f"edgerecover bundle verify {folder}"),
        Step("Copy it to the device. USER and DEVICE are yours to fill in.", f"scp -r {folder} USER@DEVICE:"),
        Step(
            f"Run it there. This checks the outputs, measures latency and memory, judges the limits of {report.target} "
            "and writes result.json. It needs Python 3.10 or newer, numpy and the target's runtime; not edgerecover, "
            "PyTorch or a network.",
            f"python3 {folder}/runner.pyz {folder}",
        ),
        Step("Or do both from your desk, over ssh.", f"edgerecover bench {folder} --on ssh://USER@DEVICE"),
        Step(
            "Gate it in CI against the last release. The first time there is none: --init-baseline keeps this bundle "
            "as the one to compare with.",
            f"edgerecover gate {folder} --baseline last.bundle --init-baseline",
        ),
    )
    waiting = sum(gate.status is GateStatus.NEEDS_DEVICE for gate in report.gates)
    told = (
        f"{waiting} of {len(report.gates)} gates can only be settled on {report.target}."
        if waiting
        else "Every gate has been settled on this machine."
    )
    return Section("next", "What to do next", (Text(told), Steps(steps)))
