"""`help`: the pages of the documentation that come with edgerecover, for those who have installed only that."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated

import typer

from edgerecover.cli.console import stdout
from edgerecover.errors import BadInputError

_DECISIONS = "adr"
"""Folder of pages about why edgerecover is made as it is; `help` lists them last."""


def help_command(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]", help="Name of a page, or of a section of one: words. Default: list the pages."
        ),
    ] = None,
) -> None:
    """Show a page of the documentation, or list the pages."""
    from edgerecover.report.terminal import print_groups

    pages = _pages()
    if topic is None:
        print_groups(stdout(), _listed(pages))
        return
    text = _find(pages, topic)
    console = stdout()
    if console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(text), width=min(console.width, 100))
    else:
        typer.echo(text.rstrip("\n"))


def _pages() -> dict[str, Path]:
    """Every page by its name, decisions last."""
    from edgerecover.config import shipped_folder

    found = sorted(shipped_folder("docs").rglob("*.md"), key=lambda path: (path.parent.name == _DECISIONS, path.stem))
    return {path.stem: path for path in found if path.stem != "index"}


def _listed(pages: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Titles by the names of the pages, in groups; without decisions, to which pages link."""
    groups: dict[str, dict[str, str]] = {"Start": {"words": "The words of the report, each explained once"}}
    for name, path in pages.items():
        group = {"how-to": "How to", "reference": "Reference", "explanation": "Explanation", "docs": "Start"}
        if path.parent.name in group:
            groups.setdefault(group[path.parent.name], {})[name] = _title(path)
    return groups


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def _find(pages: dict[str, Path], topic: str) -> str:
    """The text of a page, or of the first section that has this name.

    Raises:
        BadInputError: there is no such page or section.
    """
    wanted = _slug(topic.removesuffix(".md").rpartition("/")[2])
    if wanted in pages:
        return pages[wanted].read_text(encoding="utf-8")
    sections = set()
    for path in pages.values():
        for section in re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            title = _slug(section.partition("\n")[0].lstrip("# "))
            if title == wanted:
                return section
            sections.add(title)
    near = difflib.get_close_matches(wanted, [*pages, *sections], n=1, cutoff=0.75)
    raise BadInputError(
        f"there is no page or section {topic!r}",
        hint=f"`edgerecover help {near[0]}`?"
        if near
        else "`edgerecover help` lists the pages, `edgerecover COMMAND --help` the options of a command",
    )


def _slug(title: str) -> str:
    return "-".join(re.findall(r"[\w.]+", title.lower()))
