"""Bring the tables of TOML keys up to date with edgerecover/config/: `python scripts/generate_key_tables.py`.

Keys, allowed values and defaults come from the schemas. Meanings are written by hand in the page and kept; a new key
starts with its docstring.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, StringConstraints
from pydantic.fields import FieldInfo

from edgerecover.config import Fact, ModelFile, ModelFileInput, Profile, Settings, Target, WithoutNorms

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
_ROW = re.compile(r"^\| `([\w.]+)` \|(.*)\|$", re.MULTILINE)
SAID_BY_VALIDATORS = {
    "input.mean": "one number per channel",
    "input.std": "one number above 0 per channel",
    "input.range": "two numbers, ascending",
}
"""Constraints that the type alone does not express."""
EXTENDS = "extends"
"""Key of files that may extend others; it is not a field of their schemas."""


@dataclass(frozen=True)
class Key:
    """One key of a kind of file."""

    name: str
    """Dotted, from the top of the file."""
    field: FieldInfo
    meaning: str
    """Its docstring."""

    @property
    def value(self) -> str:
        return SAID_BY_VALIDATORS.get(self.name) or _words(self.field.annotation, tuple(self.field.metadata))

    @property
    def default(self) -> str:
        if self.field.is_required():
            return "required"
        default = self.field.default
        if default is None:
            return "–"
        if isinstance(default, (bool, int, float)):
            return f"`{str(default).lower()}`"
        return f'`"{default}"`' if isinstance(default, str) else f"`{list(default)}`"


def main() -> None:
    for name, page in pages().items():
        (REFERENCE / name).write_text(page, encoding="utf-8")


def pages() -> dict[str, str]:
    """Name and new text of each page."""
    return {
        "profiles.md": _update("profiles.md", Profile, lambda key, _: (key.value, key.default)),
        "targets.md": _update("targets.md", Target, _of_target),
        "model-toml.md": _update("model-toml.md", ModelFile, lambda key, _: (key.value,)),
    }


def _of_target(key: Key, before: tuple[str, ...]) -> tuple[str, ...]:
    """A key may be required by the value of another one, which is written in the page."""
    required = "yes" if key.field.is_required() else "no"
    return before[0] if before and before[0].startswith("with ") else required, key.value


def _update(name: str, schema: type[Settings], columns: Callable[[Key, tuple[str, ...]], tuple[str, ...]]) -> str:
    page = (REFERENCE / name).read_text(encoding="utf-8")
    keys = {key.name: key for key in keys_of(schema)}
    written = set()

    def row(match: re.Match[str]) -> str:
        _, *cells = _cells(match[0])
        key = keys.get(match[1])
        if key is None:
            return match[0] if match[1] == EXTENDS else ""
        written.add(key.name)
        made = columns(key, tuple(cells))
        meaning = " | ".join(cells[len(made) :])
        return _line(key, made, meaning)

    # Rows of other tables (the shipped profiles) begin with names that are no keys and have more cells.
    num_cells = 1 + len(columns(next(iter(keys.values())), ())) + 1
    page = _ROW.sub(lambda match: row(match) if len(_cells(match[0])) == num_cells else match[0], page)
    for key in keys.values():
        if key.name not in written:
            page = _with_row(page, _line(key, columns(key, ()), key.meaning), near=key.name)
    return page


def _cells(line: str) -> list[str]:
    """Of one row; a meaning may hold a bar, but no cell before it does."""
    return [cell.strip() for cell in line[1:-1].split(" | ")]


def _line(key: Key, made: tuple[str, ...], meaning: str) -> str:
    return f"| {' | '.join([f'`{key.name}`', *made])} | {f'{meaning} ' if meaning else ''}|"


def _with_row(page: str, line: str, near: str) -> str:
    """After the last row of the same table of the file."""
    table = near.rpartition(".")[0]
    rows = [m for m in _ROW.finditer(page) if m[1].rpartition(".")[0] == table]
    if not rows:
        raise SystemExit(f"{near}: no table of the page has keys of [{table}]; write its first row")
    return f"{page[: rows[-1].end()]}\n{line}{page[rows[-1].end() :]}"


def keys_of(schema: type[Settings], prefix: str = "") -> Iterator[Key]:
    """Every key that a file may hold, in the order of the schema."""
    meanings = _docstrings(schema)
    for name, field in schema.model_fields.items():
        key = Key(f"{prefix}{name}", field, meanings.get(name, ""))
        if get_origin(field.annotation) is dict:
            yield from keys_of(get_args(field.annotation)[1], f"{prefix}{name}.NAME.")
            continue
        tables = [kind for kind in _parts(field.annotation) if _is_table(kind)]
        if tables == [WithoutNorms]:
            yield key  # its keys are those of the tables it changes
            continue
        if not tables or not (field.is_required() or _has_own_section(field)):
            yield key
        for table in tables:
            yield from keys_of(table, f"{prefix}{name}.")


def _has_own_section(field: FieldInfo) -> bool:
    """A table that the page shows as one, key by key."""
    return isinstance(field.default, Settings) or field.annotation == ModelFileInput | None


def _parts(annotation: Any) -> tuple[Any, ...]:
    """A type, or those that it is made of."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType, tuple):
        return tuple(part for arg in get_args(annotation) for part in _parts(arg))
    return (annotation,)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings) and not issubclass(kind, Fact)


def _docstrings(schema: type[Settings]) -> dict[str, str]:
    """The text below each field."""
    (body,) = (node for node in ast.parse(textwrap.dedent(inspect.getsource(schema))).body)
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


# --- what a key may hold --------------------------------------------------------------------------------------


def _words(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type as the tables say it: "number above 0", "list of text"."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(args[0], (*args[1:], *metadata))
    if origin in (Union, UnionType):
        kinds = [_words(part, metadata) for part in args if part is not NoneType]
        return ", ".join(kinds)
    if isinstance(annotation, type) and issubclass(annotation, Fact):
        value = annotation.model_fields["value"]
        return _words(value.annotation, tuple(value.metadata))
    if origin is tuple:
        return _list(args)
    if origin is Literal:
        return ", ".join(f'`"{choice}"`' for choice in args)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f'`"{choice.value}"`' for choice in annotation)
    if _is_table(annotation):
        return "tables" if annotation is WithoutNorms else "table"
    return _scalar(annotation, metadata)


def _list(args: tuple[Any, ...]) -> str:
    if len(args) == 2 and args[1] is Ellipsis:
        if _is_table(args[0]):
            return "list of tables"
        one = _words(args[0])
        return f"list of {one}" if one.startswith("`") or one == "text" else f"list of {one}s"
    counted = {2: "two", 3: "three"}[len(args)]
    return f"{counted} {_words(args[0])}s"


def _scalar(kind: Any, metadata: tuple[Any, ...]) -> str:
    limits = {type(limit): limit for part in metadata for limit in _limits(part)}
    low, above, high = limits.get(Ge), limits.get(Gt), limits.get(Le)
    if kind is bool:
        return "`true`, `false`"
    if kind is str:
        return next((words for part in metadata if (words := _kind_of_text(part))), "text")
    number = "whole number" if kind is int else "number"
    if low is not None and high is not None:
        return "fraction" if (low.ge, high.le) == (0, 1) else f"{low.ge:,} to {high.le:,}"
    if above is not None:
        return f"{number} above {above.gt:g}"
    if low is not None and (low.ge == 0 or kind is not int):
        return f"{number}, {low.ge:g} or more"
    return number  # a count is 1 or more


def _limits(part: Any) -> tuple[Any, ...]:
    """Pydantic's Field holds its limits inside."""
    return tuple(part.metadata) if isinstance(part, FieldInfo) else (part,)


def _kind_of_text(part: Any) -> str:
    if isinstance(part, AfterValidator):
        return {"_specifier": "version specifier", "_known_isa": "instruction set"}[part.func.__name__]
    patterns = [getattr(limit, "pattern", None) for limit in _limits(part)]
    if isinstance(part, StringConstraints):
        patterns.append(part.pattern)
    return "digits" if "^[0-9]+$" in patterns else ""


if __name__ == "__main__":
    main()
