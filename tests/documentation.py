"""What the tests of the documentation share: the commands of a page, and whether an output is what it shows."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
TUTORIAL = DOCS / "tutorial.md"
FROM_NOTHING = (TUTORIAL, DOCS / "how-to" / "sign-and-verify.md")
"""Pages that begin in an empty folder and show what their commands print: test_docs.py runs them."""
PAGES = sorted(DOCS.rglob("*.md"))


@dataclass(frozen=True)
class Step:
    """One command of the tutorial and what it shows of the output."""

    command: str
    exact: str
    """Printed below the command: compared but for white space."""
    sample: str = ""
    """In text blocks further down: compared but for numbers and bars too, which differ from machine to machine."""
    exit_code: int = 0
    """What `echo $?` after it shows."""


def steps_of(page):
    steps = []
    for kind, body in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if kind == "text":
            steps[-1] = replace(steps[-1], sample=f"{steps[-1].sample}...{body}")
        if kind == "console":
            steps += steps_in(body)
    return steps


def steps_in(console):
    """The commands of one block, with what stands below each."""
    steps = []
    for piece in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, output = piece.partition("\n")
        if command == "echo $?":
            steps[-1] = replace(steps[-1], exit_code=int(output))
        else:
            steps.append(Step(command, output))
    return steps


def without_numbers(text):
    text = re.sub(r"\d+ (?:min \d+ s|h \d+ min)", "0 s", text)
    return re.sub(r"[█░─]+", "", re.sub(r"-?\d+(?:[.,]\d+)*(?:e-\d+)?", "#", text))


def shows(expected, output):
    """Whether the pieces between `...` stand in the output in this order; white space does not count."""
    position, output = 0, " ".join(output.split())
    for piece in expected.split("..."):
        wanted = " ".join(piece.split())
        position = output.find(wanted, position)
        if position < 0:
            return False
        position += len(wanted)
    return True
