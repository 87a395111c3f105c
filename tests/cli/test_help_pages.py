"""`edgerecover help`: the documentation for those who have only a wheel."""

import re

import pytest
from typer.testing import CliRunner

from edgerecover.cli import app
from edgerecover.errors import BadInputError
from tests.documentation import DOCS, ROOT

MENTIONED = re.compile(r"edgerecover help ([\w.-]+\w)")


def shown(*arguments):
    result = CliRunner().invoke(app, ["help", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_it_lists_every_page_with_its_title():
    text = shown()
    for folder in ("how-to", "reference", "explanation"):
        for page in (DOCS / folder).glob("*.md"):
            assert re.search(rf"^  {re.escape(page.stem)} ", text, re.MULTILINE), page


def test_a_page_is_shown_as_it_is_written_where_it_is_piped():
    assert shown("exit-codes") == (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    assert shown("docs/reference/exit-codes.md") == shown("exit-codes")


def test_a_section_is_shown_alone():
    text = shown("words")
    assert text.startswith("## Words\n")
    assert "| rung |" in text
    assert "| `ranges` |" in text
    assert "Two side by side" not in text


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("tropubleshoot", "help troubleshoot"), ("zzzz", "lists the pages"), ("prune", "COMMAND --help")],
)
def test_a_page_that_is_not_there_is_an_error_with_what_to_do(asked, hint):
    with pytest.raises(BadInputError) as raised:
        shown(asked)
    assert hint in raised.value.hint


def test_every_page_that_a_message_names_is_there():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "edgerecover").rglob("*.py")]
    named = {topic for source in sources for topic in MENTIONED.findall(source)}
    assert {"words", "targets", "agreement-and-accuracy"} <= named
    for topic in named:
        assert shown(topic)


def test_no_message_names_a_file_that_a_wheel_does_not_have():
    for path in (ROOT / "edgerecover").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            quoted = re.search(r'f?"[^"]*docs/[\w/-]+\.md', line)
            assert not quoted or line.lstrip().startswith('"""'), f"{path.name}: {line.strip()}"
