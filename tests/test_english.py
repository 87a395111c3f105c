"""Phrases that CONTRIBUTING.md replaces stay replaced: plain, idiomatic English, in the words of the field."""

import re

import pytest

from tests.documentation import PAGES, REFERENCE, ROOT

GENERATED = REFERENCE / "cli.md"
"""From the help texts of the command line, which are part of the source."""
MODULES = sorted((ROOT / "edgerecover").rglob("*.py"))

IN_PAGES = {
    r"go(es|ing|ne)? on (from|by|with)": "resume",
    r"goes on where": "resumes",
    r"(is|are) called so": "unknown",
    r"so called": "called",
    r"c[oa]mes? to (its|their) end": "finish",
    r"do(es)? not suffice": "not enough; out of memory",
    r"too little memory": "out of memory",
    r"c[oa]mes? about": "was made; could not connect",
    r"(shared|sharing|dealt|dealing|handed|handing) out": "distribute",
    r"told (by|from|apart)": "recognised by, distinguished from",
    r"anew": "again, re-",
    r"in the place of": "instead of",
    r"process of (its|their) own": "its own process",
    r"surely": "significantly",
    r"the release before": "the previous release",
    r"held[- ]back": "held-out",
    r"nowhere worse": "Pareto-optimal",
    r"in silence": "silently",
    r"puts? out": "outputs",
    r"weighs? alike": "have equal weight",
    r"(is|was|were) at hand": "available",
    r"learn(t|ed) by heart": "memorised",
    r"brought back": "recovered",
}
"""Gone from README.md and docs/, with what is written instead."""
IN_SOURCE = {phrase: better for phrase, better in IN_PAGES.items() if "held" not in phrase}
"""Gone from the source of edgerecover/, too, where `held_back` is the name of a set."""

_CODE = re.compile(r"^ *```.*?^ *```$|`[^`]*`|\]\([^)\s]*\)|<!--.*?-->", re.MULTILINE | re.DOTALL)


def found(phrases, text):
    """Each phrase that the text has, with what to write instead. Line breaks count as spaces."""
    text = " ".join(text.split())
    return [
        f"{match[0]!r}: write {better!r}"
        for phrase, better in phrases.items()
        for match in re.finditer(rf"\b{phrase}\b", text, re.IGNORECASE)
    ]


def text_of(module):
    """A module's source with its strings and comments as running text: no quotes or `#` between their lines."""
    return re.sub(r'"\s+f?"|\n\s*#', " ", module.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(p for p in PAGES if p != GENERATED)], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_pages_are_in_plain_english(page):
    assert not found(IN_PAGES, _CODE.sub(" ", page.read_text(encoding="utf-8")))


def test_texts_of_the_program_are_in_plain_english():
    assert not [
        f"{module.relative_to(ROOT)}: {line}" for module in MODULES for line in found(IN_SOURCE, text_of(module))
    ]


def test_a_phrase_is_found_across_lines(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        'def run():\n    """It goes on\n    from here."""\n    # Told\n    # apart.\n'
        '    return (\n        f"{run} is sharing "\n        "out work"\n    )\n'
    )
    assert found(IN_PAGES, text_of(module)) == [
        "'goes on from': write 'resume'",
        "'sharing out': write 'distribute'",
        "'Told apart': write 'recognised by, distinguished from'",
    ]


def test_contributing_lists_what_is_replaced():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("\n## English\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| [^|]+ \| [^|]+ \|$", section, re.MULTILINE)) >= 25
