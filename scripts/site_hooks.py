"""Hooks of `mkdocs build`: the navigation, and pages from outside docs/.

The navigation follows docs/index.md, so that there is one list of pages; a page missing from it fails the strict build.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the top of the repository, and their paths in the site."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^(?:-|\d+\.) \[([^\]]+)\]\(([^)#\s]+\.md)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the navigation to the lists of docs/index.md."""
    config.nav = navigation((Path(config.docs_dir) / "index.md").read_text(encoding="utf-8"))
    return config


def navigation(index: str) -> list[dict[str, Any]]:
    """What mkdocs calls `nav`, from the text of docs/index.md: the tutorials, then a group for each list."""
    groups = [
        {title: [{name: OUTSIDE.get(PurePosixPath(path).name, path)} for name, path in _ITEM.findall(body)]}
        for title, body in _SECTION.findall(index)
        if _ITEM.search(body)
    ]
    return [{"Home": "index.md"}, {"Tutorial": "tutorial.md"}, {"From Python": "tutorial-python.md"}, *groups]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the contributing guide and the changelog, with links relative to docs/."""
    for name, path in OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](")
        for other, its_path in OUTSIDE.items():
            text = text.replace(f"]({other}", f"]({its_path}")
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files that are not pages by their text: the site does not contain the repository."""
    folder = PurePosixPath(page.file.src_uri).parent

    def within(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        target, _, anchor = link.partition("#")
        if "://" in link or not target:
            return match[0]
        outside = (Path(config.docs_dir) / folder / target).resolve()
        if outside.is_relative_to(Path(config.docs_dir).resolve()):
            return match[0]
        if outside.name in OUTSIDE:
            up = "../" * len(folder.parts)
            return f"{mark}[{text}]({up}{OUTSIDE[outside.name]}{f'#{anchor}' if anchor else ''})"
        return text

    return _LINK.sub(within, markdown)
