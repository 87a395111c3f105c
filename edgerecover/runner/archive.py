"""runner.pyz: the runner and exactly the modules that it imports, in one file that Python runs. Stdlib only."""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ENTRY = "edgerecover.runner.__main__"
_SHEBANG = b"#!/usr/bin/env python3\n"
_PACKAGE = "edgerecover"
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip file can hold: the archive must not depend on when it was made."""


@cache
def runner_pyz() -> bytes:
    """The archive; the same modules give the same bytes.

    Its `__main__.py` is that of the runner, which every Python can parse and too old a one refuses with a message.
    """
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(_members().items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def runner_modules() -> tuple[str, ...]:
    """Dotted names of all edgerecover modules that the runner can import, sorted.

    Found in the source: imports at any depth but those for type checkers, and texts that are the name of a module,
    which is how a fresh interpreter is told what to run.
    """
    found: set[str] = set()
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [*_parents(module), *_named_in(ast.parse(_source(module)))]
    return tuple(sorted(found))


def _members() -> dict[str, bytes]:
    members = {_member(module): _file(module).read_bytes() for module in runner_modules()}
    return {**members, "__main__.py": _file(ENTRY).read_bytes()}


def _member(module: str) -> str:
    """Path inside the archive."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if _file(module).name == "__init__.py" else f"{path}.py"


def _file(module: str) -> Path:
    file = _find(module)
    assert file is not None, f"{module} was found before"
    return file


@cache
def _find(module: str) -> Path | None:
    """The file of a module of this package; None where there is none. Nothing is imported."""
    base = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    return next((file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()), None)


def _source(module: str) -> str:
    return _file(module).read_text(encoding="utf-8")


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts)))


def _named_in(tree: ast.AST) -> Iterator[str]:
    for node in _running(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value.count(".") and node.value.isascii() else []
        yield from (name for name in names if _is_ours(name))


def _is_ours(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == _PACKAGE and all(part.isidentifier() for part in parts) and _find(name) is not None


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only type checkers look at."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _running(child)
