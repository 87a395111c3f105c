import re
from pathlib import Path

from edgerecover.report.glossary import WORDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "report.md"


def test_the_page_and_the_report_explain_the_same_words():
    section = PAGE.read_text(encoding="utf-8").partition("## Words")[2].partition("While a run is working")[0]
    assert dict(re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)[1:]) == WORDS
