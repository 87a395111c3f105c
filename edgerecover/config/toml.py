"""TOML files: read and checked against a schema, or written. A wrong one is reported with file, line and key."""

# Pydantic is this module's whole purpose, and everything that imports it is about to read a TOML file.
# ruff: noqa: TID253

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from edgerecover.config.schema import Settings
from edgerecover.config.words import in_words, with_found
from edgerecover.errors import UNREADABLE_HINT, BadInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

M = TypeVar("M", bound="Settings")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        BadInputError: it cannot be read or is not TOML; the message gives the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=UNREADABLE_HINT,
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: is not UTF-8 text, as TOML must be", hint="save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(
            f"{path}: is not valid TOML: {error}", hint="correct that line; https://toml.io describes the format"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{path}: is nested too deeply, or contains a number that is too long",
            hint="simplify it; no file of edgerecover needs that",
        ) from error


def parse(kind: type[M], data: dict[str, Any], path: Path) -> M:
    """Check `data`, read from `path`, against a schema.

    Raises:
        BadInputError: names file, line, key, what was found, and for an unknown key the nearest known one.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = _grouped(error, data)
        raise BadInputError(
            "\n".join(_describe(kind, keys, group, path) for keys, group in problems.items()),
            hint=_HINTS[kind.__name__],
        ) from error


_HINTS = {
    "Target": "`edgerecover targets show jetson-orin` prints one; `edgerecover help targets` describes the keys",
    "Profile": "`edgerecover profiles show balanced` prints one; `edgerecover help profiles` describes the keys",
    "ModelFile": "for example [input] with shape = [3, 224, 224]; `edgerecover help model-toml` describes its keys",
    "LimitsFile": "for example max_latency_regression = 0.05; `edgerecover help gate` describes the keys",
}

_Keys = tuple[str | int, ...]


def _grouped(error: ValidationError, data: dict[str, Any]) -> dict[_Keys, list[Any]]:
    """The problems by key; what `[without_norms]` only inherited is reported where it stands."""
    found: dict[_Keys, list[Any]] = {}
    for problem in error.errors():
        keys = _keys_in(data, problem["loc"], is_absent=problem["type"] == "missing")
        found.setdefault(keys, []).append(problem)
    wrong_items = {keys[:-1] for keys in found if keys and isinstance(keys[-1], int)}
    return {
        keys: group
        for keys, group in found.items()
        if not (keys[:1] == ("without_norms",) and any(keys[1 : 1 + len(other)] == other for other in found if other))
        and not (keys in wrong_items and group[0]["type"] == "too_short")  # short by the wrong items alone
    }


def _keys_in(data: Any, location: _Keys, *, is_absent: bool) -> _Keys:
    """The keys of a problem, without the names that pydantic adds for the choices of a union."""
    keys: list[str | int] = []
    for part in location:
        is_there = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if not is_there:
            return (*keys, part) if is_absent else tuple(keys)
        keys.append(part)
        data = data[part]
    return tuple(keys)


def _describe(kind: type[Settings], location: _Keys, group: list[Any], path: Path) -> str:
    keys = [key for key in location if isinstance(key, str)]
    line = line_of(path, keys)
    where = f"{path}:{line}" if line else str(path)
    dotted = ".".join(str(key) for key in location)
    problem = group[0]
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, 1)
        advice = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
        return f"{where}: unknown key {dotted!r}{advice}"
    if problem["type"] == "missing":
        if isinstance(location[-1], int):
            return f"{where}: {'.'.join(map(str, location[:-1]))}: too few values (found {problem['input']!r})"
        return f"{where}: key {dotted!r} is missing"
    if problem["type"] == "model_type" and "Fact" in str(problem.get("ctx", {}).get("class_name")):
        message = f'expected a value with its source: {dotted} = {{ value = …, source = "…" }}'
    else:
        words = [in_words(one) for one in group]
        message = " or ".join([words[0], *(word.removeprefix("expected ") for word in words[1:])])
    return f"{where}: {dotted or 'file'}: {with_found(message, problem['input'])}"[:400]


def _known_keys(kind: Any, keys: list[str]) -> list[str]:
    for key in keys:
        if get_origin(kind) is dict:  # whose keys the user chooses
            kind = get_args(kind)[1]
            continue
        field = kind.model_fields.get(key)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        kind = next((c for c in candidates if get_origin(c) is dict or _is_schema(c)), None)
        if kind is None:
            return []
    return sorted(kind.model_fields) if _is_schema(kind) else []


def _is_schema(kind: Any) -> bool:
    # On Python 3.10, list[int] is an instance of type, but no class.
    return get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, Settings)


def line_of(path: Path, keys: list[str]) -> int | None:
    """Line of a dotted key in a TOML file: tables are followed, inline tables count as their own line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    table: list[str] = []
    best, best_depth = None, 0
    for number, line in enumerate(lines, start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            found = table
        elif entry := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            found = table + [part.strip("\"'") for part in entry[1].split(".")]
        else:
            continue
        if keys[: len(found)] == found and len(found) > best_depth:
            best, best_depth = number, len(found)
    return best


# --- writing; the standard library only reads TOML ---------------------------------------------------------------


def to_toml(data: Mapping[str, Any]) -> str:
    """Text that reads as the same data; what is None is left out.

    Args:
        data: texts, numbers, booleans, lists of them, tables, and lists of tables.
    """
    return "\n".join(_lines(data, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Values first: whatever follows the heading of a table belongs to it."""
    present = {key: value for key, value in table.items() if value is not None}
    nested = {key: value for key, value in present.items() if isinstance(value, dict) or _is_list_of_tables(value)}
    for key, value in present.items():
        if key not in nested:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in nested.items():
        here = (*path, _key(key))
        heading = f"[{'.'.join(here)}]" if isinstance(value, dict) else f"[[{'.'.join(here)}]]"
        for inner in [value] if isinstance(value, dict) else value:
            yield from ("", heading)
            yield from _lines(inner, here)


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value).lower()  # TOML's true, 1.5, 3e-05, inf and nan


def _text(text: str) -> str:
    """JSON escapes what TOML does, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
